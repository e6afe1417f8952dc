"""Loss and metric on logits at 1/4 resolution against masks at full size."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from segformer_tf.labels import IGNORE_ID
from segformer_tf.layers import PACKAGE


def upsample_logits(logits: Any, mask: Any) -> Any:
    """(B, h, w, C) logits to (B, H, W, C) float32, the mask's size, by one half-pixel bilinear resize."""
    return tf.image.resize(tf.cast(logits, tf.float32), tf.shape(mask)[1:3], method="bilinear")


@keras.saving.register_keras_serializable(PACKAGE)
class SegmentationLoss(keras.losses.Loss):
    """Cross-entropy on logits upsampled to the mask, averaged over valid pixels (mask is not `IGNORE_ID`).

    The average divides by the number of valid pixels; mmseg's divides by all pixels.
    """

    def __init__(self, name: str = "segmentation_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        valid = tf.not_equal(y_true, IGNORE_ID)
        truth = tf.where(valid, tf.cast(y_true, tf.int32), 0)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, upsample_logits(y_pred, y_true))
        weight = tf.cast(valid, tf.float32)
        return tf.reduce_sum(losses * weight) / tf.maximum(tf.reduce_sum(weight), 1.0)


@keras.saving.register_keras_serializable(PACKAGE)
class MeanIoU(keras.metrics.MeanIoU):
    """Streaming mean IoU over the classes that occur, ignored pixels left out.

    ``total_cm`` is the confusion matrix, rows are truth; `segformer_tf.metrics` reads scores from it.
    """

    def __init__(self, num_classes: int, name: str = "mean_iou", **kwargs: Any) -> None:
        kwargs.setdefault("ignore_class", IGNORE_ID)
        super().__init__(num_classes=num_classes, name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        classes = tf.argmax(upsample_logits(y_pred, y_true), axis=-1, output_type=tf.int32)
        return super().update_state(y_true, classes, sample_weight)
