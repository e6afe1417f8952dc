"""Loss and metric of classification; a label of `IGNORED` fills up a batch and counts nothing."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from segformer_tf.layers import PACKAGE
from training.optim.losses import MeanOverValid

IGNORED = -1


@keras.saving.register_keras_serializable(PACKAGE)
class ClassificationLoss(MeanOverValid):
    """Cross-entropy of (B, C) logits against (B,) classes, averaged over the images that are not `IGNORED`.

    Args:
        smoothing: share of the target that is spread evenly over all classes (arXiv 1512.00567, section 7).
    """

    def __init__(self, smoothing: float = 0.0, name: str = "classification_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.smoothing = smoothing

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        logits = tf.cast(y_pred, tf.float32)
        count = logits.shape[-1]
        target = tf.one_hot(tf.cast(y_true, tf.int32), count) * (1.0 - self.smoothing) + self.smoothing / count
        return tf.nn.softmax_cross_entropy_with_logits(target, logits)

    def weights(self, y_true: Any) -> Any:
        return _valid(y_true)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smoothing": self.smoothing}


@keras.saving.register_keras_serializable(PACKAGE)
class TopK(keras.metrics.Mean):
    """Share of images, 0..1, whose class is among the `k` of the highest logits; `IGNORED` ones are left out."""

    def __init__(self, k: int, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or f"top_{k}", **kwargs)
        self.k = k

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        best = tf.math.top_k(tf.cast(y_pred, tf.float32), self.k).indices  # (B, k); unlike in_top_k, ties have an order
        hits = tf.reduce_any(best == tf.cast(y_true, tf.int32)[:, None], axis=-1)
        return super().update_state(tf.cast(hits, tf.float32), _valid(y_true))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "k": self.k}


def _valid(classes: Any) -> Any:
    return tf.cast(tf.not_equal(tf.cast(classes, tf.int32), IGNORED), tf.float32)
