"""Scores several models on the same corrupted images, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segformer_tf.edge.runtime import choose_runtime, runtime_version
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from segformer_tf.metrics import confusion_matrix, mean_iou, per_class_iou
from training.analysis.robustness.corruptions import Cell, corrupt
from training.analysis.robustness.record import Record, Score, file_digest, sample_digest
from training.data.open import Source
from training.evaluate import Predictor, open_predictor
from training.protocols import EvalProtocol, Size


@contextmanager
def open_models(
    paths: Sequence[Path], *, labels: Labels, size: Size | None = None, runtime: str | None = None
) -> Iterator[list[Predictor]]:
    """Open models that see images of the same size.

    Args:
        paths: ``.tflite`` files, ``.keras`` files and run folders.
        labels: classes of the data.
        size: (height, width) for the models that take any; None for that of the ``.tflite`` files among them, else
            what a run was validated at, else each image's own.
        runtime: for the ``.tflite`` files.

    Raises:
        InputError: as of `open_predictor`; or ``.tflite`` files of several sizes beside other models and no `size`.
    """
    opened: dict[int, Predictor] = {}
    fixed = [i for i, path in enumerate(paths) if path.suffix == ".tflite"]
    with ExitStack() as stack:
        for i in fixed:  # the size of the others is theirs
            opened[i] = stack.enter_context(open_predictor(paths[i], runtime=runtime, labels=labels))
        sizes = {each.protocol.size for each in opened.values()}
        if len(fixed) < len(paths) and size is None and len(sizes) > 1:
            seen = ", ".join(sorted(f"{s[0]}x{s[1]}" for s in sizes if s))
            raise InputError(f"the .tflite files see {seen} pixels: give the other models' --size HEIGHT WIDTH")
        protocol = EvalProtocol(size=size or next(iter(sizes), None))
        for i, path in enumerate(paths):
            if i not in fixed:
                opened[i] = stack.enter_context(open_predictor(path, runtime=runtime, labels=labels, protocol=protocol))
        yield [opened[i] for i in range(len(paths))]


def setting_of(
    paths: Sequence[Path],
    predictors: Sequence[Predictor],
    source: Source,
    indices: Sequence[int],
    *,
    by: str,
    runtime: str | None = None,
) -> dict[str, Any]:
    """What scores depend on, see `Record`; `by` is the package that corrupts, with its version."""
    files = any(path.suffix == ".tflite" for path in paths)
    own = choose_runtime(runtime) if files else None  # int8 files differ a little from one to the next
    return {
        "models": [file_digest(_file(path)) for path in paths],
        "sizes": [list(each.protocol.size) if each.protocol.size else None for each in predictors],
        "classes": list(source.labels.names),
        "images": list(indices),
        "pixels and masks": sample_digest(source, indices),
        "corrupted by": by,
        "runtime": f"{own} {runtime_version(own)}" if own else None,
    }


def score_missing(
    cells: Sequence[Cell],
    predictors: Sequence[Predictor],
    source: Source,
    indices: Sequence[int],
    record: Record,
    *,
    advance: Callable[[Cell], object] = lambda _: None,
) -> None:
    """Score every cell that `record` has not, and add each as it is finished.

    Args:
        cells: to score.
        predictors: models, each of which gets the very same pixels.
        source: the data.
        indices: of its images.
        record: gets the scores.
        advance: called after each image.

    Raises:
        InputError: an image that cannot be corrupted, or a mask that cannot be scored.
    """
    for cell in cells:
        if cell.name not in record.scores:
            record.add(cell, _score(cell, predictors, source, indices, advance))


def _file(path: Path) -> Path:
    if path.suffix == ".tflite":
        return path
    from segformer_tf.keras_file import keras_file  # with Keras

    return keras_file(path)


def _score(
    cell: Cell,
    predictors: Sequence[Predictor],
    source: Source,
    indices: Sequence[int],
    advance: Callable[[Cell], object],
) -> list[Score]:
    count = len(source.labels.names)
    matrices = np.zeros((len(predictors), count, count), np.int64)
    for i in indices:
        image, truth = source[i]
        try:
            corrupted = corrupt(image, cell, index=i)
            for matrix, predict in zip(matrices, predictors, strict=True):
                matrix += confusion_matrix(truth, predict(corrupted), num_classes=count)
        except (InputError, ValueError) as error:
            raise InputError(f"{source.name}, sample {i}, {cell.name}: {error}") from None
        advance(cell)
    return [Score(mean_iou(matrix), tuple(per_class_iou(matrix).tolist())) for matrix in matrices]
