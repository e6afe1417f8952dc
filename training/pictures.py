"""Curves and panels, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from segformer_tf.edge.image import Pixels
from segformer_tf.files import atomic


def plot_history(rows: Sequence[dict[str, float]], out: Path, *, score: str) -> None:
    """Loss and the metric named `score`, training and validation, over epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", score), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            points = [(row["epoch"] + 1, row[key]) for row in rows if key in row]
            axes.plot(*np.transpose(points or [(np.nan, np.nan)]), marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_title(name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, out)


def plot_panel(rows: Sequence[Sequence[Pixels]], out: Path, *, titles: Sequence[Sequence[str]]) -> None:
    """A grid of RGB pictures, each with its title."""
    columns = len(titles[0])
    figure = Figure(figsize=(4 * columns, 3 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, row, row_titles in zip(grid, rows, titles, strict=True):
        for axes, picture, title in zip(axes_row, row, row_titles, strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
            axes.set_title(title)
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    with atomic(out) as part:
        figure.savefig(part, dpi=90)
