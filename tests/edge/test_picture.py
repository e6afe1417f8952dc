from __future__ import annotations

from itertools import combinations
from math import hypot

import numpy as np
import pytest
from PIL import ImageColor

from segformer_tf.edge.benchmark.picture import _COLORS, Axis, Point, draw_points, place_label

# CamVid's files on two runtimes, crowded at the left.
POINTS = [
    Point(76, 0.5890, 13.95, "camvid_b0_fp32", "litert"),
    Point(71, 0.5891, 7.0, "camvid_b0_fp16", "litert"),
    Point(126, 0.5885, 3.73, "camvid_b0_dynamic_int8", "litert"),
    Point(683, 0.5739, 4.04, "camvid_b0_int8", "litert"),
    Point(150, 0.5890, 13.95, "camvid_b0_fp32", "tflite-runtime"),
    Point(1810, 0.5739, 4.04, "camvid_b0_int8", "tflite-runtime"),
]


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [71, 1810], [0.5739, 0.5891], [3.7, 13.9], [1e-4, 3e-4]])
def test_axes_cover_the_values_with_a_few_ticks(values: list[float]) -> None:
    axis = Axis.over(values, 100, 900)
    ticks = axis.ticks()
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert axis.low >= 0
    assert 3 <= len(ticks) <= 10
    assert len({text for _, text in ticks}) == len(ticks)
    for value, text in ticks:
        assert float(text) == pytest.approx(value)
    assert (axis.pixel(axis.low), axis.pixel(axis.high)) == (100, 900)


def test_labels_overlap_neither_labels_nor_circles() -> None:
    circles = [(140.0, 172.0, 26.0), (136.0, 170.0, 18.0), (155.0, 181.0, 13.0), (162.0, 172.0, 26.0), (860.0, 400, 20)]
    boxes: list[tuple[float, float, float, float]] = []
    for circle in circles:
        boxes.append(place_label((150, 20), circle, circles, boxes))
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for left, top, right, bottom in boxes:
        assert left > 0
        assert right <= 900
        for x, y, radius in circles:
            assert hypot(max(left - x, 0, x - right), max(top - y, 0, y - bottom)) >= radius


def test_circles_stand_where_their_numbers_say_and_areas_are_sizes() -> None:
    pixels = np.asarray(
        draw_points([Point(20, 0.2, 4.0, "", "a"), Point(80, 0.8, 1.0, "", "b")], x_title="ms", y_title="mIoU", note="")
    ).astype(int)
    plot = pixels[60:510, 80:880]  # the legend has the same colours
    areas, middles = [], []
    for color in _COLORS[:2]:
        faint = np.asarray(ImageColor.getrgb(color)) * (0xB0 / 255) + 255 * (1 - 0xB0 / 255)
        near = np.abs(plot - faint).max(axis=-1) < 8
        areas.append(near.sum())
        middles.append(np.argwhere(near).mean(axis=0))
    assert areas[0] / areas[1] == pytest.approx(4, rel=0.25)
    assert middles[0][0] > middles[1][0]  # a lower mIoU is further down
    assert middles[0][1] < middles[1][1]
    across = Axis.over([20, 80], 90 - 80, 870 - 80)
    down = Axis.over([0.2, 0.8], 500 - 60, 70 - 60)
    np.testing.assert_allclose(middles[0], [down.pixel(0.2), across.pixel(20)], atol=1.5)
    np.testing.assert_allclose(middles[1], [down.pixel(0.8), across.pixel(80)], atol=1.5)


def test_a_crowd_and_a_single_point_are_drawn() -> None:
    for points in (POINTS, POINTS[:1]):
        assert draw_points(points, x_title="ms", y_title="mIoU", note="x" * 300).size == (900, 600)
