from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from segformer_tf.errors import InputError
from segformer_tf.polygons import Polygon, draw_polygons, mask_to_polygons, signed_area


def inside(polygon: Polygon, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centers an odd number of edges lie to the right of: the definition, written out."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    odd = np.zeros(size, bool)
    for ring in (polygon.exterior, *polygon.holes):
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
            if y0 != y1:
                odd ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def blobs(seed: int, size: tuple[int, int], classes: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (size[0] // 3 + 1, size[1] // 2 + 1)).astype(np.uint8)
    mask = np.kron(coarse, np.ones((3, 2), np.uint8))[: size[0], : size[1]].copy()
    mask[rng.random(size) < 0.1] = 255
    return mask


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 1 << 30))
def test_outlines_give_the_mask_back(height: int, width: int, seed: int) -> None:
    mask = blobs(seed, (height, width))
    polygons = mask_to_polygons(mask)
    np.testing.assert_array_equal(draw_polygons(polygons, mask.shape), mask)
    drawn = np.full(mask.shape, 255)
    for polygon in polygons:
        drawn[inside(polygon, mask.shape)] = polygon.id
        assert polygon.area == inside(polygon, mask.shape).sum()
        assert signed_area(polygon.exterior) > 0 > max([-1, *map(signed_area, polygon.holes)])
        for ring in (polygon.exterior, *polygon.holes):
            assert len(np.unique(ring, axis=0)) == len(ring)  # it never touches itself
    np.testing.assert_array_equal(drawn, mask)
    areas = [signed_area(polygon.exterior) for polygon in polygons]
    assert areas == sorted(areas, reverse=True)


def test_regions_are_those_that_share_an_edge() -> None:
    mask = blobs(0, (47, 31))
    count = sum(cv2.connectedComponents((mask == i).astype(np.uint8), connectivity=4)[0] - 1 for i in range(4))
    assert len(mask_to_polygons(mask)) == count


def test_a_ring_has_a_hole_with_what_is_in_it() -> None:
    mask = np.zeros((9, 12), np.uint8)
    mask[2:7, 3:9] = 255
    mask[4, 5] = 2
    large, small = mask_to_polygons(mask)
    assert (large.id, small.id, small.area, small.box) == (0, 2, 1, (5, 4, 1, 1))
    assert large.box == (0, 0, 12, 9)
    assert sorted(map(tuple, large.holes[0].tolist())) == [(3, 2), (3, 7), (9, 2), (9, 7)]
    assert large.area == 12 * 9 - 5 * 6
    assert draw_polygons([large, small], (9, 12), fill_holes=True)[3, 4] == 0
    assert [p.id for p in mask_to_polygons(mask, min_area=2)] == [0]
    assert mask_to_polygons(np.full((3, 3), 255, np.uint8)) == []
    np.testing.assert_array_equal(draw_polygons([], (2, 3)), 255)


@pytest.mark.parametrize("tolerance", [0.5, 1.5, 4.0])
def test_a_simpler_outline_stays_within_the_tolerance(tolerance: float) -> None:
    picture = Image.new("L", (90, 61), 255)
    ImageDraw.Draw(picture).ellipse((5, 5, 80, 55), fill=1)
    ImageDraw.Draw(picture).ellipse((30, 20, 60, 40), fill=255)
    ImageDraw.Draw(picture).line((0, 60, 89, 0), fill=2)  # one pixel thin: it would vanish
    mask = np.asarray(picture)
    plain, simple = mask_to_polygons(mask), mask_to_polygons(mask, tolerance=tolerance)
    assert sum(len(p.exterior) for p in simple) < sum(len(p.exterior) for p in plain)
    assert len(simple) == len(plain)
    distance = cv2.distanceTransform((draw_polygons(simple, mask.shape) == mask).astype(np.uint8), cv2.DIST_L2, 5)
    edges = np.zeros(mask.shape, bool)
    edges[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edges[1:] |= mask[1:] != mask[:-1]
    far = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, 5)
    assert far[distance == 0].max(initial=0) <= tolerance + 1.5  # what differs lies along the old edges
    assert all(signed_area(p.exterior) > 0 > max([-1, *map(signed_area, p.holes)]) for p in simple)


@pytest.mark.parametrize("options", [{"tolerance": -1}, {"tolerance": float("nan")}, {"min_area": -2}])
def test_numbers_that_are_no_pixels_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match=r"must be a number of pixels, 0 or more. Received: "):
        mask_to_polygons(np.zeros((2, 2), np.uint8), **options)
