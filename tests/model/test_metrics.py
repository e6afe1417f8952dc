from __future__ import annotations

import numpy as np
import pytest

from segformer_tf.metrics import (
    confusion_matrix,
    mean_accuracy,
    mean_iou,
    per_class_accuracy,
    per_class_iou,
    pixel_accuracy,
)


def test_scores_of_a_worked_example() -> None:
    truth = np.array([[0, 0, 1], [1, 255, 1]])
    prediction = np.array([[0, 1, 1], [1, 2, 0]])
    matrix = confusion_matrix(truth, prediction, num_classes=3)
    assert matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]  # the ignored pixel is not there
    iou = per_class_iou(matrix)
    assert iou[:2].tolist() == [1 / 3, 2 / 4]
    assert np.isnan(iou[2])
    assert mean_iou(matrix) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert pixel_accuracy(matrix) == pytest.approx(3 / 5)
    accuracy = per_class_accuracy(matrix)
    assert accuracy[:2].tolist() == [1 / 2, 2 / 3]
    assert np.isnan(accuracy[2])
    assert mean_accuracy(matrix) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_class_that_is_only_predicted_counts_in_iou_alone() -> None:
    matrix = confusion_matrix(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), num_classes=3)
    assert mean_iou(matrix) == pytest.approx((3 / 4 + 0) / 2)
    assert mean_accuracy(matrix) == pytest.approx(3 / 4)  # nothing to recall of class 1


def test_nothing_valid_is_nan() -> None:
    matrix = confusion_matrix(np.full(4, 255), np.zeros(4, int), num_classes=2)
    assert np.isnan(mean_iou(matrix))
    assert np.isnan(mean_accuracy(matrix))
    assert np.isnan(pixel_accuracy(matrix))


def test_ids_outside_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth holds ids 0..7, expected 0..2 or 255"):
        confusion_matrix(np.array([0, 7]), np.array([0, 0]), num_classes=3)
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int), num_classes=3)
