"""`segformer export`: a trained SegFormer in, a verified ``.tflite`` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

import segformer_tf
from convert.exported import Verdict, verify_file
from convert.graph.class_map import with_class_map
from convert.graph.flatbuffer import to_tflite
from convert.graph.metadata import STANDARD_ENTRY, model_metadata, write_with_files
from convert.graph.segformer import network
from convert.quantize.calibrate import ranges
from convert.quantize.recipes import RECIPES, Recipe
from convert.sample_images import sample_images
from convert.trained import float32_copy, refuse_one_class
from segformer_tf.edge.gpu import find_gpu
from segformer_tf.edge.metadata import ModelInfo
from segformer_tf.edge.runtime import GPU, RUNTIMES, choose_runtime
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer, check_image_shape
from segformer_tf.sampling import evenly_spaced

CALIBRATION_IMAGES = 100
VERIFICATION_IMAGES = 4


@dataclass(frozen=True)
class Exported:
    """How a file did on the runtimes where it was run.

    Attributes:
        verdicts: one for each runtime where it agrees with Keras.
        warning: why it must not be used on the GPU, or "".
        untried: why it could not be tried there, or "".
    """

    verdicts: list[Verdict]
    warning: str
    untried: str


def export_tflite(
    model: SegFormer,
    out: Path,
    *,
    recipe: str,
    size: tuple[int, int],
    images: Sequence[Path] = (),
    runtimes: Sequence[str],
    class_map: bool = False,
    try_gpu: bool = False,
) -> Exported:
    """Convert, write, run on every target runtime and compare with Keras; `out` exists only if all agree.

    Args:
        model: trained model.
        out: ``.tflite`` to write.
        recipe: name of one of `RECIPES`.
        size: (height, width) of the input.
        images: files to calibrate on and to compare on; up to `CALIBRATION_IMAGES`, evenly chosen. Without
            them the comparison uses synthetic images, and recipes that calibrate are refused.
        runtimes: target runtimes, of `segformer_tf.edge.runtime.RUNTIMES`.
        class_map: add the class map at the input's size as another output, before the logits.
        try_gpu: run it on the GPU as well, where there is one; a failure there is a warning, kept in the file.

    Raises:
        InputError: options that cannot be used, or a runtime that cannot run the file or gets it wrong.
    """
    if recipe not in RECIPES:
        raise InputError(f"--recipe must be one of {', '.join(RECIPES)}. Received: {recipe}")
    chosen = RECIPES[recipe]
    _check(model, out, chosen, size=size, images=images, runtimes=runtimes)
    if model.dtype_policy.compute_dtype != "float32":  # TFLite has no float16 arithmetic on CPUs
        model = float32_copy(model)
    pixels = sample_images(
        images, size, count=CALIBRATION_IMAGES, synthetic=VERIFICATION_IMAGES, bits=model.config.image_bits
    )
    graph = network(model, size, runtime=chosen.form(runtimes))
    names = chosen.tensors(graph)
    graph = chosen.rewrite(graph, ranges(graph, names, pixels) if names else {}, pixels)
    if class_map:
        graph = with_class_map(graph, size)
    info = ModelInfo(
        labels=model.config.labels or Labels.numbered(model.config.num_classes),
        recipe=recipe,
        created={
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "segformer_tf": segformer_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "calibration_images": len(pixels) if chosen.needs_calibration else 0,
        },
        license=model.config.license,
        bits=model.config.image_bits,
    )
    entries = {STANDARD_ENTRY: model_metadata(info, size, class_map=class_map), **chosen.entries}
    flatbuffer = to_tflite(graph, metadata=entries)
    verify = partial(verify_file, model=model, images=evenly_spaced(pixels, VERIFICATION_IMAGES), recipe=chosen)
    with atomic(out) as part:
        write_with_files(flatbuffer, info, part)
        try:
            verdicts = verify(part, runtimes=list(dict.fromkeys((*runtimes, *chosen.also))))
        except InputError as error:
            raise InputError(f"{str(error).replace(str(part), str(out))}; nothing was written") from None
        warning = untried = ""
        if try_gpu and chosen.fitting([GPU]) and GPU not in runtimes and find_gpu():
            try:
                verdicts += verify(part, runtimes=[GPU])
            except InputError as error:
                reason = str(error).removeprefix(f"{part}: ")
                fault = f"{GPU} " in reason and any(words in reason for words in (" wrong", "does not take it whole"))
                warning = f"not for {GPU}: {reason}" if fault else ""
                untried = "" if fault else reason
        results = {"verified": [verdict.runtime for verdict in verdicts], **({"warning": warning} if warning else {})}
        write_with_files(flatbuffer, replace(info, created={**info.created, **results}), part)
    return Exported(verdicts, warning, untried)


def _check(
    model: SegFormer,
    out: Path,
    recipe: Recipe,
    *,
    size: tuple[int, int],
    images: Sequence[Path],
    runtimes: Sequence[str],
) -> None:
    """Raises InputError for options that cannot be used together."""
    if out.suffix != ".tflite":
        raise InputError(f"--out must end in .tflite. Received: {out}")
    refuse_one_class(model.config)
    check_image_shape((None, *size, 3), "--size")
    if any(fixed not in (None, n) for fixed, n in zip(model.image_size, size, strict=True)):
        raise InputError(f"the model takes images of {model.image_size} (height, width). Received: --size {size}")
    if recipe.needs_calibration and not images:
        raise InputError(f"recipe {recipe.name} needs --calibration, a folder of images like those it will see")
    if not runtimes:
        fitting = " and ".join(recipe.fitting(tuple(RUNTIMES)))
        raise InputError(f"recipe {recipe.name} is for {fitting}; no such TFLite runtime is installed")
    if recipe.needs_calibration:
        choose_runtime("litert")  # what calibration runs on
    if model.config.num_classes > 255:
        raise InputError(f"a mask holds 255 classes at most. Received: a model of {model.config.num_classes}")
    if unfit := [name for name in runtimes if name not in recipe.runtimes]:
        raise InputError(
            f"recipe {recipe.name} is not for {unfit[0]}: {recipe.refused.get(unfit[0], 'fp16_compute is')}; "
            f"expected --runtime {' '.join(recipe.runtimes)}"
        )
