from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from segformer_tf.edge.benchmark.scatter_plot import Point, draw_points, plot_points
from segformer_tf.labels import Labels
from segformer_tf.overlay import class_ids, with_legend

# CamVid's files on two runtimes, crowded at the left.
POINTS = [
    Point(76, 0.5890, 13.95, "camvid_b0_fp32", "litert"),
    Point(71, 0.5891, 7.0, "camvid_b0_fp16", "litert"),
    Point(126, 0.5885, 3.73, "camvid_b0_dynamic_int8", "litert"),
    Point(683, 0.5739, 4.04, "camvid_b0_int8", "litert"),
    Point(150, 0.5890, 13.95, "camvid_b0_fp32", "tflite-runtime"),
    Point(1810, 0.5739, 4.04, "camvid_b0_int8", "tflite-runtime"),
]


@pytest.mark.parametrize("points", [POINTS, POINTS[:1], POINTS[:1] * 3], ids=["crowd", "one", "same place"])
def test_labels_overlap_neither_labels_nor_circles(points: list[Point]) -> None:
    figure, axes = draw_points(points)
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert [text.get_text() for text in axes.texts] == [point.label for point in points]
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    for circle in (each for each in axes.collections if len(each.get_offsets()) == 1):
        (center,) = axes.transData.transform(circle.get_offsets())
        radius = np.sqrt(circle.get_sizes()[0]) / 2 * figure.dpi / 72
        for box in boxes:
            assert np.hypot(*(np.clip(center, box.p0, box.p1) - center)) >= radius
    for box in boxes:
        assert axes.bbox.count_contains(box.corners()) == 4


def test_circles_are_at_their_numbers_and_areas_are_sizes() -> None:
    _, axes = draw_points([Point(20, 0.2, 4.0, "a", "x"), Point(80, 0.8, 1.0, "b", "y")])
    first, second = (c for c in axes.collections if len(c.get_offsets()) == 1)
    np.testing.assert_allclose([*first.get_offsets(), *second.get_offsets()], [[20, 0.2], [80, 0.8]])
    assert first.get_sizes()[0] / second.get_sizes()[0] == pytest.approx(4)
    assert not np.array_equal(first.get_facecolor(), second.get_facecolor())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["x", "y"]


def test_the_picture_is_written(tmp_path: Path) -> None:
    plot_points(tmp_path / "a.png", POINTS, x_title="ms", y_title="mIoU", note="$\\nothing" * 30)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.size == (900, 600)


@pytest.mark.parametrize("size", [(8, 8), (120, 200), (2000, 3000)])
def test_a_legend_names_the_classes_that_occur(size: tuple[int, int]) -> None:
    labels = Labels.named([f"class number {i}" for i in range(20)])
    mask = np.full(size, 255, np.uint8)
    mask[:4, :4], mask[4:8, :4] = 3, 7
    mask[0] = 7
    assert class_ids(mask) == [7, 3]
    picture = Image.new("RGB", size[::-1], "white")
    drawn = with_legend(picture, labels, class_ids(mask))
    assert drawn.crop((0, 0, *picture.size)).tobytes() == picture.tobytes()
    colors = {color for count, color in drawn.getcolors(1 << 24) or [] if count > 50}  # not of smooth letters
    assert {i for i, color in enumerate(labels.colors) if color in colors} == {3, 7}
    assert drawn.width <= max(size[1], 400)
    assert with_legend(picture, labels, []).size == picture.size
