"""The losses and metrics of pretraining, and the class weights of segmentation."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from segformer_tf.layers import PACKAGE
from segformer_tf.losses.base import MeanOverValid

IGNORED = -1  # class of the samples that fill up a batch of classification; they count nothing


def rare_class_weights(pixels: Int64[np.ndarray, "classes"], power: float) -> list[float]:
    """Class weights: ``1 / ln(1.02 + share of the class's pixels)`` to a power.

    Power 1 is ENet's formula (arXiv 1606.02147, section 5.2), with which rare classes are predicted too often; power 0
    gives 1 for all classes.

    Args:
        pixels: of each class, in the training masks.
    """
    return (np.log(1.02 + pixels / max(pixels.sum(), 1)) ** -power).tolist()


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
    """Share of images, 0..1, whose class is among the `k` highest logits, without `IGNORED` images."""

    def __init__(self, k: int, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or f"top_{k}", **kwargs)
        self.k = k

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        best = tf.math.top_k(tf.cast(y_pred, tf.float32), self.k).indices  # (B, k); unlike in_top_k, ties have an order
        hits = tf.reduce_any(best == tf.cast(y_true, tf.int32)[:, None], axis=-1)
        return super().update_state(tf.cast(hits, tf.float32), _valid(y_true))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "k": self.k}


@keras.saving.register_keras_serializable(PACKAGE)
class HiddenPixelLoss(MeanOverValid):
    """Mean absolute error (L1) of painted pixels, averaged over the hidden ones of a step, whichever image they are in.

    Compares (B, H, W, 3) with the target of `training.data.hidden_blocks.hide_blocks`, (B, H, W, 4).
    """

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.abs(y_true[..., :3] - tf.cast(y_pred, tf.float32)), axis=-1)

    def weights(self, y_true: Any) -> Any:
        return y_true[..., 3]


@keras.saving.register_keras_serializable(PACKAGE)
class Explained(keras.metrics.Metric):
    """How much of the hidden pixels was painted: 1 - error / error of the mean color, which stands in their place.

    1 where every hidden pixel is right, 0 where it is no better than the mean color, below that where it is worse. The
    errors are absolute, and summed over all hidden pixels so far.
    """

    def __init__(self, name: str = "explained", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.error = self.add_variable((), "zeros", name="error")
        self.empty = self.add_variable((), "zeros", name="empty")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        image, hidden = y_true[..., :3], y_true[..., 3:]
        self.error.assign_add(tf.reduce_sum(hidden * tf.abs(image - tf.cast(y_pred, tf.float32))))
        self.empty.assign_add(tf.reduce_sum(hidden * tf.abs(image)))

    def result(self) -> Any:
        return 1.0 - self.error / tf.maximum(tf.convert_to_tensor(self.empty), 1e-6)


def _valid(classes: Any) -> Any:
    return tf.cast(tf.not_equal(tf.cast(classes, tf.int32), IGNORED), tf.float32)
