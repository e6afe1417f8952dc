"""Losses of whole images, averaged over the images of a step: hard pixels, soft Dice, Lovász-softmax.

Each image is one value, so that a step on many devices, or in parts, is the same as on one. Images go through one after
another and are computed again for the gradient: what is of full size is in memory for one image at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf
from jaxtyping import Float32

from segformer_tf.errors import InputError
from segformer_tf.layers import PACKAGE
from segformer_tf.losses.base import MaskLoss, classes_of, cross_entropy, is_valid, upsample_logits


class ImageLoss(MaskLoss):
    """Base of losses with one value per image; images without a valid pixel do not count.

    A subclass gives `image_loss`.
    """

    def image_loss(self, mask: Any, logits: Any) -> Any:
        """The loss of one image, a float32 scalar; 0 if no pixel is valid.

        Args:
            mask: (H, W) class ids and `IGNORE_ID`.
            logits: (H, W, C) float32, at the mask's size.
        """
        raise NotImplementedError

    def losses(self, y_true: Any, y_pred: Any) -> Any:
        def one(pair: tuple[Any, Any]) -> Any:
            mask, logits = pair
            loss = tf.recompute_grad(lambda x: self.image_loss(mask, upsample_logits(x[None], mask[None])[0]))
            return loss(logits)

        # One at a time: TensorFlow would run ten.
        return tf.map_fn(one, (y_true, y_pred), fn_output_signature=tf.float32, parallel_iterations=1)

    def weights(self, y_true: Any) -> Any:
        return tf.cast(tf.reduce_any(is_valid(y_true), axis=(1, 2)), tf.float32)

    def mean_entropy(self, mask: Any, logits: Any, where: Any = 1.0) -> Any:
        """The mean cross-entropy of an image's valid pixels, by class weight and times `where`."""
        weights = self.pixel_weights(mask) * where
        return tf.math.divide_no_nan(tf.reduce_sum(weights * cross_entropy(mask, logits)), tf.reduce_sum(weights))


@keras.saving.register_keras_serializable(PACKAGE)
class OhemLoss(ImageLoss):
    """Cross-entropy of the hard pixels alone (online hard example mining), image by image.

    Of an image's n valid pixels, with p the softmax probability of a pixel's class, those count whose p is below
    `threshold` or among the ``ceil(min_kept·n)`` smallest; pixels as unsure as the last of those count, too. An image's
    loss is ``Σ w·ce / Σ w`` over its pixels that count, and the step's is the mean over images with a valid pixel, on
    all replicas together.

    mmseg's sampler has the same rule with a number of pixels for `min_kept` (its 100,000 are a fifth of a 512x1024
    crop), over a whole batch, and divides by all pixels.

    Args:
        threshold: probability, 0..1, from which a pixel is no longer hard.
        min_kept: share of an image's valid pixels, 0..1, that counts at least.
        class_weights: weight of each class's pixels, or None for 1.

    Raises:
        InputError: a threshold or share outside 0..1, or weights that are negative or not finite.

    Reference: Shrivastava et al. 2016, https://arxiv.org/abs/1604.03540
    """

    def __init__(
        self,
        threshold: float = 0.7,
        min_kept: float = 0.2,
        class_weights: Sequence[float] | None = None,
        name: str = "ohem_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        for what, value in (("threshold", threshold), ("min_kept", min_kept)):
            if not 0 <= value <= 1:
                raise InputError(f"{what} must be from 0 to 1. Received: {what}={value}")
        self.threshold = threshold
        self.min_kept = min_kept

    def image_loss(self, mask: Any, logits: Any) -> Any:
        entropy = tf.where(is_valid(mask), tf.stop_gradient(cross_entropy(mask, logits)), -1.0)  # ignored: the easiest
        return self.mean_entropy(mask, logits, tf.cast(self._hard(entropy), tf.float32))

    def _hard(self, entropy: Any) -> Any:
        """The pixels that count, boolean; `entropy` is negative where a pixel is ignored."""
        hardest = tf.sort(tf.reshape(entropy, [-1]), direction="DESCENDING")
        valid = tf.reduce_sum(tf.cast(entropy >= 0, tf.float32))
        kept = tf.cast(tf.math.ceil(self.min_kept * valid), tf.int32)
        last = tf.where(kept > 0, hardest[tf.maximum(kept, 1) - 1], inf)
        return (entropy > (-log(self.threshold) if self.threshold else inf)) | (entropy >= last)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold, "min_kept": self.min_kept}


