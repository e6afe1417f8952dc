"""The mean IoU of one step after another, as a Keras metric."""

from __future__ import annotations

from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf

from segformer_tf.labels import IGNORE_ID
from segformer_tf.layers import PACKAGE
from segformer_tf.losses.base import upsample_logits


@keras.saving.register_keras_serializable(PACKAGE)
class MeanIoU(keras.metrics.MeanIoU):
    """Streaming mean IoU, 0..1, of (B, h, w, C) logits, upsampled, with (B, H, W) masks, without ignored pixels.

    The mean is over the classes that occur. ``total_cm`` is the confusion matrix, rows are truth;
    `segformer_tf.metrics` reads scores from it.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int, name: str = "mean_iou", **kwargs: Any) -> None:
        kwargs.setdefault("ignore_class", IGNORE_ID)
        super().__init__(num_classes=num_classes, name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        classes = tf.argmax(upsample_logits(y_pred, y_true), axis=-1, output_type=tf.int32)
        return super().update_state(y_true, classes, sample_weight)
