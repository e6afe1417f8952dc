"""`segformer evaluate`: a confusion matrix over a split, by the image contract, at each mask's own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.image import Pixels, fit_image
from segformer_tf.edge.mask import logits_to_mask
from segformer_tf.edge.worker import Worker
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from segformer_tf.metrics import confusion_matrix, mean_iou, per_class_iou, pixel_accuracy
from training.sources import Source


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one split; IoU 0..1, nan for a class that never occurs."""

    labels: Labels
    images: int
    matrix: NDArray[np.int64]

    @property
    def mean_iou(self) -> float:
        return mean_iou(self.matrix)

    @property
    def pixel_accuracy(self) -> float:
        return pixel_accuracy(self.matrix)

    @property
    def per_class(self) -> dict[str, float]:
        return dict(zip(self.labels.names, per_class_iou(self.matrix).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; nan becomes None."""

        def plain(value: float) -> float | None:
            return None if np.isnan(value) else round(value, 6)

        return {
            "images": self.images,
            "mean_iou": plain(self.mean_iou),
            "pixel_accuracy": plain(self.pixel_accuracy),
            "per_class": {name: plain(iou) for name, iou in self.per_class.items()},
        }


Predictor = Callable[[Pixels], NDArray[np.uint8]]  # (H, W, 3) image to (H, W) class ids


@contextmanager
def open_predictor(
    model: Path, *, size: tuple[int, int] | None, runtime: str | None, num_classes: int
) -> Iterator[Predictor]:
    """Image -> mask, by a ``.tflite`` (in a process of its own), a ``.keras`` file or a run folder.

    Args:
        model: path.
        size: (height, width) that Keras models see; None takes what the run validated at, else each image's own.
        runtime: for a ``.tflite``.
        num_classes: what the data has.

    Raises:
        InputError: a model that cannot be read or has another number of classes.
    """
    if model.suffix == ".tflite":
        if size is not None:
            raise InputError(f"--size: {model} has its size inside")
        with Worker(model, runtime=runtime) as worker:
            _check_classes(model, worker.grid[2], num_classes)
            yield lambda image: logits_to_mask(worker.logits(fit_image(image, worker.size)), _size(image))
        return

    from segformer_tf.checkpoint import load_segformer, run_size
    from segformer_tf.model import check_image_shape

    if size is not None:
        check_image_shape((None, *size, 3), "--size")
    loaded = load_segformer(model)
    _check_classes(model, loaded.config.num_classes, num_classes)
    fixed = size or run_size(model)
    yield lambda image: logits_to_mask(loaded.logits(fit_image(image, fixed or _size(image))[None])[0], _size(image))


def evaluate(predict: Predictor, source: Source, *, indices: Iterable[int]) -> Scores:
    """Score `predict` on the samples of `source` named by `indices` (a progress bar may feed them)."""
    count = len(source.labels.names)
    matrix, images = np.zeros((count, count), np.int64), 0
    for i in indices:
        image, truth = source[i]
        matrix += confusion_matrix(truth, predict(image), num_classes=count)
        images += 1
    return Scores(source.labels, images, matrix)


def _size(image: Pixels) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _check_classes(model: Path, has: int, wanted: int) -> None:
    if has != wanted:
        raise InputError(f"{model} has {has} classes, the data {wanted}")
