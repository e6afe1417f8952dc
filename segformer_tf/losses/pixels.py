"""Losses that are a mean over the valid pixels of a step: cross-entropy and focal."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf

from segformer_tf.errors import InputError
from segformer_tf.layers import PACKAGE
from segformer_tf.losses.base import MaskLoss, cross_entropy, upsample_logits


@keras.saving.register_keras_serializable(PACKAGE)
class SegmentationLoss(MaskLoss):
    """Cross-entropy of (B, h, w, C) logits, upsampled, with (B, H, W) masks; mean over pixels not `IGNORE_ID`.

    ``Σ w·ce / Σ w`` over the valid pixels of the step, on all replicas together, where ``ce = -log p`` of a pixel's
    class and w is the weight of that class. mmseg divides by the number of all pixels instead.

    Args:
        class_weights: weight of each class's pixels, or None for 1.

    Raises:
        InputError: weights that are negative or not finite, or masks or logits of another rank.

    Examples:
        >>> model.compile("adam", loss=SegmentationLoss(), metrics=[MeanIoU(150)])
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, name: str = "segmentation_loss", **kwargs: Any
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        return cross_entropy(y_true, upsample_logits(y_pred, y_true))

    def weights(self, y_true: Any) -> Any:
        return self.pixel_weights(y_true)


@keras.saving.register_keras_serializable(PACKAGE)
class FocalLoss(SegmentationLoss):
    """Cross-entropy in which a pixel counts the less, the surer the network is of its class; mean over valid pixels.

    ``Σ w·(1 - p)^gamma·ce / Σ w`` over the valid pixels of the step, on all replicas together. p is the softmax
    probability of a pixel's class and ``ce = -log p``; `SegmentationLoss` is ``gamma = 0``.

    Args:
        gamma: 0 or more; 2 is the authors'.
        class_weights: weight of each class's pixels, the authors' α, or None for 1.

    Raises:
        InputError: a gamma or weights that are negative or not finite.

    Reference: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 5, with softmax for the sigmoid, and the
    number of valid pixels for that of anchors with an object.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        name: str = "focal_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        if not 0 <= gamma < inf:
            raise InputError(f"gamma must be finite and not negative. Received: gamma={gamma}")
        self.gamma = gamma

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        entropy = super().losses(y_true, y_pred)
        doubt = tf.maximum(-tf.math.expm1(-entropy), 1e-7)  # 1 - p; of 0, a power below 1 has no gradient
        return doubt**self.gamma * entropy

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
