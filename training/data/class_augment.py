"""Augmentation for pretraining, a pure function of image and seed, and the view to validate on.

Images are float32 RGB 0..255 until they are normalized. Source: the random resized crop of Inception (arXiv 1409.4842,
section 6), with the ranges of DeiT and torchvision.
"""

from __future__ import annotations

from math import log
from typing import TypeAlias

import tensorflow as tf
from jaxtyping import Float32, Int32, UInt8

from segformer_tf.config import normalize
from training.data.augment import Seed, Tensor, coin, photometric_distortion

View: TypeAlias = Float32[Tensor, "new_height new_width 3"]

AREA = (0.08, 1.0)  # of the crop, as a share of the image
RATIO = (3 / 4, 4 / 3)  # of the crop, width over height
CROP_TRIES = 10
EVAL_SHARE = 0.875  # side of the center crop, as a share of the resized image's


def training_view(image: UInt8[Tensor, "height width 3"], seed: Seed, *, size: tuple[int, int]) -> View:
    """Random resized crop, flip, photometric distortion, normalization.

    Args:
        image: (H, W, 3) uint8 RGB.
        seed: (2,) integers; the same seed gives the same result.
        size: (height, width) of the result.

    Returns:
        (*size, 3) float32 normalized image.
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    image = _random_view(image, seeds[0], seeds[1], size=size)
    return tf.ensure_shape(normalize(photometric_distortion(image, seeds[2])), (*size, 3))


def true_color_view(image: UInt8[Tensor, "height width 3"], seed: Seed, *, size: tuple[int, int]) -> View:
    """As `training_view`, with the image's own colors."""
    seeds = tf.random.experimental.stateless_split(seed, 3)
    return tf.ensure_shape(normalize(_random_view(image, seeds[0], seeds[1], size=size)), (*size, 3))


def evaluation_view(image: UInt8[Tensor, "height width 3"], *, size: tuple[int, int]) -> View:
    """Resize to just cover ``size / 0.875``, keeping the aspect ratio, crop the center, and normalize.

    Same image and result as `training_view`. For a square, the shorter side becomes ``size / 0.875``.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    factor = tf.reduce_max(tf.constant(size, tf.float32) / EVAL_SHARE / sides)
    covering = tf.maximum(tf.cast(tf.round(sides * factor), tf.int32), size)
    offset = (covering - size) // 2
    image = tf.image.resize(image, covering, antialias=True)
    image = image[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]
    return tf.ensure_shape(normalize(image), (*size, 3))


def _random_view(image: UInt8[Tensor, "height width 3"], place: Seed, mirror: Seed, *, size: tuple[int, int]) -> View:
    """A random window of the image at `size`, mirrored half of the time, not normalized."""
    top, left, height, width = tf.unstack(crop_window(tf.shape(image)[:2], place))
    image = tf.image.resize(image[top : top + height, left : left + width], size, antialias=True)
    return tf.where(coin(mirror), image[:, ::-1], image)


def crop_window(size: Int32[Tensor, "2"], seed: Seed) -> Int32[Tensor, "4"]:
    """A window of random area, shape and place in an image of `size` (height, width), (2,) int32.

    The area is uniform in `AREA`, the ratio log-uniform in `RATIO`. The result is the first of `CROP_TRIES` draws that
    fits, or else the largest window in the center with a ratio within `RATIO`.

    Returns:
        (4,) int32: top, left, height, width.
    """
    sides = tf.cast(size, tf.float32)
    draws = tf.random.stateless_uniform((4, CROP_TRIES), seed)
    area = (AREA[0] + (AREA[1] - AREA[0]) * draws[0]) * tf.reduce_prod(sides)
    ratio = tf.exp(log(RATIO[0]) + (log(RATIO[1]) - log(RATIO[0])) * draws[1])
    windows = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))  # (tries, 2): height, width
    fits = tf.reduce_all((windows >= 1) & (windows <= sides), axis=1)
    first = tf.argmax(fits)
    height, width = tf.unstack(sides)
    within = tf.round(tf.stack([tf.minimum(height, width / RATIO[0]), tf.minimum(width, height * RATIO[1])]))
    any_fits = tf.reduce_any(fits)
    window = tf.where(any_fits, windows[first], tf.maximum(within, 1.0))
    place = tf.where(any_fits, tf.floor(draws[2:, first] * (sides - window + 1)), tf.floor((sides - window) / 2))
    return tf.cast(tf.concat([place, window], axis=0), tf.int32)
