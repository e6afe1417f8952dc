"""A mean over all valid targets of a step, on one device or many, and what segmentation losses share."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf
from jaxtyping import Float, Float32, UInt8

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID

_TINY = 1e-6  # below any weight: a step without a valid target has loss 0
_MEAN = "sum_over_batch_size"


def upsample_logits(
    logits: Float[tf.Tensor, "batch h w classes"], mask: UInt8[tf.Tensor, "batch height width"]
) -> Float32[tf.Tensor, "batch height width classes"]:
    """Logits at the mask's size, by one half-pixel bilinear resize."""
    return tf.image.resize(tf.cast(logits, tf.float32), tf.shape(mask)[1:3], method="bilinear")


def as_masks(masks: Any, logits: Any, name: str) -> Any:
    """Masks (B, H, W) of class ids, from such or from (B, H, W, 1).

    Once `fit` has seen both, Keras gives masks of unknown rank, which are looked at as the step runs.

    Args:
        masks: of class ids.
        logits: that they are compared with, (B, h, w, C).
        name: of what compares them, for the message.

    Raises:
        InputError: masks or logits of another rank, or masks of more than one channel.
    """
    shape, one_channel = masks.shape, masks.shape.rank == 4 and masks.shape[3] in (1, None)
    if not (shape.rank in (3, None) or one_channel) or logits.shape.rank not in (4, None):
        raise InputError(
            f"{name} compares masks of class ids (batch, height, width) with logits (batch, h, w, classes). "
            f"Received: {shape} and {logits.shape}"
        )
    if shape.rank == 3:
        return masks
    line = "masks must be class ids (batch, height, width), or with one channel"
    size = tf.shape(masks)
    with tf.control_dependencies([tf.debugging.Assert(tf.size(masks) == tf.reduce_prod(size[:3]), [line, size])]):
        return tf.ensure_shape(tf.reshape(masks, size[:3]), [None] * 3 if shape.rank is None else shape[:3])


class MeanOverValid(keras.losses.Loss):
    """Base of losses that are a weighted mean over the targets of a step; a subclass gives `losses` and `weights`.

    The sum of weights is that of the whole step, over all replicas, so that one device and many compute the same loss
    and gradient.

    Raises:
        InputError: another reduction than Keras' default, or sample weights: neither would be a mean over what is
            valid.
    """

    def __init__(self, name: str | None = None, reduction: str = _MEAN, **kwargs: Any) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        if reduction not in (_MEAN, "mean"):
            raise InputError(f"reduction must be {_MEAN}: {self.name} is a mean. Received: reduction={reduction!r}")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            raise InputError(
                f"{self.name} takes no sample weights, nor fit's class_weight: give the loss its class_weights, and "
                f"pixels that shall not count the id {IGNORE_ID}"
            )
        return super().__call__(y_true, y_pred)

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each target, float32."""
        raise NotImplementedError

    def weights(self, y_true: Any) -> Any:
        """The weight of each target, float32, in the shape of `losses`; 0 for ignored targets."""
        raise NotImplementedError

    def call(self, y_true: Any, y_pred: Any) -> Any:
        weights = self.weights(y_true)
        total, replicas = over_replicas(tf.reduce_sum(weights))
        loss = replicas * tf.reduce_sum(self.losses(y_true, y_pred) * weights) / tf.maximum(total, _TINY)
        return loss[None]  # Keras divides the mean of a vector by the number of replicas, but not a scalar


class MaskLoss(MeanOverValid):
    """Base of the losses of (B, h, w, C) logits, upsampled, with (B, H, W) or (B, H, W, 1) masks of class ids.

    Computed in float32, whatever the logits are.

    Args:
        class_weights: weight of each class, or None for 1.

    Raises:
        InputError: weights that are negative or not finite, or, once called, masks or logits of another rank, or
            another number of classes than of weights.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if class_weights is not None:
            class_weights = [float(weight) for weight in class_weights]
            if not class_weights or not all(0 <= weight < inf for weight in class_weights):
                raise InputError(f"class_weights must be finite and not negative. Received: {class_weights}")
        self.class_weights = class_weights

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = as_masks(y_true, y_pred, self.name)
        if self.class_weights is not None and y_pred.shape[-1] not in (len(self.class_weights), None):
            raise InputError(
                f"class_weights must be {y_pred.shape[-1]}, one per class. Received: {len(self.class_weights)}"
            )
        known = tf.debugging.assert_less(
            tf.reduce_max(classes_of(y_true)), tf.shape(y_pred)[-1], f"{self.name}: a mask has an id that is no class"
        )
        with tf.control_dependencies([known] if known is not None else []):  # None where it was checked at once
            return super().call(tf.identity(y_true), y_pred)

    def pixel_weights(self, y_true: Any) -> Any:
        """The class weight of each pixel, in the mask's shape; 0 for ignored ones."""
        valid = tf.cast(is_valid(y_true), tf.float32)
        if self.class_weights is None:
            return valid
        return valid * tf.gather(tf.constant(self.class_weights, tf.float32), classes_of(y_true))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": self.class_weights}


def cross_entropy(y_true: Any, logits: Any) -> Any:
    """``-log p`` of each pixel's class, in the mask's shape; what ignored pixels have is of no meaning.

    Args:
        y_true: (B, H, W) class ids and `IGNORE_ID`.
        logits: (B, H, W, C) float32.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(classes_of(y_true), logits)


def is_valid(mask: Any) -> Any:
    """Where the mask is not `IGNORE_ID`."""
    return tf.not_equal(mask, IGNORE_ID)


def classes_of(mask: Any) -> Any:
    """The mask as int32, ignored pixels as class 0."""
    return tf.where(is_valid(mask), tf.cast(mask, tf.int32), 0)


def over_replicas(value: Any) -> tuple[Any, int]:
    """The sum of `value` over all replicas, and the number of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:  # None while Keras builds from shapes
        return value, 1
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value), context.num_replicas_in_sync
