"""Curves, panels and confusion matrices, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from segformer_tf.files import atomic
from segformer_tf.image import Pixels

_NAMED = 40  # with more classes a confusion matrix has no room for numbers


def plot_history(rows: Sequence[dict[str, float]], out: Path, *, score: str) -> None:
    """Loss and the metric `score` over epochs, in training and validation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", score), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            points = [(row["epoch"] + 1, row[key]) for row in rows if key in row]
            axes.plot(*np.transpose(points or [(np.nan, np.nan)]), marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, out)


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
    _save(figure, out, dpi=90 if len(names) <= _NAMED else 150)


def _save(figure: Figure, out: Path, *, dpi: int = 90) -> None:
    with atomic(out) as part:
        figure.savefig(part, dpi=dpi)
