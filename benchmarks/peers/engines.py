"""Engines that run a contender: the same picture in memory -> logits -> class mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.files import CLASSES, made_by, versions
from benchmarks.peers.files import torch_model
from benchmarks.picture import SIZE, normalized, picture
from segformer_tf.config import variant_config
from segformer_tf.edge.runtime import RUNTIMES, open_interpreter
from segformer_tf.errors import InputError
from segformer_tf.mask import logits_to_mask

GRID = tuple(side // 4 for side in SIZE)


@dataclass(frozen=True)
class Engine:
    """A contender that is ready to run.

    Attributes:
        infer: from an input in memory to the engine's logits, valid until its next call.
        to_mask: from these to (height, width) class ids, as the engine's users do it; None if that needs a package that
            is not installed.
        engine: name and version of the package that runs it.
        made_by: names and versions of the packages that made its file, or "".
    """

    infer: Callable[[], Any]
    to_mask: Callable[[Any], Any] | None
    engine: str
    made_by: str

    def about(self) -> tuple[str, str]:
        """`engine` and `made_by`, for another process."""
        return self.engine, self.made_by

    def turn(self) -> tuple[float, float]:
        """Seconds to the logits and to the mask (NaN without one), one call each after one that does not count."""
        self.infer()
        started = perf_counter()
        self.infer()
        to_logits = perf_counter() - started
        if self.to_mask is None:
            return to_logits, float("nan")
        started = perf_counter()
        self.to_mask(self.infer())
        return to_logits, perf_counter() - started

    def logits(self) -> NDArray[np.float32]:
        """A copy, float32."""
        return np.array(self.infer(), np.float32)


def ours(path: Path, runtime: str, threads: int) -> Engine:
    """A file of `segformer export`: RGB 0..255 in; raises InputError for another size or number of classes."""
    infer, shape = _tflite(path, runtime, threads, lambda kind: picture()[None].astype(kind))
    if shape != (1, *GRID, CLASSES):
        raise InputError(f"{path}: expected {SIZE} in and {(1, *GRID, CLASSES)} out. Received: {shape} out")
    return Engine(infer, _own_mask, _runtime(runtime), made_by(path))


def keras_hub(path: Path, runtime: str, threads: int) -> Engine:
    """keras-hub's file: normalized NHWC in, logits at the image's size out."""
    infer, _ = _tflite(path, runtime, threads, lambda kind: normalized().transpose(0, 2, 3, 1).astype(kind, order="C"))
    return Engine(infer, lambda logits: logits[0].argmax(-1), _runtime(runtime), made_by(path))


def litert_torch(path: Path, runtime: str, threads: int) -> Engine:
    """litert-torch's file of transformers' network: normalized NCHW in and out."""
    infer, _ = _tflite(path, runtime, threads, lambda kind: normalized())
    return Engine(infer, _torch_mask(threads), _runtime(runtime), made_by(path))


def onnxruntime(path: Path, own: bool, threads: int) -> Engine:
    """ONNX Runtime on the CPU; `own` for a file of `segformer export`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that sleep while they wait are faster beside other work, 200 ms to 300, and hardly slower alone.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source, target = session.get_inputs()[0], session.get_outputs()[0]
    dtype = np.uint8 if source.type == "tensor(uint8)" else np.float32
    feed = {source.name: _given(path, own, dtype, target.shape)}
    return Engine(lambda: session.run(None, feed)[0], _mask(own, threads), versions("onnxruntime"), made_by(path))


def openvino(path: Path, own: bool, precision: str, threads: int) -> Engine:
    """OpenVINO on the CPU; parts of the file that are not int8 are computed in `precision`, "f32" or "bf16"."""
    import openvino as ov

    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError("this CPU has no bf16")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.compile_model(path, "CPU", settings)
    shape = [side.get_length() if side.is_static else 0 for side in model.output(0).get_partial_shape()]
    request, image = model.create_infer_request(), _given(path, own, model.input(0).element_type.to_dtype(), shape)

    def infer() -> Any:
        return request.infer({0: image}, share_inputs=True, share_outputs=True)[0]

    return Engine(infer, _mask(own, threads), versions("openvino"), made_by(path))


def torch_eager(variant: str, threads: int) -> Engine:
    """PyTorch without compilation."""
    import torch

    torch.set_num_threads(threads)
    model, image = torch_model(variant_config(variant, num_classes=CLASSES)), torch.from_numpy(normalized())

    def infer() -> Any:
        with torch.inference_mode():
            return model(image)

    return Engine(infer, _torch_mask(threads), versions("torch"), versions("transformers"))


def _tflite(
    path: Path, runtime: str, threads: int, image: Callable[[Any], NDArray[Any]]
) -> tuple[Callable[[], Any], tuple[int, ...]]:
    """Inference by a TFLite runtime on `image` of the input's dtype, and the shape of the logits."""
    interpreter = open_interpreter(path, runtime=runtime, threads=threads, intact=True)  # in a process of its own
    return tflite_inference(interpreter, path, image)


def tflite_inference(
    interpreter: Any, path: Path, image: Callable[[Any], NDArray[Any]]
) -> tuple[Callable[[], Any], tuple[int, ...]]:
    """Inference by an open interpreter on `image` of the input's dtype, and the shape of the logits.

    Raises:
        InputError: the file at `path` takes no such image.
    """
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    pixels, view = image(source["dtype"]), interpreter.tensor(target["index"])  # a view costs no copy
    try:
        interpreter.set_tensor(source["index"], pixels)
    except ValueError as error:
        raise InputError(f"{path}: does not take {pixels.dtype} {pixels.shape} ({error})") from None

    def infer() -> Any:
        interpreter.set_tensor(source["index"], pixels)
        interpreter.invoke()
        return view()

    return infer, tuple(int(n) for n in target["shape"])


def _runtime(name: str) -> str:
    return versions(RUNTIMES[name].replace("_", "-"))


def _given(path: Path, own: bool, dtype: Any, logits: Sequence[Any]) -> NDArray[Any]:
    """The picture as an ONNX file takes it: pixels for `own`, or else normalized, channels first."""
    if not own:
        return normalized()
    if tuple(logits[1:]) != (*GRID, CLASSES):
        raise InputError(f"{path}: expected {SIZE} in and {(1, *GRID, CLASSES)} out. Received: {tuple(logits)} out")
    return picture()[None].astype(dtype)


def _mask(own: bool, threads: int) -> Callable[[Any], Any] | None:
    return _own_mask if own else _torch_mask(threads)


def _own_mask(logits: Any) -> Any:
    return logits_to_mask(logits[0], SIZE)


def _torch_mask(threads: int) -> Callable[[Any], Any] | None:
    """What transformers' post_process_semantic_segmentation computes, of logits (1, C, h, w)."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)

    def to_mask(logits: Any) -> Any:
        full = torch.nn.functional.interpolate(torch.as_tensor(logits), size=SIZE, mode="bilinear", align_corners=False)
        return full[0].argmax(dim=0)

    return to_mask
