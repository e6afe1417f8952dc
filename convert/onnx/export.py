"""`segformer export --format onnx` and `openvino`: a trained SegFormer in, a verified file or folder out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from convert.export import Exported, Source, prepare
from convert.exported import Verdict, judge
from convert.onnx.runtimes import RUNTIMES, fault_by_default, installed, run_on, runtime_version
from convert.onnx.writer import LOWEST_OPSET, OPSET, to_onnx
from convert.quantize.recipes import RECIPES as ALL_RECIPES
from segformer_tf.edge.metadata import OUTPUT_CONTRACT, ModelInfo
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, new_folder
from segformer_tf.model import SegFormer

# The others compute in integers that ONNX has no QDQ form for, or quantize as they run.
RECIPES = ("fp32", "fp16", "weight_int8", "int8", "int8_mixed")
OPENVINO_FILE = "model.xml"


def export_onnx(
    model: SegFormer,
    out: Path,
    *,
    recipe: str,
    size: tuple[int, int],
    images: Sequence[Path] = (),
    runtimes: Sequence[str] = (),
    opset: int | None = None,
    dynamic_batch: bool = False,
) -> Exported:
    """Convert, write, run and compare with Keras; `out` exists only if every runtime agrees.

    Args:
        model: trained model.
        out: ``.onnx`` to write.
        recipe: one of `RECIPES`.
        size: (height, width) of the input.
        images: to calibrate and to compare on, see `convert.export.export_tflite`.
        runtimes: of `convert.onnx.runtimes.RUNTIMES`; none for those that are installed.
        opset: version of the standard operators, from `LOWEST_OPSET`; None for `OPSET`.
        dynamic_batch: whether any number of images may go in at once.

    Raises:
        InputError: options that cannot be used, or a runtime that refuses the file or gets it wrong.
        ModuleNotFoundError: onnx or a runtime is not installed.
    """
    if out.suffix != ".onnx":
        raise InputError(f"--out must end in .onnx. Received: {out}")
    opset = OPSET if opset is None else opset
    _check("onnx", recipe, opset)
    runtimes = runtimes or installed() or RUNTIMES[:1]
    for name in runtimes:
        if name not in RUNTIMES:
            raise InputError(f"--runtime of --format onnx must be one of {', '.join(RUNTIMES)}. Received: {name}")
        runtime_version(name)  # before minutes of calibration
    source = prepare(model, ALL_RECIPES[recipe], size=size, images=images)
    pack = partial(to_onnx, source.graph(), opset=opset, dynamic_batch=dynamic_batch)
    with atomic(out) as part:
        part.write_bytes(pack().SerializeToString())
        verdicts = _verify(source, part, out, runtimes, dynamic_batch)
        warning = fault_by_default(part) if "openvino" in runtimes else ""
        part.write_bytes(pack(metadata=metadata(source.info(), verdicts, warning)).SerializeToString())
    return Exported(verdicts, warning, "")


def export_openvino(
    model: SegFormer,
    out: Path,
    *,
    recipe: str,
    size: tuple[int, int],
    images: Sequence[Path] = (),
    dynamic_batch: bool = False,
) -> Exported:
    """As `export_onnx`, to a folder `out` with OpenVINO's two files, of which `OPENVINO_FILE` is the one to open.

    The metadata is its run-time information, under ``segformer``.
    """
    _check("openvino", recipe, OPSET)
    import openvino

    source = prepare(model, ALL_RECIPES[recipe], size=size, images=images)
    content = to_onnx(source.graph(), dynamic_batch=dynamic_batch).SerializeToString()
    with new_folder(out) as folder:
        file = folder / OPENVINO_FILE
        # Not openvino.convert_model, which sends statistics of its use over the network.
        network = openvino.Core().read_model(content)
        save = partial(openvino.save_model, network, file, compress_to_fp16=False)
        save()
        verdicts = _verify(source, file, out, ["openvino"], dynamic_batch)
        warning = fault_by_default(file)
        for key, value in metadata(source.info(), verdicts, warning).items():
            network.set_rt_info(value, ["segformer", key])
        save()
    return Exported(verdicts, warning, "")


def metadata(info: ModelInfo, verdicts: Sequence[Verdict], warning: str = "") -> dict[str, str]:
    """What the file says about itself, as JSON: the keys of a ``.tflite``, and ``names``, of the classes."""
    results = {"verified": [verdict.runtime for verdict in verdicts], **({"warning": warning} if warning else {})}
    facts = replace(info, created={**info.created, **results}).facts()
    facts |= {
        "names": info.labels.names,
        "input": {**info.input_contract, "layout": "batch, height, width, channels"},
        "output": {**OUTPUT_CONTRACT, "layout": "batch, height, width, classes"},
    }
    return {key: json.dumps(value) for key, value in facts.items()}


def _check(format: str, recipe: str, opset: int) -> None:
    if recipe not in RECIPES:
        raise InputError(f"--format {format} takes --recipe {', '.join(RECIPES)}. Received: {recipe}")
    import onnx

    highest = onnx.defs.onnx_opset_version()
    if not LOWEST_OPSET <= opset <= highest:
        raise InputError(f"--opset must be {LOWEST_OPSET} to {highest}, as onnx {onnx.__version__} has them: {opset}")


def _verify(source: Source, path: Path, out: Path, runtimes: Sequence[str], dynamic_batch: bool) -> list[Verdict]:
    """Run the file on every runtime and compare it with Keras; raises InputError if one refuses it or gets it wrong."""
    pixels = np.stack(source.few_pixels)
    expected = np.concatenate([source.model.logits(image[None]) for image in pixels])
    batches = [pixels] if dynamic_batch else np.split(pixels, len(pixels))
    verdicts = []
    for runtime in runtimes:
        name = f"{runtime} {runtime_version(runtime)}"
        try:
            verdicts.append(judge(run_on(runtime, path, batches), expected, recipe=source.recipe, name=name))
        except InputError as error:
            raise InputError(f"{str(error).replace(str(path), str(out))}; nothing was written") from None
    return verdicts
