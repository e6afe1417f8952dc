"""A mask as polygons along the edges of its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID

Ring = NDArray[np.int32]


@dataclass(frozen=True)
class Polygon:
    """One connected region of a class; regions that touch at a corner alone are two.

    Attributes:
        id: of the class.
        exterior: (N, 2) int32 corners (x, y) in pixels, not closed; (0, 0) is the upper left corner of the image, and
            (1, 1) the lower right corner of its first pixel.
        holes: the same, of each hole.
    """

    id: int
    exterior: Ring
    holes: tuple[Ring, ...] = ()

    @property
    def area(self) -> float:
        """In pixels."""
        return abs(signed_area(self.exterior)) - sum(abs(signed_area(hole)) for hole in self.holes)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width and height."""
        low, high = self.exterior.min(0), self.exterior.max(0)
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def mask_to_polygons(mask: NDArray[np.uint8], *, tolerance: float = 0, min_area: float = 0) -> list[Polygon]:
    """Outline every connected region of each class, with its holes.

    Without a tolerance the outlines follow the edges of pixels, and `draw_polygons` gives the mask back. With one, each
    outline is simplified by itself (Douglas-Peucker), so that neighbors may overlap or part by that much, and a thin
    outline may cross itself. An outline that would vanish stays as it is; a hole that would vanish is filled.

    Args:
        mask: (H, W) uint8 class ids; `IGNORE_ID` is no class.
        tolerance: largest distance in pixels from an outline to its simplification.
        min_area: regions of fewer pixels are left out; they leave a hole.

    Returns:
        The polygons, the one with the largest outline first, so that whatever lies in a hole comes after it.
        Exteriors run from x to y (clockwise on the screen), holes the other way.

    Raises:
        InputError: a negative tolerance or area.
        ModuleNotFoundError: rasterio is not installed; for a tolerance, opencv.
    """
    from rasterio.features import shapes

    for name, value in (("tolerance", tolerance), ("min_area", min_area)):
        if not (isfinite(value) and value >= 0):
            raise InputError(f"{name} must be a number of pixels, 0 or more. Received: {value}")
    polygons = []
    for geometry, value in shapes(mask, mask=mask != IGNORE_ID, connectivity=4):
        exterior, *holes = (np.asarray(ring[:-1]).astype(np.int32) for ring in geometry["coordinates"])
        polygon = Polygon(int(value), exterior, tuple(holes))
        if polygon.area >= min_area:
            polygons.append(_simplified(polygon, tolerance))
    return largest_first(polygons)


def largest_first(polygons: Iterable[Polygon]) -> list[Polygon]:
    """Sorted by the area of their exteriors, so that whatever lies in a hole comes after it."""
    return sorted(polygons, key=lambda polygon: -signed_area(polygon.exterior))


def draw_polygons(polygons: Sequence[Polygon], size: tuple[int, int], *, fill_holes: bool = False) -> NDArray[np.uint8]:
    """Draw polygons one over the other: a pixel belongs to a polygon if its center does.

    Args:
        polygons: in order; the last one covers the others.
        size: (height, width).
        fill_holes: as if there were none, as formats without holes are drawn.

    Returns:
        (height, width) uint8 class ids, `IGNORE_ID` where there is no polygon.

    Raises:
        ModuleNotFoundError: rasterio is not installed.
    """
    from rasterio.features import rasterize

    if not polygons:
        return np.full(size, IGNORE_ID, np.uint8)
    shapes = [(_geometry(polygon, fill_holes=fill_holes), polygon.id) for polygon in polygons]
    drawn: NDArray[np.uint8] = rasterize(shapes, out_shape=size, fill=IGNORE_ID, dtype="uint8")
    return drawn


def signed_area(ring: Ring) -> float:
    """Area of a ring in pixels, positive where it runs from x to y."""
    x, y = ring.astype(np.int64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _simplified(polygon: Polygon, tolerance: float) -> Polygon:
    exterior = _simpler(polygon.exterior, tolerance)
    holes = [_simpler(hole, tolerance) for hole in polygon.holes]
    holes = [_turned(hole, -1) for hole in holes if len(hole) > 2]
    return Polygon(polygon.id, _turned(exterior if len(exterior) > 2 else polygon.exterior, 1), tuple(holes))


def _simpler(ring: Ring, tolerance: float) -> Ring:
    """A subset of the ring's corners; none where it would vanish."""
    if not tolerance:
        return ring
    import cv2

    simple = cv2.approxPolyDP(ring[:, None], tolerance, closed=True)[:, 0]
    return simple if len(simple) > 2 and signed_area(simple) else ring[:0]


def _turned(ring: Ring, sign: int) -> Ring:
    return ring if signed_area(ring) * sign > 0 else ring[::-1]


def _geometry(polygon: Polygon, *, fill_holes: bool) -> dict[str, Any]:
    rings = [polygon.exterior] if fill_holes else [polygon.exterior, *polygon.holes]
    return {"type": "Polygon", "coordinates": [closed(ring) for ring in rings]}


def closed(ring: Ring) -> list[list[int]]:
    """Corners of a ring as plain lists, the first again at the end."""
    return np.concatenate([ring, ring[:1]]).tolist()
