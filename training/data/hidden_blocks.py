"""Hides square blocks of an image, a pure function of the seed: what masked pretraining looks at and paints.

Source: SimMIM, arXiv 2111.09886, section 3.2: random blocks of 32x32 pixels, 60 % of them.
"""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf
from jaxtyping import Bool, Float32

from training.data.augment import Seed, Tensor

Image: TypeAlias = Float32[Tensor, "height width 3"]  # normalized
Target: TypeAlias = Float32[Tensor, "height width 4"]


def hide_blocks(image: Image, seed: Seed, *, ratio: float, block: int) -> tuple[Image, Target]:
    """The image with blocks hidden, and what they hid.

    A hidden pixel is 0, the mean color, as padding is. SimMIM learns what stands there, one vector in place of a patch;
    MiT's patches overlap, so it must be pixels, and with a constant the network has no second input.

    Returns:
        The image, 0 where it is hidden; and the whole image with a fourth channel, 1 where it is hidden, else 0.
    """
    hidden = tf.cast(hidden_blocks(image.shape[:2], seed, ratio=ratio, block=block), tf.float32)[..., None]
    return image * (1.0 - hidden), tf.concat([image, hidden], axis=-1)


def hidden_blocks(size: tuple[int, int], seed: Seed, *, ratio: float, block: int) -> Bool[Tensor, "height width"]:
    """Which pixels of an image of `size` (height, width) are hidden: whole blocks of a grid from its upper left corner.

    Of the grid's blocks, those that the right and bottom edge cut among them, exactly ``round(ratio * blocks)`` are
    hidden, but at least one, and not all where there are two or more.
    """
    height, width = size
    rows, columns = -(-height // block), -(-width // block)
    blocks = rows * columns
    count = max(1, min(round(ratio * blocks), blocks - 1))
    order = tf.argsort(tf.random.stateless_uniform((blocks,), seed))
    hidden = tf.reshape(tf.argsort(order) < count, (rows, columns))
    whole = tf.repeat(tf.repeat(hidden, block, axis=0), block, axis=1)
    return whole[:height, :width]
