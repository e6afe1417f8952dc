"""Draws feature maps, and attention over a photo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from segformer_tf.files import atomic
from segformer_tf.image import Pixels
from training.analysis.features.inside import Attention, Components

_COLUMNS = 3  # as many as a phone shows
_WIDTH = 2.6  # of a picture, in inches
_CUT = 1  # percent of a map's values at either end that do not decide on its colors
_DIMMEST = 0.1  # of even attention; less is black


def draw_features(image: Pixels, maps: Mapping[str, Components], out: Path, *, title: str) -> None:
    """Write a PNG: the photo, and a row of principal components for each output, each with its share of the variance.

    Args:
        image: (H, W, 3) uint8.
        maps: by the output's name, each of three components.
        out: to write.
        title: above all.

    Raises:
        InputError: the file cannot be written.
    """
    figure, grid = _grid(image, 1 + len(maps), title)
    grid[0, 1].imshow(image)
    grid[0, 1].set_title("image", fontsize=10)
    for row, (name, components) in zip(grid[1:], maps.items(), strict=True):
        for axes, values, share in zip(row, components.maps, components.shares, strict=True):
            low, high = np.percentile(values, (_CUT, 100 - _CUT))
            picture = axes.imshow(values, cmap="cividis", vmin=low, vmax=high, extent=_extent(image))
            axes.set_title(f"{name}, {share:.0%}", fontsize=10)
    bar = figure.colorbar(picture, ax=grid, location="bottom", shrink=0.8, aspect=40, pad=0.01, ticks=[])
    bar.set_label("low to high, each map by itself; % of the variance of all channels", fontsize=10)
    _save(figure, out)


def draw_attention(
    image: Pixels, pixel: tuple[int, int], attention: Mapping[str, Attention], out: Path, *, title: str
) -> None:
    """Write a PNG: the photo, and the attention of each head of each stage over the gray photo; the pixel is crossed.

    Colors are attention over that of an even spread, on one logarithmic scale.

    Args:
        image: (H, W, 3) uint8.
        pixel: x and y in it.
        attention: by stage.
        out: to write.
        title: above all.

    Raises:
        InputError: the file cannot be written.
    """
    heads = [
        (f"{name}, head {i}", each.key_side, weights * weights.size)
        for name, each in attention.items()
        for i, weights in enumerate(each.weights, 1)
    ]
    figure, grid = _grid(image, -(-(1 + len(heads)) // _COLUMNS), title)
    grid[0, 0].imshow(image)
    grid[0, 0].set_title("image", fontsize=10)
    norm = LogNorm(_DIMMEST, max(2.0, *(weights.max() for *_, weights in heads)))
    height, width = image.shape[:2]
    for axes, (name, side, weights) in zip(grid.ravel()[1:], heads, strict=False):
        axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255)
        rows, columns = weights.shape
        place = (0, columns * side, rows * side, 0)
        shown = np.maximum(weights, _DIMMEST)
        picture = axes.imshow(shown, norm=norm, cmap="viridis", alpha=0.7, extent=place)
        axes.set_title(name, fontsize=10)
    for axes in grid.ravel()[: 1 + len(heads)]:
        axes.plot(pixel[0] + 0.5, pixel[1] + 0.5, "+", color="white", markersize=13, markeredgewidth=4)
        axes.plot(pixel[0] + 0.5, pixel[1] + 0.5, "+", color="#D55E00", markersize=12, markeredgewidth=2)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
    bar = figure.colorbar(picture, ax=grid, location="bottom", shrink=0.8, aspect=40, pad=0.01)
    bar.set_label("attention of the crossed pixel, 1 = even spread", fontsize=10)
    _save(figure, out)


def _grid(image: Pixels, rows: int, title: str) -> tuple[Figure, Any]:
    height, width = image.shape[:2]
    size = (_WIDTH * _COLUMNS, (_WIDTH * height / width + 0.3) * rows + 1)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure, grid


def _extent(image: Pixels) -> tuple[float, float, float, float]:
    return 0, image.shape[1], image.shape[0], 0


def _save(figure: Figure, out: Path) -> None:
    with atomic(out) as part:
        figure.savefig(part, dpi=110)
