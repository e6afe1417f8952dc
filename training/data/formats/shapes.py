"""Shapes to masks: a pixel belongs to a shape if its center lies inside.

Pillow cuts a polygon's corners to whole pixels and draws its border too: a rectangle of 4 x 3 pixels gets 5 x 4. The
rule here is exact, and two polygons that share an edge neither overlap nor leave a gap: a center on a left or upper
edge is inside, one on a right or lower edge outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError
from training.data.formats.fields import Points
from training.data.masks import Mask

_CROSSINGS = 1 << 20  # of edges with rows, at a time
_BLOCK = 1 << 21  # pixels of an ellipse, at a time


class Region(NamedTuple):
    """A part of a picture: (h, w) bool whose first pixel lies at row `top`, column `left`."""

    top: int
    left: int
    inside: NDArray[np.bool_]


class Geometry(Protocol):
    """What a shape covers."""

    def region(self, size: tuple[int, int]) -> Region:
        """The part of a picture of `size` (height, width); raises InputError where it does not fit."""
        ...


@dataclass(frozen=True)
class Shape:
    """A geometry of one class.

    Attributes:
        label: index of its class in `Export.names`, or `IGNORE_ID`.
    """

    label: int
    geometry: Geometry


def draw(size: tuple[int, int], shapes: Iterable[Shape], background: int) -> Mask:
    """(H, W) uint8 labels: `shapes` in their order, later ones over earlier ones, on `background`."""
    mask = np.full(size, background, np.uint8)
    for shape in shapes:
        top, left, inside = shape.geometry.region(size)
        mask[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = shape.label
    return mask


@dataclass(frozen=True, eq=False)
class Polygon:
    """What an odd number of outlines encloses: an outline within another is a hole.

    Attributes:
        rings: (N, 2) float64 each, closed.
    """

    rings: tuple[Points, ...]

    def region(self, size: tuple[int, int]) -> Region:
        """See `Geometry`."""
        starts = np.concatenate(self.rings)
        ends = np.concatenate([np.roll(ring, -1, 0) for ring in self.rings])
        (left, top), (right, bottom) = starts.min(0), starts.max(0)
        top, bottom = _pixels(top, bottom, size[0])
        left, right = _pixels(left, right, size[1])
        inside = np.zeros((bottom - top, right - left), np.bool_)
        down = starts[:, 1, None] <= ends[:, 1, None]  # both neighbors of an edge compute with the same ends
        edges = np.hstack([np.where(down, starts, ends), np.where(down, ends, starts)])
        _fill(inside, edges, top, left)
        return Region(top, left, inside)


def _fill(inside: NDArray[np.bool_], edges: NDArray[np.float64], top: int, left: int) -> None:
    """Set the pixels with an odd number of edges to their left.

    Args:
        inside: (h, w) a part of the picture, all False, whole rows of one array.
        edges: (N, 4) x0, y0, x1, y1 with y0 <= y1, in the picture.
        top, left: where the part lies.
    """
    height, width = inside.shape
    rows = np.clip(np.ceil(edges[:, 1::2] - 0.5) - top, 0, height)  # whose centers they cross
    first, last = rows.astype(np.int64).T
    crosses = last > first
    edges, first, count = edges[crosses], first[crosses], (last - first)[crosses]
    if height > 1 and count.sum() > _CROSSINGS:
        half = height // 2
        _fill(inside[:half], edges, top, left)
        _fill(inside[half:], edges, top + half, left)
        return
    (x0, y0, x1, y1), edge = edges.T, np.repeat(np.arange(len(count)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    x = x0[edge] + (top + row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    column = np.clip(np.ceil(x - 0.5) - left, 0, width).astype(np.int64)  # the first center that is not left of it
    ends = np.sort(row * width + column)  # an even number in each row, as outlines are closed
    runs, flat = ends.reshape(-1, 2), inside.reshape(-1)
    for start, stop in runs[runs[:, 0] < runs[:, 1]].tolist():
        flat[start:stop] = True


@dataclass(frozen=True)
class Ellipse:
    """An ellipse.

    Attributes:
        center: x, y.
        radii: before it is turned, in x and in y.
        degrees: clockwise, as one sees the picture.
    """

    center: tuple[float, float]
    radii: tuple[float, float]
    degrees: float = 0

    def region(self, size: tuple[int, int]) -> Region:
        """See `Geometry`."""
        (x, y), reach = self.center, max(self.radii)
        if not min(self.radii) > 0:
            return Region(0, 0, np.zeros((0, 0), np.bool_))
        top, bottom = _pixels(y - reach, y + reach, size[0])
        left, right = _pixels(x - reach, x + reach, size[1])
        inside, angle = np.zeros((bottom - top, right - left), np.bool_), np.deg2rad(self.degrees)
        rows = max(1, _BLOCK // (right - left + 1))
        for start in range(top, bottom, rows):
            down, across = np.ogrid[start : min(start + rows, bottom), left:right]
            dx, dy = across + 0.5 - x, down + 0.5 - y
            along, beside = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
            part = inside[start - top : start - top + rows]
            part[:] = (along / self.radii[0]) ** 2 + (beside / self.radii[1]) ** 2 <= 1
        return Region(top, left, inside)


@dataclass(frozen=True, eq=False)
class Runs:
    """A run-length encoded rectangle.

    Attributes:
        top, left, height, width: of the rectangle.
        counts: lengths of runs, in turn outside and inside; the first may be 0.
        by_column: whether runs go down the columns, as in COCO, and not along the rows.
    """

    top: int
    left: int
    height: int
    width: int
    counts: NDArray[np.int64]
    by_column: bool

    def region(self, size: tuple[int, int]) -> Region:
        """See `Geometry`."""
        inside = self.top >= 0 <= self.left and self.top + self.height <= size[0] and self.left + self.width <= size[1]
        if not inside or self.height < 1 or self.width < 1:
            raise InputError(
                f"a run-length encoded mask of {self.height}x{self.width} at row {self.top}, column {self.left} is "
                f"outside its picture of {size[0]}x{size[1]} (height x width)"
            )
        pixels = self.height * self.width
        if (self.counts < 0).any() or (self.counts > pixels).any() or int(self.counts.sum()) != pixels:
            total = int(self.counts.clip(0, pixels).sum())
            raise InputError(
                f"run lengths must add up to {self.height}x{self.width} = {pixels} pixels. Received: {total}"
            )
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        if self.by_column:
            return Region(self.top, self.left, flat.reshape(self.width, self.height).T)
        return Region(self.top, self.left, flat.reshape(self.height, self.width))


def rectangle(left: float, top: float, right: float, bottom: float, degrees: float = 0) -> Polygon:
    """A rectangle, turned clockwise around its center."""
    center = np.array([left + right, top + bottom]) / 2
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    if degrees:
        angle = np.deg2rad(degrees)
        turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
        corners = (corners - center) @ turn + center
    return Polygon((corners,))


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """The first pixel, and the one behind the last, whose centers may lie in low..high."""
    start, stop = np.clip((np.floor(low), np.ceil(high)), 0, size)
    return int(start), int(stop)
