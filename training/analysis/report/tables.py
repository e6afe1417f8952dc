"""The numbers of a page, as text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from segformer_tf.metrics import per_class_accuracy, per_class_iou
from training.analysis.report.page import ClassScore, Page, Table
from training.analysis.report.scan import Differences, Findings
from training.evaluate import Scores

_MOST = 40  # classes of which a matrix is a table
_CONFUSIONS = 12
_NONE = "-"


def totals(names: Sequence[str], found: Sequence[Findings]) -> Table:
    """Mean IoU and its like of each model."""
    rows = [
        [name, *map(_four, (s.mean_iou, s.mean_accuracy, s.pixel_accuracy)), _four(each.calibration.error)]
        for name, each in zip(names, found, strict=True)
        for s in (each.scores,)
    ]
    return Table(["model", "mean IoU", "mean accuracy", "pixel accuracy", "ECE"], rows)


def class_scores(scores: Sequence[Scores]) -> list[ClassScore]:
    """A row for each class, in the data's order."""
    first, labels = scores[0].matrix, scores[0].labels
    ious, accuracy = [per_class_iou(each.matrix) for each in scores], per_class_accuracy(first)
    shares = first.sum(1) / max(first.sum(), 1)
    return [
        ClassScore(name, color, [_number(iou[i]) for iou in ious], _number(accuracy[i]), float(shares[i]))
        for i, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True))
    ]


def confusion(page: Page, scores: Scores) -> None:
    """The matrix, of many classes as a picture, and the confusions that take the most of a class."""
    matrix, names = scores.matrix, scores.labels.names
    pixels = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, pixels, out=np.full(matrix.shape, np.nan), where=pixels > 0)
    if len(names) <= _MOST:
        page.confusion = [(name, [_number(value) for value in row]) for name, row in zip(names, share, strict=True)]
    else:
        with page.part("Confusion matrix"):
            from training.analysis.report.charts import confusion_picture

            page.confusion_picture = confusion_picture(matrix, names)
    wrong = np.nan_to_num(share)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    places = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j] > 0]
    rows = [[names[i], names[j], f"{100 * share[i, j]:.1f}", f"{matrix[i, j]:,}"] for i, j in places]
    page.confusions = Table(["truth", "taken for", "% of the truth", "pixels"], rows, frozenset({0, 1}))


def calibration(names: Sequence[str], found: Sequence[Findings]) -> Table:
    """Of each model, how sure and how right it is."""
    rows = []
    for name, each in zip(names, found, strict=True):
        own = each.calibration
        pixels = max(int(own.pixels.sum()), 1)
        rows.append([name, _four(own.error), _four(own.confidence.sum() / pixels), _four(own.right.sum() / pixels)])
    return Table(["model", "ECE", "mean confidence", "accuracy"], rows)


def borders(page: Page, found: Sequence[Findings]) -> None:
    """IoU along borders and inside, of the first model per class, of each model in the mean."""
    rows = [
        [name, _mean(own.boundary_iou), _mean(own.interior_iou), _percent(own.near_share), _percent(own.error_share)]
        for name, own in zip(page.models, (each.borders for each in found), strict=True)
    ]
    columns = ["model", "boundary IoU", "interior IoU", "pixels near, %", "errors near, %"]
    page.borders = Table(columns, rows)
    first = found[0].borders
    names = found[0].scores.labels.names
    iou = per_class_iou(found[0].scores.matrix)
    per_class = zip(names, iou, first.boundary_iou, first.interior_iou, strict=True)
    page.border_classes = Table(
        ["class", "IoU", "boundary IoU", "interior IoU"],
        [[name, *(_NONE if np.isnan(value) else f"{value:.3f}" for value in values)] for name, *values in per_class],
    )
    low, high = first.reach or (0, 0)
    page.border_note = f"{low}" if low == high else f"{low} to {high}"


def differences(names: Sequence[str], found: Differences) -> Table:
    """In how many pixels two models differ, and which is right there."""
    total = max(found.pixels, 1)
    neither = found.differ - found.first - found.second
    counts = {
        "the same class": found.pixels - found.differ,
        f"differ, {names[0]} alone is right": found.first,
        f"differ, {names[1]} alone is right": found.second,
        "differ, both wrong": neither,
    }
    rows = [[what, f"{count:,}", f"{100 * count / total:.2f}"] for what, count in counts.items()]
    return Table(["pixels", "number", "%"], rows)


def _number(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _four(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else _NONE


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if isfinite(share) else _NONE


def _mean(values: np.ndarray) -> str:
    return _four(float(np.nanmean(values))) if np.isfinite(values).any() else _NONE
