"""`segformer export`: a trained SegFormer in, a verified ``.tflite`` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import segformer_tf
from convert.exported import Verdict, WrongClassMap, verify_file
from convert.graph.class_map import cheap_form_fits, with_class_map
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph
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
from segformer_tf.image import Pixels
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer, check_image_shape
from segformer_tf.sampling import evenly_spaced

CALIBRATION_IMAGES = 100
VERIFICATION_IMAGES = 4
# Of the form for tflite-runtime, whose GELU is within 8.1e-5: b0 is off by 2e-4 on noise.
APPROXIMATE_TOLERANCE = 1e-3


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
        class_map: add the class map at the input's size as another output, before the logits; in the cheap form if
            the images say that it is right.
        try_gpu: run it on the GPU as well, where there is one; a failure there is a warning, kept in the file.

    Raises:
        InputError: options that cannot be used, or a runtime that cannot run the file or gets it wrong.
    """
    if recipe not in RECIPES:
        raise InputError(f"--recipe must be one of {', '.join(RECIPES)}. Received: {recipe}")
    chosen = RECIPES[recipe]
    if chosen.form(runtimes) == "tflite-runtime":  # its GELU is an approximation
        chosen = replace(chosen, tolerance=max(chosen.tolerance, APPROXIMATE_TOLERANCE))
    _check(out, chosen, runtimes=runtimes)
    source = prepare(model, chosen, size=size, images=images)
    graph = source.graph(form=chosen.form(runtimes))
    forms = [("", graph)]  # the first that is right
    if class_map:
        cheap = GPU not in runtimes and cheap_form_fits(graph, size)
        names = ["cheap", "exact"] if cheap else ["exact"]
        forms = [(name, with_class_map(graph, size, cheap=name == "cheap")) for name in names]
    info = source.info()
    entries = {STANDARD_ENTRY: model_metadata(info, size, class_map=class_map), **chosen.entries}
    verify = partial(verify_file, model=source.model, images=source.few_pixels, recipe=chosen)
    with atomic(out) as part:
        while True:
            form, graph = forms.pop(0)
            flatbuffer = to_tflite(graph, metadata=entries)
            write_with_files(flatbuffer, info, part)
            try:
                verdicts = verify(part, runtimes=list(dict.fromkeys((*runtimes, *chosen.also))))
                break
            except InputError as error:
                if not (forms and isinstance(error, WrongClassMap)):
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
        results = {
            "verified": [verdict.runtime for verdict in verdicts],
            **({"class_map": form} if form else {}),
            **({"warning": warning} if warning else {}),
        }
        write_with_files(flatbuffer, replace(info, created={**info.created, **results}), part)
    return Exported(verdicts, warning, untried)


@dataclass(frozen=True)
class Source:
    """What an export starts from.

    Attributes:
        model: computing in float32.
        recipe: of `RECIPES`.
        size: (height, width) of the input.
        pixels: to calibrate on, (*size, 3) uint8 each.
    """

    model: SegFormer
    recipe: Recipe
    size: tuple[int, int]
    pixels: list[Pixels]

    @property
    def few_pixels(self) -> list[Pixels]:
        """Those to compare on."""
        return evenly_spaced(self.pixels, VERIFICATION_IMAGES)

    def graph(self, *, form: str = "litert") -> Graph:
        """The network by the recipe, in the form for a runtime."""
        graph = network(self.model, self.size, runtime=form)
        names = self.recipe.tensors(graph)
        return self.recipe.rewrite(graph, ranges(graph, names, self.pixels) if names else {}, self.pixels)

    def info(self) -> ModelInfo:
        """What the file says about itself."""
        config = self.model.config
        return ModelInfo(
            labels=config.labels or Labels.numbered(config.num_classes),
            recipe=self.recipe.name,
            created={
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "segformer_tf": segformer_tf.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "calibration_images": len(self.pixels) if self.recipe.needs_calibration else 0,
            },
            license=config.license,
            bits=config.image_bits,
        )


def prepare(model: SegFormer, recipe: Recipe, *, size: tuple[int, int], images: Sequence[Path]) -> Source:
    """Check the options that every format has, and read the images; raises InputError."""
    refuse_one_class(model.config)
    check_image_shape((None, *size, 3), "--size")
    if any(fixed not in (None, n) for fixed, n in zip(model.image_size, size, strict=True)):
        raise InputError(f"the model takes images of {model.image_size} (height, width). Received: --size {size}")
    if recipe.needs_calibration and not images:
        raise InputError(f"recipe {recipe.name} needs --calibration, a folder of images like those it will see")
    if recipe.needs_calibration:
        choose_runtime("litert")  # what calibration runs on
    if broken := [variable.path for variable in model.weights if not np.isfinite(variable.numpy()).all()]:
        raise InputError(f"the model has weights that are infinite or no numbers, in {broken[0]}; its training failed")
    if model.config.num_classes > 255:
        raise InputError(f"a mask holds 255 classes at most. Received: a model of {model.config.num_classes}")
    if model.dtype_policy.compute_dtype != "float32":  # no runtime has float16 arithmetic on CPUs
        model = float32_copy(model)
    pixels = sample_images(
        images, size, count=CALIBRATION_IMAGES, synthetic=VERIFICATION_IMAGES, bits=model.config.image_bits
    )
    return Source(model, recipe, size, pixels)


def _check(out: Path, recipe: Recipe, *, runtimes: Sequence[str]) -> None:
    """Raises InputError for options that cannot be used together."""
    if out.suffix != ".tflite":
        raise InputError(f"--out must end in .tflite. Received: {out}")
    if not runtimes:
        fitting = " and ".join(recipe.fitting(tuple(RUNTIMES)))
        raise InputError(f"recipe {recipe.name} is for {fitting}; no such TFLite runtime is installed")
    if unfit := [name for name in runtimes if name not in recipe.runtimes]:
        why = f": {recipe.refused[unfit[0]]}" if unfit[0] in recipe.refused else ""
        raise InputError(
            f"recipe {recipe.name} is not for {unfit[0]}{why}; expected --runtime {' '.join(recipe.runtimes)}"
        )
