"""The mean IoU of one step after another, as a Keras metric."""

from __future__ import annotations

from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from segformer_tf.layers import PACKAGE
from segformer_tf.losses.base import as_masks, upsample_logits


@keras.saving.register_keras_serializable(PACKAGE)
class MeanIoU(keras.metrics.MeanIoU):
    """Streaming mean IoU, 0..1, of (B, h, w, C) logits, upsampled, with (B, H, W) masks.

    The mean is over the classes that occur; masks may be (B, H, W, 1), and ignored pixels do not count. ``total_cm`` is
    the confusion matrix, rows are truth; `segformer_tf.metrics` reads scores from it.

    Args:
        num_classes: C.

    Raises:
        InputError: once called, logits of another number of classes, or masks or logits of another rank.
    """

    def __init__(self, num_classes: int, name: str = "mean_iou", **kwargs: Any) -> None:
        kwargs.setdefault("ignore_class", IGNORE_ID)
        super().__init__(num_classes=num_classes, name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        y_true = as_masks(y_true, y_pred, self.name)
        if y_pred.shape[-1] not in (self.num_classes, None):
            raise InputError(f"the model has {y_pred.shape[-1]} classes. Received: MeanIoU({self.num_classes})")
        classes = tf.argmax(upsample_logits(y_pred, y_true), axis=-1, output_type=tf.int32)
        return super().update_state(y_true, classes, sample_weight)
