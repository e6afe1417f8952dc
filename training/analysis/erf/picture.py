"""Draws effective receptive fields side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segformer_tf.files import atomic
from training.analysis.erf.field import Field

SHARES = {0.5: "-", 0.9: "--"}  # of the field, and the line of the square that holds it
_DIMMEST = 0.01  # of an even spread; darker is black
_WIDTH = 2.9  # of a picture, in inches
_ZOOM = 0.25  # of the image's longer side
_FRAMES = ("#D55E00", "#56B4E9")  # Okabe and Ito's, as the paper's red and blue boxes


def draw_fields(
    networks: Mapping[str, Mapping[str, Field]], out: Path, *, zoom: tuple[str, str] | None = None, note: str = ""
) -> None:
    """Write a PNG: a column for each network and a row for each output, in the first network's order.

    Brightness is the density over that of an even spread, on one logarithmic scale, so that pictures compare. A solid
    square holds half of a field, a dashed one 90 %.

    Args:
        networks: fields by output, by the network's name; all have the first one's outputs. Two or more look best.
        out: to write.
        zoom: two outputs of which the last row shows the middle, a quarter of the longer side, of the first network.
        note: small print below.

    Raises:
        InputError: the file cannot be written.
    """
    first = next(iter(networks.values()))
    height, width = next(iter(first.values())).density.shape
    columns, rows = max(len(networks), 2 if zoom else 1), len(first) + bool(zoom)
    figure = Figure(figsize=(_WIDTH * columns, (_WIDTH * height / width + 0.5) * rows + 1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    norm = LogNorm(_DIMMEST, max(_relative(field).max() for fields in networks.values() for field in fields.values()))
    pictures = [
        _draw(axes, fields[name], f"{network}, {name}" if len(networks) > 1 else name, norm)
        for column, (network, fields) in zip(grid.T, networks.items(), strict=False)
        for axes, name in zip(column, first, strict=False)
    ]
    if zoom:
        half = _ZOOM * max(height, width) / 2
        for axes, name, color in zip(grid[-1], zoom, _FRAMES, strict=False):
            row = list(first).index(name)
            _frame(grid[row, 0], first[name], 2 * half, color, "-")
            _draw(axes, first[name], "", norm, marks=False)
            axes.set_xlim(width / 2 - half, width / 2 + half)
            axes.set_ylim(height / 2 + half, height / 2 - half)
            axes.set_title(f"{name}, its middle", fontsize=11)
            for spine in axes.spines.values():
                spine.set(visible=True, color=color, linewidth=3)
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
    bar = figure.colorbar(pictures[0], ax=grid, location="bottom", shrink=0.8, aspect=40, pad=0.01)
    bar.set_label("gradient of a pixel, 1 = even spread", fontsize=11)
    if note:
        figure.supxlabel(note, fontsize=9, parse_math=False)
    with atomic(out) as part:
        figure.savefig(part, dpi=110)


def _relative(field: Field) -> Any:
    return field.density * field.density.size


def _draw(axes: Any, field: Field, title: str, norm: LogNorm, *, marks: bool = True) -> Any:
    height, width = field.density.shape
    shown = np.maximum(_relative(field), _DIMMEST)
    picture = axes.imshow(shown, norm=norm, cmap="viridis", extent=(0, width, height, 0))
    if marks:
        sides = {share: field.side(share) for share in SHARES}
        squares = ", ".join(f"{share:.0%} in {side} px" for share, side in sides.items())
        axes.set_title(f"{title}\n{squares}", fontsize=11, parse_math=False)
        for share, side in sides.items():
            _frame(axes, field, side, "white", SHARES[share])
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
    return picture


def _frame(axes: Any, field: Field, side: float, color: str, line: str) -> None:
    height, width = field.density.shape
    corner = ((width - side) / 2, (height - side) / 2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linestyle=line, linewidth=1.3))
