"""curves.png and panel.png: what they are drawn from."""

from __future__ import annotations

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from segformer_tf import MeanIoU, SegmentationLoss
from segformer_tf.mask import ids_to_mask
from segformer_tf.metrics import confusion_matrix, mean_iou
from training.config import TrainConfig
from training.data.open import open_source
from training.runs.plots import CLASS_IOU, classes_in, draw_classes, draw_curve, plot_history, shortened
from training.tasks.segmentation import Segmentation
from training.tasks.worst_image import WorstImage, image_ious

RNG = np.random.default_rng(3)


def test_the_history_has_the_iou_of_each_class(trained: Path, toy_folder: Path) -> None:
    names = open_source(str(toy_folder), "val").labels.names
    with (trained / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        ious = {key.removeprefix(CLASS_IOU): float(row[key]) for key in row if key.startswith(CLASS_IOU) and row[key]}
        assert set(ious) <= set(names)
        assert np.mean(list(ious.values())) == pytest.approx(float(row["val_mean_iou"]), abs=1e-6)
    assert classes_in([{"epoch": 0.0, "val_iou_a_b": 1.0}]) == {"val_iou_a_b": "a_b"}


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_curves_have_whole_epochs(epochs: int) -> None:
    rows = [{"epoch": i, "loss": 1 / (i + 1), "val_loss": 1.0, "val_iou_$x$": i / 9} for i in range(epochs)]
    for draw in (lambda axes: draw_curve(axes, rows, "loss"), lambda axes: draw_classes(axes, rows, classes_in(rows))):
        axes = Figure().subplots()
        draw(axes)
        assert all(tick == round(tick) for tick in axes.get_xticks())
        assert all(line.get_xdata()[0] == 1 for line in axes.get_lines())


def test_the_lowest_classes_are_named_and_the_others_gray(tmp_path: Path) -> None:
    rows = [{"epoch": i, "loss": 1.0, **{f"val_iou_c{j:02d}": (j + i) / 40 for j in range(20)}} for i in range(2)]
    del rows[1]["val_iou_c03"]  # a class that no longer occurs
    axes = Figure().subplots()
    draw_classes(axes, rows, classes_in(rows))
    assert len(axes.get_lines()) == 20
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(named) == 8
    assert named[-1] == "0.03 c00"
    assert sum(line.get_color() == "0.75" for line in axes.get_lines()) == 12
    plot_history(rows, tmp_path / "curves.png", score="mean_iou")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(("size", "grid"), [((64, 96), (16, 24)), ((37, 53), (10, 14))])
def test_images_are_scored_on_the_grid(size: tuple[int, int], grid: tuple[int, int]) -> None:
    masks = RNG.integers(0, 3, (4, *size)).astype(np.uint8)
    masks[0] = 1
    masks[1, : size[0] // 2] = 255
    masks[3] = 255
    logits = RNG.normal(size=(4, *grid, 4)).astype(np.float32)
    expected = [
        mean_iou(confusion_matrix(ids_to_mask(mask, grid), own.argmax(-1), num_classes=4))
        for mask, own in zip(masks, logits, strict=True)
    ]
    expected[3] = 3
    np.testing.assert_allclose(image_ious(masks, logits, 4), expected, rtol=1e-6)


def test_the_worst_validation_image_is_found_over_batches() -> None:
    """Of seven images the sixth; the eighth only fills the last batch, and training is not watched."""
    inputs = keras.Input((8, 8, 2))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs))
    model.compile(loss=SegmentationLoss(), metrics=[MeanIoU(2)], optimizer="sgd")
    worst = WorstImage(model, 2)
    masks = np.zeros((8, 8, 8), np.uint8)
    masks[7] = 255
    logits = np.stack([np.ones((8, 8, 8)), np.zeros((8, 8, 8))], -1).astype(np.float32)
    for i, wrong in enumerate((1, 2, 1, 0, 3, 7, 5)):
        logits[i, :wrong, :, 1] = 2
    data = tf.data.Dataset.from_tensor_slices((logits, masks)).batch(2)
    assert worst.take() is None
    score = model.evaluate(data, verbose=0, return_dict=True)["mean_iou"]
    assert worst.take() == 5
    assert worst.take() is None
    plain = MeanIoU(2)
    plain.update_state(masks, logits)
    assert score == pytest.approx(float(plain.result()))
    model.evaluate(data.take(2), verbose=0)
    assert worst.take() == 1


def test_a_panel_names_images_and_shows_errors_and_the_worst(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict = {}
    monkeypatch.setattr(
        "training.tasks.segmentation.plot_panel", lambda rows, out, **more: drawn.update(more, rows=rows)
    )
    task = Segmentation(TrainConfig(data=str(toy_folder), eval_size=(64, 64)))
    task.source = task.validation = open_source(str(toy_folder), "train")  # six images, of which four are spread

    class Fourth:
        def take(self) -> int:
            return 4

    task._worst = Fourth()  # type: ignore[assignment]

    def background(batch: np.ndarray, *, training: bool) -> np.ndarray:
        return np.zeros((1, 16, 16, 6), np.float32)

    task.draw(background, tmp_path / "panel.png")  # type: ignore[arg-type]
    assert [row[0] for row in drawn["titles"]] == ["0.png", "1.png", "3.png", "5.png", "worst: 4.png"]
    for row, titles, index in zip(drawn["rows"], drawn["titles"], (0, 1, 3, 5, 4), strict=True):
        image, truth = task.source[index]
        assert len(row) == len(titles) == 4
        np.testing.assert_array_equal(row[0], image)
        red = (row[3] == (230, 25, 25)).all(-1)
        np.testing.assert_array_equal(red, (truth != 0) & (truth != 255))
        score = mean_iou(confusion_matrix(truth, np.zeros_like(truth), num_classes=6))
        assert titles[2] == f"prediction, mean IoU {score:.2f}"
    assert shortened("a" * 40 + "7.png").endswith("7.png")
    assert len(shortened("a" * 40)) == 32
