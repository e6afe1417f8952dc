"""Curves, panels and confusion matrices, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from segformer_tf.files import atomic
from segformer_tf.image import Pixels

Row = Mapping[str, float]

CLASS_IOU = "val_iou_"  # begins the columns of a history that hold a class's IoU in validation

_NAMED = 40  # with more classes a confusion matrix has no room for numbers
_LONGEST = 18  # letters of a class beside its curve
# Okabe and Ito's, which the color-blind tell apart.
_COLORS = ("#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#F0E442", "#000000")


def plot_history(rows: Sequence[Row], out: Path, *, score: str) -> None:
    """Loss and the metric `score` over epochs, in training and validation, and the IoU of the classes if it is there.

    Args:
        rows: an epoch each, with "epoch" from 0.
        out: the picture.
        score: name of the metric.
    """
    classes = classes_in(rows)
    figure = Figure(figsize=(15 if classes else 10, 4), layout="constrained")
    loss, metric, *rest = figure.subplots(1, 3 if classes else 2)
    draw_curve(loss, rows, "loss")
    draw_curve(metric, rows, score)
    for axes in rest:
        draw_classes(axes, rows, classes)
    _save(figure, out)


def draw_curve(axes: Any, rows: Sequence[Row], name: str) -> None:
    """One metric over epochs, in training and validation."""
    alike = "mask_loss" if name == "loss" and any("mask_loss" in row for row in rows) else name  # with a teacher
    for key, label, color in ((alike, "training", _COLORS[4]), (f"val_{name}", "validation", _COLORS[5])):
        points = [(row["epoch"] + 1, row[key]) for row in rows if key in row]
        axes.plot(*np.transpose(points or [(np.nan, np.nan)]), marker=".", label=label, color=color)
    axes.set_title(name.replace("_", " "))
    axes.legend()
    _over_epochs(axes)


def draw_classes(axes: Any, rows: Sequence[Row], classes: Mapping[str, str]) -> None:
    """The IoU of each class in validation over epochs: the lowest ones named, the others thin and gray."""
    curves = {
        name: [(row["epoch"] + 1, row[key]) for row in rows if np.isfinite(row.get(key, np.nan))]
        for key, name in classes.items()
    }
    lowest = sorted((name for name in curves if curves[name]), key=lambda name: curves[name][-1][1])[: len(_COLORS)]
    for name, points in curves.items():
        if points and name not in lowest:
            axes.plot(*np.transpose(points), color="0.75", linewidth=1)
    for name, color in reversed(list(zip(lowest, _COLORS, strict=False))):
        label = f"{curves[name][-1][1]:.2f} {name if len(name) <= _LONGEST else name[: _LONGEST - 1] + '…'}"
        axes.plot(*np.transpose(curves[name]), marker=".", color=color, label=label)
    axes.set_ylim(0, 1)
    axes.set_title(
        "validation IoU of the classes" + (f", the {len(lowest)} lowest" if len(curves) > len(lowest) else "")
    )
    for text in axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False).get_texts():
        text.set_parse_math(False)
    _over_epochs(axes)


def shortened(name: str, longest: int = 32) -> str:
    """The end of a file's name that is too long for a title: there the numbers are."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def classes_in(rows: Sequence[Row]) -> dict[str, str]:
    """The names of classes whose IoU a history holds, by its columns."""
    return {key: key.removeprefix(CLASS_IOU) for row in rows for key in row if key.startswith(CLASS_IOU)}


def _over_epochs(axes: Any) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of two or more it would make halves
    axes.grid(alpha=0.3)


def plot_panel(
    rows: Sequence[Sequence[Pixels]],
    out: Path,
    *,
    titles: Sequence[Sequence[str]],
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> None:
    """A grid of (H, W, 3) uint8 RGB pictures, each with its title, above a legend of names and colors, 0..255."""
    columns = len(titles[0])
    height = 3 * len(rows) + 0.25 * -(-len(legend) // (2 * columns))
    figure = Figure(figsize=(4 * columns, height), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, row, row_titles in zip(grid, rows, titles, strict=True):
        for axes, picture, title in zip(axes_row, row, row_titles, strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
            axes.set_title(title, parse_math=False)  # a class may be called $x$
    if legend:
        patches = [Patch(facecolor=[value / 255 for value in color], edgecolor="black") for _, color in legend]
        names = [name for name, _ in legend]
        for text in figure.legend(patches, names, loc="outside lower center", ncols=2 * columns).get_texts():
            text.set_parse_math(False)
    _save(figure, out)


def plot_confusion(matrix: NDArray[np.int64], out: Path, *, names: Sequence[str]) -> None:
    """The picture of `confusion_figure`."""
    _save(confusion_figure(matrix, names), out, dpi=90 if len(names) <= _NAMED else 150)


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """The confusion matrix, each row (a true class) in shares of its sum; empty rows stay blank."""
    pixels = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, pixels, out=np.full(matrix.shape, np.nan), where=pixels > 0)
    side = 3 + 0.4 * len(names) if len(names) <= _NAMED else 12
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(share, vmin=0, vmax=1, cmap="Blues"), shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    font = 9 if len(names) <= _NAMED else 4
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=font, parse_math=False)
    if len(names) <= _NAMED:
        for row, column in np.argwhere(share >= 0.005):
            color = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", color=color, fontsize=7)
    return figure


def _save(figure: Figure, out: Path, *, dpi: int = 90) -> None:
    with atomic(out) as part:
        figure.savefig(part, dpi=dpi)