class OverlapLoss(ImageLoss):
    """Base of losses of overlap: a weighted mean over the classes in an image's mask; a subclass gives `class_losses`.

    Args:
        cross_entropy: factor of the image's mean cross-entropy, which is added; 0 for none.
        class_weights: weight of each class in the mean over classes, and of its pixels in the cross-entropy, or None
            for 1.
    """

    def __init__(
        self,
        cross_entropy: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        if not 0 <= cross_entropy < inf:
            raise InputError(f"cross_entropy must be finite and not negative. Received: cross_entropy={cross_entropy}")
        self.cross_entropy = cross_entropy

    def class_losses(self, classes: Any, probability: Any, present: Any) -> Any:
        """The loss of each class, (C,) float32; what absent classes have is of no meaning.

        Args:
            classes: (P,) int32, -1 for ignored pixels.
            probability: (C, P) softmax probability, float32, 0 for ignored pixels.
            present: (C,) bool, whether any pixel is of a class.
        """
        raise NotImplementedError

    def image_loss(self, mask: Any, logits: Any) -> Any:
        count = logits.shape[-1]
        classes = tf.reshape(tf.where(is_valid(mask), classes_of(mask), -1), [-1])
        present = tf.reduce_any(classes == tf.range(count)[:, None], axis=1)
        probability = tf.transpose(tf.reshape(tf.nn.softmax(logits), [-1, count])) * tf.cast(classes >= 0, tf.float32)
        losses = tf.where(present, self.class_losses(classes, probability, present), 0.0)
        weights = tf.cast(present, tf.float32)
        if self.class_weights is not None:
            weights *= tf.constant(self.class_weights, tf.float32)
        overlap = tf.math.divide_no_nan(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))
        if not self.cross_entropy:
            return overlap
        return overlap + self.cross_entropy * self.mean_entropy(mask, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cross_entropy": self.cross_entropy}


@keras.saving.register_keras_serializable(PACKAGE)
class DiceLoss(OverlapLoss):
    """Soft Dice, image by image, over the classes that an image's mask has.

    ``1 - 2·Σ p·g / (Σ p² + Σ g)`` for each class, over the image's valid pixels; p is the softmax probability of the
    class, g is 1 where the mask has it, else 0. An image's loss is the mean over the classes in its mask, each the same
    however small (``Σ w·loss / Σ w`` with class weights), and the step's is the mean over images with a valid pixel, on
    all replicas together. A class that the mask does not have costs by what it takes from the others.

    Args:
        cross_entropy: factor of the image's mean cross-entropy, which is added; 0 for none.
        class_weights: weight of each class in the mean over classes, and of its pixels in the cross-entropy, or None
            for 1.

    Raises:
        InputError: a factor or weights that are negative or not finite.
        tf.errors.InvalidArgumentError: a mask with an id that is no class.

    Reference: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, section 3, for each class.
    """

    def __init__(
        self,
        cross_entropy: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "dice_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(cross_entropy, class_weights, name=name, **kwargs)

    def class_losses(self, classes: Any, probability: Any, present: Any) -> Any:
        truth = tf.one_hot(classes, probability.shape[0], axis=0)  # (C, P), 0 for ignored pixels
        sizes = tf.reduce_sum(probability**2, axis=1) + tf.reduce_sum(truth, axis=1)
        return 1.0 - tf.math.divide_no_nan(2.0 * tf.reduce_sum(probability * truth, axis=1), sizes)


@keras.saving.register_keras_serializable(PACKAGE)
class LovaszLoss(OverlapLoss):
    """Lovász-softmax, the smooth extension of ``1 - IoU``, image by image, over the classes that an image's mask has.

    For each class, a pixel's error is m = 1 - p where the mask has the class, else p, of valid pixels. The loss is
    ``Σ m_i·(J_i - J_(i-1))`` over errors that fall, where J_i = 1 - IoU if the first i pixels are wrong and the others
    right. An image's loss is the mean over the classes in its mask (``Σ w·loss / Σ w`` with class weights), and the
    step's is the mean over images with a valid pixel, on all replicas together.

    Args:
        cross_entropy: factor of the image's mean cross-entropy, which is added; 0 for none.
        class_weights: weight of each class in the mean over classes, and of its pixels in the cross-entropy, or None
            for 1.

    Raises:
        InputError: a factor or weights that are negative or not finite.
        tf.errors.InvalidArgumentError: a mask with an id that is no class.

    Reference: Berman et al. 2018, https://arxiv.org/abs/1705.08790, equations 9 to 11, per image, present classes.
    """

    def __init__(
        self,
        cross_entropy: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "lovasz_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(cross_entropy, class_weights, name=name, **kwargs)

    def class_losses(self, classes: Any, probability: Any, present: Any) -> Any:
        def one(each: tuple[Any, Any, Any]) -> Any:
            index, probability, present = each

            def loss(probability: Any) -> Any:
                truth = tf.cast(classes == index, tf.float32)
                return tf.cond(present, lambda: jaccard_extension(truth, probability), lambda: tf.constant(0.0))

            return tf.recompute_grad(loss)(probability)

        each = tf.range(probability.shape[0]), probability, present
        return tf.map_fn(one, each, fn_output_signature=tf.float32)


def jaccard_extension(truth: Float32[tf.Tensor, "pixels"], probability: Float32[tf.Tensor, "pixels"]) -> Any:
    """The Lovász extension of ``1 - IoU`` of one class that the mask has.

    Args:
        truth: 1 where the mask has the class, else 0.
        probability: of the class; 0 for ignored pixels, which so add nothing.
    """
    errors = tf.abs(truth - probability)
    errors, order = tf.math.top_k(errors, k=tf.shape(errors)[0])
    truth = tf.gather(truth, order)
    intersection = tf.reduce_sum(truth) - tf.cumsum(truth)
    union = tf.reduce_sum(truth) + tf.cumsum(1.0 - truth)
    # J_i - J_(i-1) by one fraction, for the two are too close to subtract: either the intersection has become 1 less,
    # or the union 1 more.
    growth = tf.where(truth > 0, 1.0 / union, intersection / (union * tf.maximum(union - 1.0, 1.0)))
    return tf.reduce_sum(errors * tf.stop_gradient(growth))
