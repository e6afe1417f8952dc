"""Augmentation of a batch on the accelerator, by the rules of `training.data.augment`, and mixing of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.labels import IGNORE_ID

TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image.

    Attributes:
        crop: (height, width) of the result.
        scale: range of the factor on the image's own size.
        log_scale: whether the factor's logarithm is uniform, rather than the factor.
        stretch: largest factor between the scales of width and height, either way; 1 for none.
        color: factor on the ranges of the photometric distortion.
        grayscale: probability of a gray image.
        classes: of the masks.
        mix: probability that half of another image's classes are pasted over (ClassMix, arXiv 2007.07936).
    """

    crop: tuple[int, int]
    scale: tuple[float, float]
    classes: int
    log_scale: bool = False
    stretch: float = 1.0
    color: float = 1.0
    grayscale: float = 0.0
    mix: float = 0.0


def augment_batch(images: Any, masks: Any, sizes: Any, points: Any, key: Any, how: Augmentation) -> tuple[Any, Any]:
    """Normalized crops (B, *crop, 3) float32 and masks (B, *crop) uint8.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        masks: (B, H, W) uint8.
        sizes: (B, 2) int32, height and width of each image, which is filled up below and to the right.
        points: (B, 2) int32, a (row, column) that each crop must hold, or -1.
        key: of this batch.
        how: options.
    """
    keys = jax.random.split(key, images.shape[0])
    images, masks = jax.vmap(lambda *each: _one(*each, how=how))(images, masks, sizes, points, keys)
    if how.mix:
        images, masks = _mix_classes(images, masks, jax.random.fold_in(key, 1), how)
    return (images - jnp.array(IMAGE_MEAN)) / jnp.array(IMAGE_STD), masks


def _one(image: Any, mask: Any, sides: Any, point: Any, key: Any, *, how: Augmentation) -> tuple[Any, Any]:
    scaling, stretching, cropping, flipping, coloring = jax.random.split(key, 5)
    low, high = how.scale
    if how.log_scale:
        factor = jnp.exp(jax.random.uniform(scaling, (), minval=jnp.log(low), maxval=jnp.log(high)))
    else:
        factor = jax.random.uniform(scaling, (), minval=low, maxval=high)
    ratio = jnp.exp(jax.random.uniform(stretching, (), minval=-1.0, maxval=1.0) * jnp.log(how.stretch) / 2)
    image, mask = _crop(image, mask, sides, point, cropping, jnp.stack([factor / ratio, factor * ratio]), how)
    flip = jax.random.bernoulli(flipping)
    image, mask = (jnp.where(flip, each[:, ::-1], each) for each in (image, mask))
    return jnp.where((mask < 0)[..., None], jnp.array(IMAGE_MEAN), distort(image, coloring, how)), _as_mask(mask)


def _as_mask(mask: Any) -> Any:
    return jnp.where(mask < 0, IGNORE_ID, mask).astype(jnp.uint8)


def _crop(image: Any, mask: Any, sides: Any, point: Any, key: Any, factors: Any, how: Augmentation) -> tuple[Any, Any]:
    """A window of the scaled pair: bilinear image, nearest mask as int32, -1 beyond the border.

    The first of `TRIES` windows in which no class has three quarters of the valid pixels, on a coarse grid.
    """
    crop, scaled = how.crop, jnp.floor(sides * factors + 0.5)
    size = jnp.minimum(scaled, jnp.array(crop))
    at = jnp.floor((point + 0.5) * factors)
    held = point[0] >= 0
    first = jnp.where(held, jnp.maximum(at - size + 1, 0), 0)
    last = jnp.where(held, jnp.minimum(at, scaled - size), scaled - size)
    draws = jax.random.uniform(key, (TRIES + 1, 2))
    offsets = first + jnp.floor(draws * (last - first + 1))  # (tries, 2)

    def sources(offset: Any, axis: int, step: int = 1) -> tuple[Any, Any]:
        """Coordinates in the image of the window's rows or columns, and whether they are within it."""
        place = jnp.arange(0, crop[axis], step)
        return (place + offset[axis] + 0.5) * (sides[axis] / scaled[axis]) - 0.5, place < size[axis]

    def share(offset: Any) -> Any:
        (rows, inside_rows), (columns, inside_columns) = sources(offset, 0, 8), sources(offset, 1, 8)
        seen = mask[_nearest(rows, sides[0])][:, _nearest(columns, sides[1])]
        inside = inside_rows[:, None] & inside_columns[None]
        counts = ((seen == jnp.arange(how.classes)[:, None, None]) & inside).sum((1, 2))
        return counts.max() / jnp.maximum(counts.sum(), 1)

    good = (jax.vmap(share)(offsets) < 0.75).at[TRIES].set(True)
    offset = offsets[jnp.argmax(good)]
    (rows, inside_rows), (columns, inside_columns) = sources(offset, 0), sources(offset, 1)
    inside = inside_rows[:, None] & inside_columns[None]
    pixels = _between(_between(image.astype(jnp.float32), rows, 0, sides[0]), columns, 1, sides[1])
    found = mask[_nearest(rows, sides[0])][:, _nearest(columns, sides[1])].astype(jnp.int32)
    return pixels, jnp.where(inside, found, -1)


