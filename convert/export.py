"""`segformer export`: a trained SegFormer in, a verified ``.tflite`` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import segformer_tf
from convert.exported import Verdict, verify_file
from convert.graph.class_map import with_class_map
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph
from convert.graph.metadata import add_metadata
from convert.graph.segformer import network
from convert.quantize.calibrate import ranges
from convert.quantize.recipes import RECIPES, Recipe, everything
from segformer_tf.config import SegFormerConfig
from segformer_tf.edge.gpu import find_gpu
from segformer_tf.edge.metadata import ModelInfo
from segformer_tf.edge.runtime import GPU, RUNTIMES, choose_runtime
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import Pixels, fit_image, load_image
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer, check_image_shape
from segformer_tf.sampling import evenly_spaced

CALIBRATION_IMAGES = 100
VERIFICATION_IMAGES = 4


@dataclass(frozen=True)
class Exported:
    """What was found when a file was run.

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
        recipe: a key of `RECIPES`.
        size: (height, width) of the input.
        images: files to calibrate on and to compare on; up to `CALIBRATION_IMAGES`, evenly chosen. Without
            them the comparison uses synthetic images, and recipes that calibrate are refused.
        runtimes: target runtimes, of `segformer_tf.edge.runtime.RUNTIMES`.
        class_map: add the class map at the input's size as another output, before the logits.
        try_gpu: run it on the GPU as well, where there is one; what fails there is a warning, kept in the file.

    Raises:
        InputError: options that cannot be used, or a runtime that cannot run the file or gets it wrong.
    """
    if recipe not in RECIPES:
        raise InputError(f"--recipe must be one of {', '.join(RECIPES)}. Received: {recipe}")
    if out.suffix != ".tflite":
        raise InputError(f"--out must end in .tflite. Received: {out}")
    refuse_one_class(model.config)
    check_image_shape((None, *size, 3), "--size")
    if any(n is not None and n != wanted for n, wanted in zip(model.image_size, size, strict=True)):
        raise InputError(f"the model takes images of {model.image_size} (height, width). Received: --size {size}")
    chosen = RECIPES[recipe]
    if chosen.needs_calibration and not images:
        raise InputError(f"recipe {recipe} needs --calibration, a folder of images like those it will see")
    if not runtimes:
        fitting = " and ".join(chosen.fitting(tuple(RUNTIMES)))
        raise InputError(f"recipe {recipe} is for {fitting}; no such TFLite runtime is installed")
    if chosen.needs_calibration:
        choose_runtime("litert")  # what calibration runs on
    if model.config.num_classes > 255:
        raise InputError(f"a mask holds 255 classes at most. Received: a model of {model.config.num_classes}")
    if unfit := [name for name in runtimes if name not in chosen.runtimes]:
        raise InputError(
            f"recipe {recipe} is not for {unfit[0]}: {chosen.refused[unfit[0]]}; "
            f"expected --runtime {' '.join(chosen.runtimes)}"
        )
    model = _in_float32(model)
    few = evenly_spaced(images, CALIBRATION_IMAGES)
    pixels = [fit_image(load_image(path, bits=model.config.image_bits), size) for path in few] or synthetic_images(
        size, VERIFICATION_IMAGES
    )
    graph = quantised(model, chosen, size=size, images=pixels, runtimes=runtimes)
    content = to_tflite(with_class_map(graph, size) if class_map else graph)
    info = ModelInfo(
        labels=model.config.labels or Labels.numbered(model.config.num_classes),
        recipe=recipe,
        created={
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "segformer_tf": segformer_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "calibration_images": len(few) if chosen.needs_calibration else 0,
        },
        license=model.config.license,
        bits=model.config.image_bits,
    )
    with atomic(out) as part:

        def write(**found: Any) -> None:
            told = replace(info, created={**info.created, **found})
            add_metadata(content, told, size=size, class_map=class_map, out=part)

        write()
        pictures = evenly_spaced(pixels, VERIFICATION_IMAGES)
        try:
            verdicts = verify_file(part, model, pictures, recipe=chosen, runtimes=runtimes)
        except InputError as error:
            raise InputError(f"{str(error).replace(str(part), str(out))}; nothing was written") from None
        warning = untried = ""
        if try_gpu and GPU in chosen.fitting([GPU]) and GPU not in runtimes and find_gpu():
            try:
                verdicts += verify_file(part, model, pictures, recipe=chosen, runtimes=[GPU])
            except InputError as error:
                reason = str(error).removeprefix(f"{part}: ")
                fault = f"{GPU} " in reason and any(words in reason for words in (" wrong", "does not take it whole"))
                warning = f"not for {GPU}: {reason}" if fault else ""
                untried = "" if fault else reason
        write(verified=[verdict.runtime for verdict in verdicts], **({"warning": warning} if warning else {}))
    return Exported(verdicts, warning, untried)


def quantised(
    model: SegFormer, recipe: Recipe, *, size: tuple[int, int], images: Sequence[Pixels], runtimes: Sequence[str]
) -> Graph:
    """The graph of `model` in a recipe, with normalisation inside.

    Args:
        model: trained model, computing in float32.
        recipe: how to quantise.
        size: (height, width).
        images: (*size, 3) uint8 RGB, for calibration.
        runtimes: where it is to run; for tflite-runtime alone the graph takes another form.
    """
    # Integer arithmetic has but one form.
    old = set(runtimes) == {"tflite-runtime"} and recipe.integer is not everything
    graph = network(model, size, runtime="tflite-runtime" if old else "litert")
    names = recipe.tensors(graph)
    return recipe.make(graph, ranges(graph, names, images) if names else {}, images)


def _in_float32(model: SegFormer) -> SegFormer:
    """`model`, or its copy where it was trained in mixed precision: TFLite has no float16 arithmetic on CPUs."""
    if model.dtype_policy.compute_dtype == "float32":
        return model
    height, width = model.image_size
    plain = SegFormer(model.config, image_size=(height, width), dtype="float32")
    plain.set_weights(model.get_weights())
    return plain


def refuse_one_class(config: SegFormerConfig) -> None:
    """Raises InputError for a model of one class, whose answer is always that class."""
    if config.num_classes == 1:
        raise InputError(
            "a model of one class gives that class everywhere; train or import it anew with two, background and its own"
        )


def synthetic_images(size: tuple[int, int], count: int) -> list[Pixels]:
    """Smooth colourful noise with detail at several scales, (*size, 3) uint8, for want of real images."""
    rng = np.random.default_rng(0)
    height, width = size

    def one() -> Pixels:
        layers = [fit_image(rng.integers(0, 256, (n, n, 3), np.uint8), (height, width)) for n in (3, 9, 33, 129)]
        return np.mean(layers, axis=0).astype(np.uint8)

    return [one() for _ in range(count)]
