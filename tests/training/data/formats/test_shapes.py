"""Shapes against matplotlib's, pycocotools' and a plain count: borders, holes, order, shared edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from segformer_tf.errors import InputError
from tests.training.data.formats.exports import DOOR, ROOF, SIZE, WALL, covered
from training.data.formats import shapes as shapes_module
from training.data.formats.coco import decode_counts
from training.data.formats.shapes import Ellipse, Geometry, Polygon, Runs, Shape, draw, rectangle


def pixels(geometry: Geometry, size: tuple[int, int] = SIZE) -> np.ndarray:
    return draw(size, [Shape(1, geometry)], 0) == 1


def outline(points: object) -> Polygon:
    return Polygon((np.array(points, np.float64),))


@given(
    points=st.lists(st.tuples(st.integers(-9, 40), st.integers(-9, 30)), min_size=3, max_size=9),
    size=st.tuples(st.integers(1, 25), st.integers(1, 33)),
)
def test_polygons_are_matplotlibs_where_one_winding_counts(
    points: list[tuple[int, int]], size: tuple[int, int]
) -> None:
    """Crossing outlines, too: corners are shifted off the centers, and odd windings are compared."""
    corners = np.array(points) + 0.237 + np.arange(2 * len(points)).reshape(-1, 2) * 1e-4
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = columns + 0.5, rows + 0.5
    odd = np.zeros(size, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):  # a ray to the right, per pixel
        crosses = (y0 > y) != (y1 > y)
        odd ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0 if y1 != y0 else 1))
    np.testing.assert_array_equal(pixels(outline(corners), size), odd)


@pytest.mark.parametrize("points", [ROOF, WALL, DOOR, [[-5, -4.3], [40.2, 3.1], [9.3, 50.7]]])
def test_polygons_are_matplotlibs(points: list) -> None:
    np.testing.assert_array_equal(pixels(outline(points)), covered(points))
    np.testing.assert_array_equal(pixels(outline(points[::-1])), covered(points))


def test_a_rectangle_has_the_pixels_it_covers() -> None:
    """Pillow would give 5 x 4 for 4 x 3, pycocotools gives the same as here."""
    inside = pixels(rectangle(2, 3, 6, 6))
    expected = np.zeros(SIZE, bool)
    expected[3:6, 2:6] = True
    np.testing.assert_array_equal(inside, expected)
    flat = [2, 3, 6, 3, 6, 6, 2, 6]
    np.testing.assert_array_equal(coco_masks.decode(coco_masks.frPyObjects([flat], *SIZE))[..., 0], expected)
    np.testing.assert_array_equal(pixels(rectangle(1.6, 2.6, 6.4, 6.4)), expected)  # to the nearest centers


def test_edges_that_are_shared_neither_overlap_nor_leave_a_gap() -> None:
    center, ring = [16, 12], [[0, 0], [32, 0], [32, 24], [0, 24], [0, 7]]  # edges through centers of pixels
    parts = [pixels(outline([center, a, b])) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), 1)


@given(st.integers(0, 10**6))
def test_shared_edges_of_any_slope(seed: int) -> None:
    """Corners in thirds: many edges pass through a center but for the rounding."""
    rng = np.random.default_rng(seed)
    center = rng.integers(20, 60, 2) / 3
    angles = np.sort(rng.random(7)) * 2 * np.pi
    ring = np.round((center + 60 * np.stack([np.cos(angles), np.sin(angles)], -1)) * 3) / 3
    parts = [pixels(outline([center, a, b])) for a, b in zip(ring, np.roll(ring, -1, 0), strict=True)]
    union = pixels(Polygon((ring,)))
    np.testing.assert_array_equal(np.logical_xor.reduce(parts), union)


def test_holes_and_order() -> None:
    hole = Polygon((np.array(ROOF), np.array(DOOR)))
    np.testing.assert_array_equal(pixels(hole), covered(ROOF) ^ covered(DOOR))
    mask = draw(SIZE, [Shape(1, outline(ROOF)), Shape(2, outline(WALL)), Shape(3, outline(DOOR))], 9)
    expected = np.full(SIZE, 9)
    for label, points in enumerate((ROOF, WALL, DOOR), 1):
        expected[covered(points)] = label
    np.testing.assert_array_equal(mask, expected)
    assert not (draw(SIZE, [Shape(3, outline(DOOR)), Shape(2, outline(WALL))], 9) == 3)[covered(WALL)].any()


def test_many_edges_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    angle = np.linspace(0, 2 * np.pi, 500, endpoint=False) + 0.001
    star = np.stack([16 + 15 * np.cos(angle) * (1 + np.sin(9 * angle)) / 2, 12 + 11 * np.sin(angle)], -1)
    whole = pixels(Polygon((star,)))
    monkeypatch.setattr(shapes_module, "_CROSSINGS", 7)
    np.testing.assert_array_equal(pixels(Polygon((star,))), whole)
    np.testing.assert_array_equal(whole, covered(star.tolist()))


def test_ellipses_and_turned_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    circle = (columns + 0.5 - 14.2) ** 2 + (rows + 0.5 - 9.9) ** 2 <= 6.3**2
    np.testing.assert_array_equal(pixels(Ellipse((14.2, 9.9), (6.3, 6.3))), circle)
    upright = pixels(Ellipse((14, 12), (9.2, 3.3)))
    np.testing.assert_array_equal(pixels(Ellipse((14, 12), (3.3, 9.2), 90)), upright)
    down = pixels(Ellipse((14, 12), (9.2, 1.3), 30))  # clockwise: the right end is lower
    assert down[15:18, 18:22].any()
    assert not down[6:9, 18:22].any()
    turned = pixels(rectangle(6, 11, 26, 13, 30))
    np.testing.assert_array_equal(turned, covered(rectangle(6, 11, 26, 13, 30).rings[0].tolist()))
    assert turned[15:18, 20:23].any()
    assert not turned[6:9, 20:23].any()
    assert not pixels(Ellipse((4, 4), (0, 3))).any()
    monkeypatch.setattr(shapes_module, "_BLOCK", 100)
    np.testing.assert_array_equal(pixels(Ellipse((14.2, 9.9), (6.3, 6.3))), circle)


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_compressed_runs_are_pycocotools(bits: list[bool]) -> None:
    mask = np.kron(np.array(bits).reshape(3, 4), np.ones((37, 5))).astype(np.uint8)
    encoded = coco_masks.encode(np.asfortranarray(mask))
    counts = decode_counts(encoded["counts"].decode(), "x")
    runs = Runs(0, 0, *mask.shape, counts, by_column=True)
    np.testing.assert_array_equal(pixels(runs, mask.shape), mask == 1)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (Runs(0, 0, 4, 5, np.array([3, 4]), True), r"add up to 4x5 = 20 pixels\. Received: 7"),
        (Runs(0, 0, 4, 5, np.array([3, -3, 20]), True), "add up to"),
        (Runs(0, 0, 4, 5, np.array([], np.int64), True), "Received: 0"),
        (Runs(0, 0, 4, 5, np.array([1 << 40, 1 << 40]), True), "add up to"),
        (Runs(22, 0, 4, 5, np.array([20]), True), "outside its picture of 24x32"),
        (Runs(0, -1, 4, 5, np.array([20]), True), "outside its picture"),
        (Runs(0, 0, 1 << 30, 1 << 30, np.array([1 << 60]), True), "outside its picture"),
        (Runs(0, 0, 0, 0, np.array([], np.int64), True), "outside its picture"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs: Runs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pixels(runs)


@pytest.mark.parametrize("text", ["z\x7f", "é", "PPPPPPPPPPPPPP", "P", "0" * 3 + "o"])
def test_broken_compressed_runs_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="'counts'"):
        decode_counts(text, "x")
