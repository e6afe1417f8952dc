"""`segformer verify` on two files: a Keras model, a checkpoint or a ``.tflite`` on either side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from convert.compare.steps import Report, compare_logits, compare_with_checkpoint
from convert.exported import logits_of
from convert.graph.segformer import network
from convert.quantize.calibrate import ranges
from convert.quantize.integer import tensors_to_calibrate
from convert.quantize.recipes import RECIPES, worth_int8
from convert.quantize.sensitivity import IMAGES as SENSITIVITY_IMAGES
from convert.quantize.sensitivity import Sensitivity, sensitivities
from convert.sample_images import sample_images
from segformer_tf.checkpoints.importer import Checkpoint, checkpoint_of, read_checkpoint, to_keras
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.metadata import ModelInfo, find_model_info
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, list_images
from segformer_tf.keras_file import is_keras, load_segformer, run_size
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer, check_image_shape

_IMAGES = 4
_UNKNOWN_RECIPE = 0.15  # tolerance of a .tflite that does not say how it was made


def compare_paths(
    model: Path,
    against: Path,
    *,
    images: Path | None,
    size: tuple[int, int] | None,
    runtime: str | None,
    contract: Contract | None = None,
) -> tuple[list[Pixels], Labels, Report]:
    """Compare two files; returns the images both saw, the classes' labels, and the report.

    `contract` is for a ``.tflite`` from elsewhere on either side, but for its size: that is `size`.

    Raises:
        InputError: a file that cannot be read, networks of other sizes, or sizes that do not fit.
    """
    paths = model, against
    files = [path for path in paths if path.suffix == ".tflite"]
    contract = contract or Contract()
    infos = {path: find_model_info(path) for path in files}
    contract.check_use(None in infos.values())
    if not files:
        size = _size(paths, {}, size)
        ours, theirs = _keras(model), _checkpoint(against)
        pixels = _pixels(images, size, _IMAGES, ours.config.image_bits)
        labels = ours.config.labels or Labels.numbered(ours.config.num_classes)
        return pixels, labels, compare_with_checkpoint(ours, theirs, pixels)
    runtime, foreign = choose_runtime(runtime), replace(contract, size=size)
    with ExitStack() as stack:
        opened = {}
        for path, info in infos.items():
            isolated = IsolatedModel(path, runtime=runtime, contract=Contract() if info else foreign)
            opened[path] = stack.enter_context(isolated)
        size = _size(paths, {path: file.size for path, file in opened.items()}, size)
        first = infos[files[0]]
        pixels = _pixels(images, size, _IMAGES, first.bits if first else None)
        logits = [
            logits_of(opened[path], pixels, runtime=runtime) if path in opened else _keras_logits(path, pixels)
            for path in paths
        ]
    report = compare_logits(*logits, size=size, tolerance=max(map(_tolerance, infos.values())))
    return pixels, Labels.numbered(logits[0].shape[-1]), report


def int8_sensitivities(model: Path, *, images: Path | None, size: tuple[int, int] | None) -> list[Sensitivity]:
    """How far int8 in each step of a Keras model moves its logits, the worst first; see `convert.quantize.sensitivity`.

    Raises:
        InputError: a file that cannot be read, or a size that the network cannot take.
    """
    if not is_keras(model):
        raise InputError(f"{model}: expected a .keras file or a run folder, of which a step at a time is made int8")
    loaded = _keras(model)
    size = size or run_size(model) or (512, 512)
    check_image_shape((None, *size, 3), "--size")
    pixels = _pixels(images, size, SENSITIVITY_IMAGES, loaded.config.image_bits)
    graph = network(loaded, size)
    limits = ranges(graph, tensors_to_calibrate(graph, worth_int8), pixels)
    return sensitivities(graph, limits, worth_int8, pixels, progress=lambda steps: track(steps, transient=True))


def _pixels(images: Path | None, size: tuple[int, int], count: int, bits: int | None) -> list[Pixels]:
    return sample_images(list_images([images]) if images else [], size, count=count, synthetic=2, bits=bits)


def _size(
    paths: Sequence[Path], fixed: Mapping[Path, tuple[int, int]], size: tuple[int, int] | None
) -> tuple[int, int]:
    """The size that both see: that of a file if there is one, else the command's, else what a run validated at."""
    if len(set(fixed.values())) > 1 or (size and fixed and size not in fixed.values()):
        raise InputError(f"sizes do not fit: {', '.join(f'{p} {s}' for p, s in fixed.items())}, --size {size}")
    for path in paths:
        size = size or fixed.get(path) or (run_size(path) if path.is_dir() and (path / "weights").is_dir() else None)
    size = size or (512, 512)
    check_image_shape((None, *size, 3), "--size")
    return size


def _tolerance(info: ModelInfo | None) -> float:
    recipe = RECIPES.get(info.recipe) if info else None
    return recipe.tolerance if recipe else _UNKNOWN_RECIPE


def _keras(path: Path) -> SegFormer:
    if not is_keras(path):
        raise InputError(f"{path}: expected a .keras file, a run folder or a .tflite first")
    return load_segformer(path, dtype="float32")  # as it is exported, and what every step is compared in


def _checkpoint(path: Path) -> Checkpoint:
    return checkpoint_of(_keras(path), path) if is_keras(path) else read_checkpoint(path, encoder_only=None)


def _keras_logits(path: Path, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
    model = _keras(path) if is_keras(path) else to_keras(read_checkpoint(path))
    return np.concatenate([model.logits(image[None]) for image in pixels])
