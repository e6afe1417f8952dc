"""Augmentation of image and mask together, in the authors' order; every step is a pure function of its seed.

Images are (H, W, 3) float32 RGB 0..255 until they are normalized; masks are (H, W) uint8, resampled to the nearest
pixel. Seeds are two integers.
Order and ranges: arXiv 2105.15203, section 4.1, and the authors' data pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any, TypeAlias

import tensorflow as tf
from jaxtyping import Bool, Float32, Int, UInt8

from segformer_tf.config import normalize
from segformer_tf.labels import IGNORE_ID

Tensor: TypeAlias = tf.Tensor
Seed: TypeAlias = Int[Tensor, "2"]
Class: TypeAlias = Int[Tensor, ""]
Image: TypeAlias = Float32[Tensor, "height width 3"]
Mask: TypeAlias = UInt8[Tensor, "height width"]
Pair: TypeAlias = tuple[Image, Mask]  # of one size
NewPair: TypeAlias = tuple[Float32[Tensor, "new_height new_width 3"], UInt8[Tensor, "new_height new_width"]]
Images: TypeAlias = Float32[Tensor, "batch height width 3"]
Masks: TypeAlias = UInt8[Tensor, "batch height width"]
Normalize = Callable[[Any], Any]  # `SegFormerConfig.normalize` on float32 images

CROP_TRIES = 10


def augment(
    image: UInt8[Tensor, "height width 3"],
    mask: Mask,
    seed: Seed,
    *,
    crop: tuple[int, int],
    scale: tuple[float, float],
    base: tuple[int, int] | None = None,
    stretch: float = 1.0,
    color: float = 1.0,
    normalize: Normalize = normalize,
    held: Class | None = None,
) -> NewPair:
    """Scale jitter, random crop, flip, photometric distortion, normalization, padding.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        seed: (2,) integers; the same seed gives the same result.
        crop: (height, width) of the result.
        scale: range of the factor on the image's own size, or on `base`.
        base: (long side, short side) to fit every image into first, or None.
        stretch: see `scale_jitter`.
        color: see `photometric_distortion`.
        normalize: of the network's configuration.
        held: a class that the crop is to show, see `random_crop`.

    Returns:
        (*crop, 3) float32 normalized image, (*crop) uint8 mask.
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)
    image, mask = scale_jitter(tf.cast(image, tf.float32), mask, seeds[0], scale=scale, base=base, stretch=stretch)
    image, mask = random_crop(image, mask, seeds[1], crop=crop, held=held)
    image, mask = random_flip(image, mask, seeds[2])
    image = normalize(photometric_distortion(image, seeds[3], color=color))
    return pad(image, mask, crop=crop)


def scale_jitter(
    image: Image,
    mask: Mask,
    seed: Seed,
    *,
    scale: tuple[float, float],
    base: tuple[int, int] | None = None,
    stretch: float = 1.0,
) -> NewPair:
    """Resize both by one factor, or by one for each side; bilinear image without antialiasing, nearest mask.

    The factor is uniform in `scale`. With `base` it is the largest that fits into `base` times a factor uniform in
    `scale`, as in mmcv's ``Resize(img_scale=base, ratio_range=scale)``. With a `stretch` above 1 the scale of the width
    over that of the height is then log-uniform in ``1 / stretch..stretch``, at the same area.
    """
    factor = tf.random.stateless_uniform((), seed, *scale)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    if base is not None:
        long_side, short_side = (tf.floor(side * factor) for side in base)
        factor = tf.minimum(long_side / tf.reduce_max(size), short_side / tf.reduce_min(size))
    if stretch > 1:
        draw = tf.random.stateless_uniform((), tf.random.experimental.stateless_fold_in(seed, 1), -1.0, 1.0)
        root = tf.exp(draw * (log(stretch) / 2))
        factor *= tf.stack([1 / root, root])
    size = tf.maximum(tf.cast(tf.floor(size * factor + 0.5), tf.int32), 1)
    return tf.image.resize(image, size), tf.image.resize(mask[..., None], size, method="nearest")[..., 0]


def random_crop(image: Image, mask: Mask, seed: Seed, *, crop: tuple[int, int], held: Class | None = None) -> NewPair:
    """The same random window of both, smaller than `crop` where they are smaller.

    A window in which one class has 75 % or more of the valid pixels is drawn again, up to `CROP_TRIES` times. With a
    class `held` that the mask shows, a window is a random one of those around a random pixel of that class.
    """
    size = tf.minimum(tf.shape(mask), crop)
    lowest, highest = tf.zeros_like(size), tf.shape(mask) - size
    draws = tf.random.stateless_uniform((CROP_TRIES + 1, 2), seed)
    if held is not None:
        pixels = tf.cast(tf.where(tf.cast(mask, tf.int32) == held), tf.int32)  # (N, 2)
        picks = tf.random.stateless_uniform((CROP_TRIES + 1,), tf.random.experimental.stateless_fold_in(seed, 1))

    def bounds(i: Any) -> Any:
        """The first and the last window that may be drawn, by their upper left corners."""
        if held is None:
            return lowest, highest
        count = tf.shape(pixels)[0]
        pick = tf.minimum(tf.cast(picks[i] * tf.cast(count, tf.float32), tf.int32), count - 1)
        pixel = tf.cond(count > 0, lambda: pixels[pick], lambda: lowest)
        first, last = tf.maximum(pixel - size + 1, lowest), tf.minimum(pixel, highest)
        return first, tf.where(count > 0, last, highest)

    def window(i: Any) -> Any:
        first, last = bounds(i)
        return first + tf.cast(draws[i] * tf.cast(last - first + 1, tf.float32), tf.int32)

    def one_class(i: Any) -> Any:
        counts = tf.math.bincount(tf.cast(tf.reshape(tf.slice(mask, window(i), size), [-1]), tf.int32), minlength=256)
        largest, valid = tf.reduce_max(counts[:IGNORE_ID]), tf.reduce_sum(counts[:IGNORE_ID])
        return (4 * largest >= 3 * valid) & (i < CROP_TRIES)

    (chosen,) = tf.while_loop(one_class, lambda i: (i + 1,), (0,))
    offset = window(chosen)
    image = tf.slice(image, tf.concat([offset, [0]], 0), tf.concat([size, [3]], 0))
    return image, tf.slice(mask, offset, size)


