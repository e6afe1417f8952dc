"""Class-balanced sampling: which image comes next, and which crop of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf.errors import InputError
from tests.training.folders import write_folder
from tests.training.small import SMALL
from training.data import augment as aug
from training.data.check_masks import classes_shown
from training.data.open import open_source
from training.data.order import NO_CLASS, ClassBalance, shuffled
from training.data.pipeline import train_batches
from training.runs.folder import Run
from training.tasks.segmentation import Segmentation

# 20 images: all show class 0, one class 2, three class 3, and none class 1.
SHOWN = np.zeros((20, 4), bool)
SHOWN[:, 0] = SHOWN[3, 2] = SHOWN[[5, 7, 9], 3] = True


def drawn(share: float, count: int, *, seed: int = 5) -> list[tuple[int, int]]:
    balance = ClassBalance(SHOWN, share)
    draw = tf.function(lambda number: balance.draw(number, seed=seed))
    return [tuple(map(int, draw(tf.constant(i, tf.int64)))) for i in range(count)]


def test_classes_come_equally_often_and_so_do_the_images_of_each() -> None:
    pairs = drawn(1.0, 180)
    for name, images, each in ((0, range(20), 3), (2, [3], 60), (3, [5, 7, 9], 20)):
        of_class = [index for index, held in pairs if held == name]
        assert {i: of_class.count(i) for i in images} == dict.fromkeys(images, each)
    assert len({held for _, held in pairs[:3]}) == 3
    assert pairs != drawn(1.0, 180, seed=4_294_967_295)


def test_the_other_samples_pass_over_all_images_as_without_it() -> None:
    pairs = drawn(0.3, 100)
    passes = [index for index, held in pairs if held == NO_CLASS]
    assert len(passes) == 70
    assert passes == [int(shuffled(tf.constant(i, tf.int64), 20, [5])) for i in range(70)]
    with pytest.raises(InputError, match="no mask shows any class"):
        ClassBalance(np.zeros((3, 2), bool), 0.5)


def test_a_crop_holds_the_class_wherever_it_is() -> None:
    mask = np.zeros((61, 90), np.uint8)
    mask[0, 89], mask[60, 3], mask[30, 40:44] = 1, 2, 3
    image = np.zeros((61, 90, 3), np.float32)
    for held in (1, 2, 3):
        corners = set()
        for i in range(12):
            _, crop = aug.random_crop(image, mask, (7, i), crop=(16, 29), held=tf.constant(held))
            assert held in np.asarray(crop)
            corners.add(tuple(np.argwhere(np.asarray(crop) == held)[0]))
        assert len(corners) == 1 if held == 1 else len(corners) > 3  # one window alone has the corner
    for held in (9, NO_CLASS):  # lost by the scale jitter, or not wanted
        mask[20:25] = 255
        ours, plain = (aug.random_crop(image, mask, (7, 7), crop=(16, 29), **options)[1]
                       for options in ({"held": tf.constant(held)}, {}))  # fmt: skip
        np.testing.assert_array_equal(ours, plain)


def batches(start: int, count: int, *, worker: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    samples = [(np.full((64, 96, 3), i, np.uint8), np.zeros((64, 96), np.uint8)) for i in range(20)]
    samples[3][1][63, 95] = 2
    for i in (5, 7, 9):
        samples[i][1][:2, :2] = 3
    context = None if worker is None else tf.distribute.InputContext(2, worker, 2)
    options = {"crop": (32, 48), "scale": (1.0, 1.5), "batch_size": 4, "seed": 5}
    data = train_batches(samples, **options, start=start, context=context, balance=ClassBalance(SHOWN, 1.0))
    return [(np.asarray(image), np.asarray(mask)) for image, mask in data.take(count)]


def test_a_rare_class_is_in_a_share_of_the_samples_on_any_worker_and_after_a_resume() -> None:
    whole = batches(0, 9)
    masks = np.concatenate([mask for _, mask in whole])
    assert sum(2 in mask for mask in masks) == sum(3 in mask for mask in masks) == 12  # of 36, and of 3 classes
    for (image, mask), (later_image, later_mask) in zip(whole[2:4], batches(8, 2), strict=True):
        np.testing.assert_array_equal(image, later_image)
        np.testing.assert_array_equal(mask, later_mask)
    for i, parts in enumerate(zip(batches(0, 2, worker=0), batches(0, 2, worker=1), strict=True)):
        np.testing.assert_array_equal(np.concatenate([mask for _, mask in parts]), whole[i][1])


def test_what_masks_show_is_the_same_from_any_source_and_after_a_resume(toy_folder: Path, tmp_path: Path) -> None:
    rare = [np.array([[0, 1]], np.uint8), np.array([[0, 2]], np.uint8), np.array([[0, 255]], np.uint8)]
    source = open_source(str(write_folder(tmp_path / "data", rare)), "train")
    expected = [[True, True, False], [True, False, True], [True, False, False]]
    np.testing.assert_array_equal(classes_shown(source), expected)

    class Plain(list):  # as a TFDS data set, it has no files of masks
        labels = SimpleNamespace(names=source.labels.names)

    np.testing.assert_array_equal(classes_shown(Plain(source[i] for i in range(3))), expected)

    config = replace(SMALL, data=str(toy_folder), balance=0.5, eval_size=(64, 64), out=tmp_path / "run")
    new, resumed = Segmentation(config), Segmentation(config)
    new.open(None)
    resumed.open(Run(tmp_path / "run"))
    context = tf.distribute.InputContext()
    (one, _), (two, _), (plain, _) = (
        next(iter(task.train_batches(2, context))) for task in (new, resumed, _without_balance(config))
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, plain)


def _without_balance(config: object) -> Segmentation:
    task = Segmentation(replace(config, balance=0.0))  # type: ignore[type-var]
    task.open(None)
    return task
