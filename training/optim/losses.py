"""Losses and metrics: of masks at full size with logits at 1/4 resolution, and of classes of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float32, Int64, UInt8

from segformer_tf.labels import IGNORE_ID
from segformer_tf.layers import PACKAGE

IGNORED = -1  # class of the samples that fill up a batch of classification; they count nothing


def upsample_logits(
    logits: Float[tf.Tensor, "batch h w classes"], mask: UInt8[tf.Tensor, "batch height width"]
) -> Float32[tf.Tensor, "batch height width classes"]:
    """Logits at the mask's size, by one half-pixel bilinear resize."""
    return tf.image.resize(tf.cast(logits, tf.float32), tf.shape(mask)[1:3], method="bilinear")


class MeanOverValid(keras.losses.Loss):
    """Base of losses that are a weighted mean over the targets of a step; a subclass gives `losses` and `weights`.

    The sum of weights is that of the whole step, over all replicas, so that one device and many compute the same loss
    and gradient.
    """

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each target, float32."""
        raise NotImplementedError

    def weights(self, y_true: Any) -> Any:
        """The weight of each target, float32, in the shape of `losses`; 0 for ignored targets."""
        raise NotImplementedError

    def call(self, y_true: Any, y_pred: Any) -> Any:
        weights = self.weights(y_true)
        total, replicas = over_replicas(tf.reduce_sum(weights))
        loss = replicas * tf.reduce_sum(self.losses(y_true, y_pred) * weights) / tf.maximum(total, 1e-6)
        return loss[None]  # Keras divides the mean of a vector by the number of replicas, but not a scalar


@keras.saving.register_keras_serializable(PACKAGE)
class SegmentationLoss(MeanOverValid):
    """Cross-entropy of (B, h, w, C) logits, upsampled, with (B, H, W) uint8 masks; mean over pixels not `IGNORE_ID`.

    mmseg divides by the number of all pixels instead.

    Args:
        class_weights: weight of each class's pixels, or None for 1.
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, name: str = "segmentation_loss", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(_classes(y_true), upsample_logits(y_pred, y_true))

    def weights(self, y_true: Any) -> Any:
        valid = tf.cast(tf.not_equal(y_true, IGNORE_ID), tf.float32)
        if self.class_weights is None:
            return valid
        return valid * tf.gather(tf.constant(self.class_weights, tf.float32), _classes(y_true))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": self.class_weights}


def _classes(mask: Any) -> Any:
    """The mask as int32, ignored pixels as class 0."""
    return tf.where(tf.not_equal(mask, IGNORE_ID), tf.cast(mask, tf.int32), 0)


def over_replicas(value: Any) -> tuple[Any, int]:
    """The sum of `value` over all replicas, and the number of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:  # None while Keras builds from shapes
        return value, 1
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value), context.num_replicas_in_sync


def rare_class_weights(pixels: Int64[np.ndarray, "classes"], power: float) -> list[float]:
    """Class weights: ``1 / ln(1.02 + share of the class's pixels)`` to a power.

    Power 1 is ENet's formula (arXiv 1606.02147, section 5.2), with which rare classes are predicted too often; power 0
    gives 1 for all classes.

    Args:
        pixels: of each class, in the training masks.
    """
    return (np.log(1.02 + pixels / max(pixels.sum(), 1)) ** -power).tolist()


@keras.saving.register_keras_serializable(PACKAGE)
class MeanIoU(keras.metrics.MeanIoU):
    """Streaming mean IoU, 0..1, over the classes that occur, without ignored pixels.

    ``total_cm`` is the confusion matrix, rows are truth; `segformer_tf.metrics` reads scores from it.
    """

    def __init__(self, num_classes: int, name: str = "mean_iou", **kwargs: Any) -> None:
        kwargs.setdefault("ignore_class", IGNORE_ID)
        super().__init__(num_classes=num_classes, name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        classes = tf.argmax(upsample_logits(y_pred, y_true), axis=-1, output_type=tf.int32)
        return super().update_state(y_true, classes, sample_weight)


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


def _valid(classes: Any) -> Any:
    return tf.cast(tf.not_equal(tf.cast(classes, tf.int32), IGNORED), tf.float32)
