"""Which validation image a model in training does worst on, at no further pass over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from segformer_tf.labels import IGNORE_ID
from segformer_tf.losses.base import as_masks


class WorstImage:
    """Watches a model's validation steps, which must see every sample once, in order, on one replica.

    Images are compared by the mean IoU over the classes that their truth or prediction shows, on the grid of logits.

    Args:
        model: before its first validation.
        num_classes: of its logits.
    """

    def __init__(self, model: keras.Model, num_classes: int) -> None:
        self.num_classes = num_classes
        self._seen, self._worst = tf.Variable(0, trainable=False), tf.Variable(-1, trainable=False)
        self._lowest = tf.Variable(2.0, trainable=False)
        self._validating = False  # while a step runs, or is traced
        model.test_step = self._watched(model.test_step)
        compute_metrics = model.compute_metrics

        def see(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            if self._validating:
                self._update(as_masks(y, y_pred, "validation"), y_pred)
            return compute_metrics(x, y, y_pred, sample_weight)

        model.compute_metrics = see

    def take(self) -> int | None:
        """The number of the worst image since the last call; None where none counts."""
        worst = int(self._worst.numpy())
        self._seen.assign(0)
        self._worst.assign(-1)
        self._lowest.assign(2.0)
        return worst if worst >= 0 else None

    def _watched(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def watched(data: Any) -> Any:
            self._validating = True
            try:
                return step(data)
            finally:
                self._validating = False

        return watched

    def _update(self, masks: Any, logits: Any) -> None:
        """Of masks (B, H, W) and logits (B, h, w, C)."""
        scores = image_ious(masks, logits, self.num_classes)
        place = tf.argmin(scores, output_type=tf.int32)
        lower = scores[place] < self._lowest
        self._worst.assign(tf.where(lower, self._seen + place, self._worst))
        self._lowest.assign(tf.where(lower, scores[place], self._lowest))
        self._seen.assign_add(tf.shape(masks)[0])


def image_ious(masks: Any, logits: Any, num_classes: int) -> Any:
    """Mean IoU of each image on the grid of logits, (B,) float32; 3 for one that is wholly ignored there.

    Args:
        masks: (B, H, W) classes 0..C-1 or `IGNORE_ID`.
        logits: (B, h, w, C).
        num_classes: C.
    """
    grid, count = tf.shape(logits)[1:3], tf.shape(logits)[0]
    near = tf.image.resize(tf.cast(masks, tf.int32)[..., None], grid, "nearest")[..., 0]  # (B, h, w)
    found = tf.argmax(logits, axis=-1, output_type=tf.int32)
    image = tf.range(count)[:, None, None]
    pairs = (image * num_classes + near) * num_classes + found
    pairs = tf.boolean_mask(pairs, near != IGNORE_ID)
    size = count * num_classes * num_classes
    matrices = tf.reshape(
        tf.math.unsorted_segment_sum(tf.ones_like(pairs), pairs, size), (-1, num_classes, num_classes)
    )
    hits = tf.linalg.diag_part(matrices)
    unions = tf.reduce_sum(matrices, 1) + tf.reduce_sum(matrices, 2) - hits
    occurring = tf.reduce_sum(tf.cast(unions > 0, tf.float32), 1)
    total = tf.reduce_sum(tf.cast(hits, tf.float32) / tf.cast(tf.maximum(unions, 1), tf.float32), 1)
    return tf.where(occurring > 0, total / tf.maximum(occurring, 1), 3.0)