def random_flip(image: Image, mask: Mask, seed: Seed) -> Pair:
    """Mirror both left to right with probability 0.5."""
    flip = coin(seed)
    return tf.where(flip, image[:, ::-1], image), tf.where(flip, mask[:, ::-1], mask)


def photometric_distortion(image: Image, seed: Seed, *, color: float = 1.0) -> Image:
    """Brightness ±32, contrast 0.5..1.5, saturation 0.5..1.5, hue ±18 of 180, each with probability 0.5.

    `color` is a factor on these ranges, 0 for no change; contrast and saturation fall to 0.1 at the lowest. Contrast
    comes before or after saturation and hue by a coin flip. Values stay in 0..255.
    """
    if not color:
        return image
    coins, values = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    do = tf.unstack(tf.random.stateless_uniform((5,), coins) < 0.5)
    brightness, contrast, saturation, hue = tf.unstack(tf.random.stateless_uniform((4,), values, -1.0, 1.0) * color)
    contrast, saturation = tf.maximum(contrast, -1.8), tf.maximum(saturation, -1.8)

    def add_contrast(x: Any) -> Any:
        return _clip(x * tf.where(do[1], 1.0 + 0.5 * contrast, 1.0))

    def adjust_color(x: Any) -> Any:
        x = tf.image.adjust_saturation(x / 255.0, tf.where(do[2], 1.0 + 0.5 * saturation, 1.0))
        return _clip(tf.image.adjust_hue(x, tf.where(do[3], 0.1 * hue, 0.0)) * 255.0)

    image = _clip(image + tf.where(do[0], 32.0 * brightness, 0.0))
    image = tf.cond(do[4], lambda: add_contrast(image), lambda: image)
    image = tf.cond(do[2] | do[3], lambda: adjust_color(image), lambda: image)
    return tf.cond(do[4], lambda: image, lambda: add_contrast(image))


def pad(image: Image, mask: Mask, *, crop: tuple[int, int]) -> NewPair:
    """Pad to `crop` at the right and bottom: the image with 0, the mean color, the mask with `IGNORE_ID`."""
    missing = tf.maximum(crop - tf.shape(mask), 0)
    border = tf.stack([tf.zeros(2, tf.int32), missing], axis=1)  # (2, 2): before, after
    image = tf.pad(image, tf.concat([border, [[0, 0]]], 0))
    mask = tf.pad(mask, border, constant_values=tf.constant(IGNORE_ID, mask.dtype))
    return tf.ensure_shape(image, (*crop, 3)), tf.ensure_shape(mask, crop)


def mix_classes(images: Images, masks: Masks, seeds: Int[Tensor, "batch 2"], *, share: float) -> tuple[Images, Masks]:
    """Paste half of the classes that the sample before it shows over a sample: image and mask, at the same place.

    The first sample takes from the last one. Of an odd number of classes it is the larger half. Pixels of `IGNORE_ID`
    are of no class and are never pasted. Source: ClassMix, arXiv 2007.07936.

    Args:
        images: (B, H, W, 3) float32.
        masks: (B, H, W) uint8.
        seeds: (B, 2) integers, of each sample.
        share: probability that a sample is pasted over.
    """
    others, other_masks = tf.roll(images, 1, 0), tf.roll(masks, 1, 0)

    def draws_of(seed: Seed) -> Any:
        return tf.random.stateless_uniform((IGNORE_ID + 1,), tf.random.experimental.stateless_fold_in(seed, 1))

    draws = tf.map_fn(draws_of, seeds, fn_output_signature=tf.float32)  # (B, 256): of each class, and whether at all
    ids = tf.cast(other_masks, tf.int32)
    flat = tf.reshape(ids, [tf.shape(ids)[0], -1])
    shown = tf.math.bincount(flat, minlength=IGNORE_ID, maxlength=IGNORE_ID, axis=-1) > 0  # (B, 255)
    order = tf.where(shown, draws[:, :IGNORE_ID], 2.0)
    rank = tf.argsort(tf.argsort(order))
    half = (tf.reduce_sum(tf.cast(shown, tf.int32), -1, keepdims=True) + 1) // 2
    chosen = (rank < half) & (draws[:, IGNORE_ID:] < share)
    pasted = tf.gather(tf.pad(chosen, [[0, 0], [0, 1]]), ids, batch_dims=1)  # (B, H, W)
    return tf.where(pasted[..., None], others, images), tf.where(pasted, other_masks, masks)


def coin(seed: Seed) -> Bool[Tensor, ""]:
    """A boolean that is true half of the time."""
    return tf.random.stateless_uniform((), seed) < 0.5


def _clip(image: Image) -> Image:
    return tf.clip_by_value(image, 0.0, 255.0)
