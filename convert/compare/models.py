"""What `segformer verify` compares: a Keras model, a checkpoint or a ``.tflite`` on either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from convert.checkpoints.importer import Checkpoint, checkpoint_of, read_checkpoint, to_keras
from convert.compare.steps import Report, compare_logits, compare_with_checkpoint
from convert.export import VERIFICATION_IMAGES, synthetic_images
from convert.exported import run_on
from convert.graph.segformer import network
from convert.quantize.calibrate import ranges
from convert.quantize.integer import static_tensors
from convert.quantize.recipes import RECIPES, worth_int8
from convert.quantize.sensitivity import IMAGES as SENSITIVITY_IMAGES
from convert.quantize.sensitivity import Sensitivity, sensitivities
from segformer_tf.checkpoint import load_segformer, run_size
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.metadata import find_model_info
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, fit_image, list_images, load_image
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer, check_image_shape
from segformer_tf.sampling import evenly_spaced

Logits = Callable[[Sequence[Pixels]], NDArray[np.float32]]
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
    """Compare two files; gives the images both saw, the classes' labels, and the report.

    `contract` is for a ``.tflite`` from elsewhere on either side, but for its size: that is `size`.

    Raises:
        InputError: a file that cannot be read, networks of other sizes, or sizes that do not fit.
    """
    files = [path for path in (model, against) if path.suffix == ".tflite"]
    contract = contract or Contract()
    ours = {path: find_model_info(path) is not None for path in files}
    contract.check_use(not all(ours.values()))
    contracts = {path: Contract() if ours[path] else replace(contract, size=size) for path in files}
    size = _size(model, against, contracts, size, runtime)
    if not files:
        ours = _keras(model)
        theirs = _checkpoint(against)
        pixels = _pixels(images, size, VERIFICATION_IMAGES, ours.config.image_bits)
        return (
            pixels,
            ours.config.labels or Labels.numbered(ours.config.num_classes),
            compare_with_checkpoint(ours, theirs, pixels),
        )
    tolerance = max(_tolerance(path) for path in files)
    info = find_model_info(files[0])
    pixels = _pixels(images, size, VERIFICATION_IMAGES, info.bits if info else None)
    logits = [_logits(path, pixels, runtime, contracts.get(path)) for path in (model, against)]
    report = compare_logits(*logits, size=size, tolerance=tolerance)
    return pixels, Labels.numbered(logits[0].shape[-1]), report


def int8_sensitivities(model: Path, *, images: Path | None, size: tuple[int, int] | None) -> list[Sensitivity]:
    """What int8 does to each step of a Keras model, the worst first; see `convert.quantize.sensitivity`.

    Raises:
        InputError: as `compare_paths`.
    """
    loaded = _keras(model)
    size = size or run_size(model) or (512, 512)
    check_image_shape((None, *size, 3), "--size")
    pixels = _pixels(images, size, SENSITIVITY_IMAGES, loaded.config.image_bits)
    graph = network(loaded, size)
    found = ranges(graph, static_tensors(graph, worth_int8), pixels)
    return sensitivities(graph, found, worth_int8, pixels, progress=lambda steps: track(steps, transient=True))


def _pixels(images: Path | None, size: tuple[int, int], count: int, bits: int | None) -> list[Pixels]:
    if not images:
        return synthetic_images(size, 2)
    return [fit_image(load_image(path, bits=bits), size) for path in evenly_spaced(list_images([images]), count)]


def _size(
    model: Path,
    against: Path,
    contracts: Mapping[Path, Contract],
    size: tuple[int, int] | None,
    runtime: str | None,
) -> tuple[int, int]:
    fixed = {}
    for path, contract in contracts.items():
        with IsolatedModel(path, runtime=runtime, contract=contract) as worker:
            fixed[path] = worker.size
    if len(set(fixed.values())) > 1 or (size and fixed and size not in fixed.values()):
        raise InputError(f"sizes do not fit: {', '.join(f'{p} {s}' for p, s in fixed.items())}, --size {size}")
    for path in (model, against):
        size = size or fixed.get(path) or (run_size(path) if path.is_dir() and (path / "weights").is_dir() else None)
    size = size or (512, 512)
    check_image_shape((None, *size, 3), "--size")
    return size


def _tolerance(path: Path) -> float:
    info = find_model_info(path)
    recipe = RECIPES.get(info.recipe) if info else None
    return recipe.tolerance if recipe else _UNKNOWN_RECIPE


def _is_keras(path: Path) -> bool:
    return path.suffix == ".keras" or (path / "weights").is_dir()


def _keras(path: Path) -> SegFormer:
    if not _is_keras(path):
        raise InputError(f"{path}: expected a .keras file, a run folder or a .tflite first")
    return load_segformer(path)


def _checkpoint(path: Path) -> Checkpoint:
    return checkpoint_of(load_segformer(path), path) if _is_keras(path) else read_checkpoint(path)


def _logits(
    path: Path, pixels: Sequence[Pixels], runtime: str | None, contract: Contract | None
) -> NDArray[np.float32]:
    if path.suffix == ".tflite":
        return run_on(path, pixels, runtime=choose_runtime(runtime), contract=contract)
    model = load_segformer(path) if _is_keras(path) else to_keras(read_checkpoint(path))
    return np.concatenate([model.logits(image[None]) for image in pixels])
