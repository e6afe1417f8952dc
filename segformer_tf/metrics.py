"""Confusion matrix, the scores computed from it, and the relative error of logits, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.labels import IGNORE_ID

Matrix = NDArray[np.int64]


def confusion_matrix(truth: NDArray[np.integer], prediction: NDArray[np.integer], *, num_classes: int) -> Matrix:
    """Count pixels by (truth, prediction), pixels whose truth is `IGNORE_ID` left out.

    Args:
        truth: class ids, any shape.
        prediction: class ids 0..num_classes-1, same shape.
        num_classes: side of the matrix.

    Returns:
        (num_classes, num_classes) int64, rows are truth.

    Raises:
        ValueError: shapes differ, or an id outside the classes.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must have one shape. Received: {truth.shape} and {prediction.shape}")
    valid = truth != IGNORE_ID
    t, p = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, ids in (("truth", t), ("prediction", p)):
        if ids.size and not (ids.min() >= 0 and ids.max() < num_classes):
            raise ValueError(f"{name} holds ids {ids.min()}..{ids.max()}, expected 0..{num_classes - 1} or {IGNORE_ID}")
    return np.bincount(t * num_classes + p, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_iou(matrix: Matrix) -> NDArray[np.float64]:
    """Intersection over union of each class, 0..1; nan for a class in neither truth nor prediction."""
    hit = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return np.divide(hit, union, out=np.full(hit.shape, np.nan), where=union > 0)


def mean_iou(matrix: Matrix) -> float:
    """Mean of `per_class_iou` over classes that occur, 0..1; nan where there is no valid pixel."""
    iou = per_class_iou(matrix)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


def per_class_accuracy(matrix: Matrix) -> NDArray[np.float64]:
    """Share of each class's pixels that are right (its recall), 0..1; nan for a class that the truth never holds."""
    hit, occurs = np.diag(matrix).astype(np.float64), matrix.sum(1)
    return np.divide(hit, occurs, out=np.full(hit.shape, np.nan), where=occurs > 0)


def mean_accuracy(matrix: Matrix) -> float:
    """Mean of `per_class_accuracy` over classes that the truth holds, 0..1; nan where there is no valid pixel."""
    accuracy = per_class_accuracy(matrix)
    return float(np.nanmean(accuracy)) if np.isfinite(accuracy).any() else float("nan")


def pixel_accuracy(matrix: Matrix) -> float:
    """Share of valid pixels that are right, 0..1; nan where there is none."""
    total = matrix.sum()
    return float(np.diag(matrix).sum() / total) if total else float("nan")


def relative_error(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """``|logits - expected| / |expected|``, Euclidean, both (..., C) and centered over classes.

    A shift common to all classes changes no mask. Correct exports are at 1e-6 (fp32) to 0.1 (int8), wrong
    ones at 0.4 and more.
    """
    difference, scale = _centered(logits - expected), _centered(expected)
    return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(scale)), 1e-30)


def _centered(logits: NDArray[Any]) -> NDArray[Any]:
    return logits - logits.mean(-1, keepdims=True) if logits.shape[-1] > 1 else logits
