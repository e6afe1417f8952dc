"""ONNX Runtime and OpenVINO: which are installed, and what a file gives on them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError

RUNTIMES = ("onnxruntime", "openvino")  # the names of their modules

Infer = Callable[[NDArray[Any]], NDArray[np.float32]]  # from a batch of pixels to its logits


def installed() -> list[str]:
    """Those of `RUNTIMES` that can be imported here."""
    return [name for name in RUNTIMES if find_spec(name)]


def runtime_version(runtime: str) -> str:
    """Version of an installed runtime, under whichever package's name it came."""
    return str(import_module(runtime).__version__).split("-")[0]


def run_on(runtime: str, path: Path, batches: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Logits (B, h, w, C) of a file on a runtime.

    Args:
        runtime, path: see `open_on`.
        batches: (n, H, W, 3) each.

    Raises:
        InputError: the runtime refuses the file.
    """
    try:
        infer = open_on(runtime, path)
        return np.concatenate([infer(batch) for batch in batches])
    except Exception as error:  # of types of their own, which have no other base
        reason = str(error).strip().splitlines() or [type(error).__name__]  # OpenVINO begins with files of its own
        raise InputError(f"{path}: {runtime} {runtime_version(runtime)} refuses it ({reason[-1]})") from None


def open_on(runtime: str, path: Path) -> Infer:
    """A file on a runtime, in float32 arithmetic where the file has floats.

    Args:
        runtime: of `RUNTIMES`.
        path: an ``.onnx``, or for OpenVINO an ``.xml`` too.
    """
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](path)


def _onnxruntime(path: Path) -> Infer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    dtype = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[image.type]
    return lambda batch: session.run(None, {image.name: batch.astype(dtype)})[0]


def _openvino(path: Path) -> Infer:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    dtype = model.input(0).element_type.to_dtype()
    return lambda batch: np.array(model(batch.astype(dtype))[0])


def fault_by_default(path: Path) -> str:
    """Why OpenVINO refuses a file in the precision that it chooses by itself, bfloat16 on some CPUs; "" if it does not.

    Seen with OpenVINO 2026.4.1: int8 files of untrained weights, whose biases are 0.
    """
    import openvino

    try:
        openvino.Core().compile_model(path, "CPU")
    except Exception:  # of a type of its own; the reason names a line of its source
        return (
            f"openvino {runtime_version('openvino')} refuses it in the precision that it takes by default on this CPU: "
            'compile it with {"INFERENCE_PRECISION_HINT": "f32"}'
        )
    return ""
