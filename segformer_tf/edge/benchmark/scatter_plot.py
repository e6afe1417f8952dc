"""The benchmark's picture, drawn by matplotlib, which only `--picture` needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError
from segformer_tf.files import atomic

_LARGEST = 26  # radius of the largest circle, in points
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7))


@dataclass(frozen=True)
class Point:
    """A circle: its center in data units, its area (any unit, positive), its label, and the group that colors it."""

    x: float
    y: float
    area: float
    label: str
    group: str


def check_matplotlib() -> None:
    """Raises InputError if matplotlib is not installed."""
    if not find_spec("matplotlib"):
        raise InputError("--picture needs matplotlib: pip install matplotlib")


def plot_points(path: Path, points: Sequence[Point], *, x_title: str, y_title: str, note: str) -> None:
    """Write a PNG of 900x600: circles, a label beside each, the groups in a legend above, a note below.

    Args:
        path: to write.
        points: at least one.
        x_title, y_title: of the axes.
        note: small print.

    Raises:
        InputError: the file cannot be written.
    """
    figure, axes = draw_points(points)
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    figure.text(0.1, 0.02, note, fontsize=9, parse_math=False)
    with atomic(path) as part:
        figure.savefig(part, format="png")


def draw_points(points: Sequence[Point]) -> tuple[Any, Any]:
    """The matplotlib figure and its axes, with the labels as `axes.texts`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=100)
    axes = figure.add_axes((0.1, 0.17, 0.86, 0.72))
    largest = max(point.area for point in points)
    radii = [max(3.0, _LARGEST * sqrt(point.area / largest)) for point in points]
    colors = {group: f"C{i}" for i, group in enumerate(dict.fromkeys(point.group for point in points))}
    for group, color in colors.items():
        axes.scatter([], [], s=80, alpha=0.7, color=color, label=group)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    for radius, point in sorted(zip(radii, points, strict=True), key=lambda pair: -pair[0]):  # small ones on top
        axes.scatter(point.x, point.y, s=(2 * radius) ** 2, alpha=0.7, color=colors[point.group])
    axes.scatter([p.x for p in points], [p.y for p in points], s=6, color="black")  # centers
    axes.margins(0.15)
    axes.set_xlim(left=max(0, axes.get_xlim()[0]))
    axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))
    axes.grid(alpha=0.4)
    axes.set_axisbelow(True)
    _label(axes, points, radii)
    return figure, axes


def _label(axes: Any, points: Sequence[Point], radii: Sequence[float]) -> None:
    """Write each label at the nearest place inside the axes that is clear of circles and of other labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    pixels = axes.figure.dpi / 72  # per point
    centers = axes.transData.transform([(point.x, point.y) for point in points])
    occupied = [Bbox([center - pixels * r, center + pixels * r]) for center, r in zip(centers, radii, strict=True)]
    for point, radius in zip(points, radii, strict=True):
        for away, (right, up) in product(range(3, 200, 6), _DIRECTIONS):
            near_end = ((right < 0) + (right <= 0)) / 2, ((up < 0) + (up <= 0)) / 2
            text = axes.annotate(
                point.label,
                (point.x, point.y),
                ((radius + away) * right, (radius + away) * up),
                textcoords="offset points",
                ha={0.0: "left", 1.0: "right"}.get(near_end[0], "center"),
                va={0.0: "bottom", 1.0: "top"}.get(near_end[1], "center"),
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": near_end},
                parse_math=False,
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the line
            if not box.count_overlaps(occupied) and axes.bbox.count_contains(box.corners()) == 4:
                break
            text.remove()
        occupied.append(box)