def _nearest(places: Any, side: Any) -> Any:
    return jnp.clip(jnp.floor(places + 0.5).astype(jnp.int32), 0, side - 1)


def _between(image: Any, places: Any, axis: int, side: Any) -> Any:
    """Linear interpolation along one axis, the border repeated."""
    places = jnp.clip(places, 0, side - 1)
    below = jnp.floor(places).astype(jnp.int32)
    share = (places - below).reshape([-1 if each == axis else 1 for each in range(3)])
    above = jnp.minimum(below + 1, side - 1)
    return jnp.take(image, below, axis) * (1 - share) + jnp.take(image, above, axis) * share


def distort(image: Any, key: Any, how: Augmentation) -> Any:
    """`training.data.augment.photometric_distortion`, its ranges times `color`."""
    coins, values, gray = jax.random.split(key, 3)
    do = jax.random.bernoulli(coins, 0.5, (5,))
    brightness, contrast, saturation, hue = jax.random.uniform(values, (4,), minval=-1.0, maxval=1.0) * how.color
    contrast, saturation = jnp.maximum(contrast, -1.8), jnp.maximum(saturation, -1.8)
    image = jnp.clip(image + jnp.where(do[0], 32.0 * brightness, 0.0), 0, 255)

    def add_contrast(x: Any, use: Any) -> Any:
        return jnp.where(use, jnp.clip(x * (1 + 0.5 * contrast), 0, 255), x)

    image = add_contrast(image, do[1] & do[4])
    # Saturation and hue in HSV, as TensorFlow's.
    image = image / 255
    value, low = image.max(-1, keepdims=True), image.min(-1, keepdims=True)
    chroma = value - low
    safe = jnp.where(chroma > 0, chroma, 1)
    red, green, blue = jnp.split(image, 3, -1)
    angle = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = angle / 6 + jnp.where(do[3], 0.1 * hue, 0.0)
    strength = jnp.where(value > 0, chroma / jnp.where(value > 0, value, 1), 0)
    strength = jnp.clip(strength * jnp.where(do[2], 1 + 0.5 * saturation, 1.0), 0, 1)
    third = (jnp.array([5.0, 3.0, 1.0]) + angle * 6) % 6
    image = 255 * (value - value * strength * jnp.clip(jnp.minimum(third, 4 - third), 0, 1))
    image = add_contrast(image, do[1] & ~do[4])
    if how.grayscale:
        luma = (image @ jnp.array([0.299, 0.587, 0.114]))[..., None]
        image = jnp.where(jax.random.bernoulli(gray, how.grayscale), luma, image)
    return image


def _mix_classes(images: Any, masks: Any, key: Any, how: Augmentation) -> tuple[Any, Any]:
    """Paste half of the classes of the next image of the batch over each image."""
    others, other_masks = jnp.roll(images, 1, 0), jnp.roll(masks, 1, 0)
    coins, classes = jax.random.split(key)
    batch = masks.shape[0]
    names = jnp.arange(how.classes)
    shown = (other_masks[:, None] == names[:, None, None]).any((2, 3))  # (B, C)
    order = jnp.where(shown, jax.random.uniform(classes, shown.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(order, -1), -1)
    chosen = shown & (rank < (shown.sum(-1, keepdims=True) + 1) // 2)
    chosen &= jax.random.bernoulli(coins, how.mix, (batch, 1))
    over = ((other_masks[:, None] == names[:, None, None]) & chosen[:, :, None, None]).any(1)
    return jnp.where(over[..., None], others, images), jnp.where(over, other_masks, masks)
