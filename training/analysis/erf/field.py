"""Measures effective receptive fields, of any network with named outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from segformer_tf.errors import InputError

Outputs = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Field:
    """The effective receptive field of the middle of one output.

    Attributes:
        density: (H, W) float64 over the image's pixels, 0 or more, of sum 1.
    """

    density: NDArray[np.float64]

    def share(self, side: float) -> float:
        """What lies within the centered square of `side` pixels, 0..1; only pixels that are wholly inside count."""
        return float(self.density[_sides(self.density.shape) <= side].sum())

    def side(self, share: float) -> int:
        """The side in pixels of the smallest centered square that holds `share` (0..1); it may leave the image."""
        sides = _sides(self.density.shape)
        mass = np.bincount(sides.ravel(), self.density.ravel()).cumsum()
        return int(np.searchsorted(mass, share * mass[-1] * (1 - 1e-12)))  # sums in another order differ in bits


def effective_receptive_field(outputs: Outputs, images: Iterable[NDArray[Any]]) -> dict[str, Field]:
    """How much each pixel moves the middle of each output of a network, averaged over images.

    For each image and output the gradient of the middle cell with respect to the pixels is taken, of the channels'
    sum under random signs; its length over the color channels is scaled to a sum of 1, so that each image counts the
    same; and the mean over the images is the field. The signs make channels count by the length of their gradients: a
    plain sum over channels, which is common, is constant behind a LayerNorm of fresh weights, and has no gradient.

    Where a grid has an even number of cells there is no middle one: then the two at either side of the image's center
    are taken, four where both sides are even, each with signs of its own. So the choice never prefers a side. With
    images of 64·n + 1 pixels a side (such as 513x769) each grid of SegFormer, and of most networks with padded strided
    convolutions, has a middle cell, and it lies over the middle pixel.

    Args:
        outputs: a Keras model, or another function of TensorFlow operations, in inference mode: from (1, H, W, 3)
            float32 to a dictionary of (1, h, w, C), any h, w and C.
        images: (H, W, 3) each, as `outputs` takes them, all of one size. For a mean that settles take 30 or more.

    Returns:
        The field of each output, by its name, in the dictionary's order.

    Raises:
        InputError: no image, images of several sizes, or a gradient that is zero or not finite.

    Source: Luo et al. 2016, arXiv 1701.04128; arXiv 2105.15203, section 3.3 and figure 3.

    Examples:
        >>> layers = {"stage4": backbone.get_layer("conv5").output, "decoder": model.get_layer("head").output}
        >>> fields = effective_receptive_field(keras.Model(model.input, layers), images)
        >>> fields["stage4"].side(0.5)
        187
    """
    mean = FieldMean(outputs)
    for image in images:
        mean.add(image)
    return mean.fields()


class FieldMean:
    """`effective_receptive_field` as images come in.

    Attributes:
        images: number of images so far.

    Args:
        outputs: as there.
    """

    def __init__(self, outputs: Outputs) -> None:
        self.images = 0
        self._gradients = tf.function(lambda image, seed: center_gradients(outputs, image, seed))
        self._total: dict[str, NDArray[np.float64]] = {}

    def add(self, image: NDArray[Any]) -> None:
        """Take one more image, (H, W, 3); raises InputError as `effective_receptive_field`."""
        size = next((total.shape for total in self._total.values()), image.shape[:2])
        if image.shape[:2] != size:
            raise InputError(f"images must have one size. Received: {size} and {image.shape[:2]}")
        seed = tf.constant([self.images, 0], tf.int32)
        gradients = self._gradients(tf.constant(image[None], tf.float32), seed)
        lengths = {name: np.linalg.norm(np.asarray(each, np.float64), axis=-1) for name, each in gradients.items()}
        for name, length in lengths.items():
            if not 0 < length.sum() < np.inf:
                kind = "zero everywhere" if length.sum() == 0 else "not of finite numbers"
                raise InputError(f"the gradient of {name} is {kind} for image {self.images}, counted from 0")
        total = {name: self._total.get(name, 0.0) + length / length.sum() for name, length in lengths.items()}
        self._total, self.images = total, self.images + 1  # at once: Ctrl-C may come anywhere

    def fields(self) -> dict[str, Field]:
        """The fields so far; raises InputError without an image."""
        if not self.images:
            raise InputError("an effective receptive field needs at least one image")
        return {name: Field(total / self.images) for name, total in self._total.items()}


def centered_size(size: tuple[int, int]) -> tuple[int, int]:
    """The next larger (height, width) of 64·n + 1 pixels each, where SegFormer's grids are centered."""
    height, width = (64 * max(1, ceil((side - 1) / 64)) + 1 for side in size)
    return height, width


def center_gradients(outputs: Outputs, image: Any, seed: Any) -> dict[str, Any]:
    """The gradients of the middle of each output, under `signs`.

    Args:
        outputs: as of `effective_receptive_field`.
        image: (1, H, W, 3).
        seed: (2,) int32.

    Returns:
        (H, W, 3) for each output.
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(image)
        sums = {}
        for name, output in outputs(image).items():
            height, width = tf.unstack(tf.shape(output)[1:3])
            middle = tf.convert_to_tensor(output)[0, _middle(height), _middle(width)]
            sums[name] = tf.reduce_sum(middle * signs(seed, tf.shape(middle), middle.dtype))
    return {name: tape.gradient(total, image, unconnected_gradients="zero")[0] for name, total in sums.items()}


def signs(seed: Any, shape: Any, dtype: Any) -> Any:
    """Random -1 and 1, of the same `seed` always the same."""
    return tf.cast(2 * tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32) - 1, dtype)


def _middle(cells: Any) -> slice:
    return slice((cells - 1) // 2, cells // 2 + 1)


def _sides(size: tuple[int, ...]) -> NDArray[np.int64]:
    """The side of the smallest centered square that each pixel is wholly inside of, (H, W)."""
    rows, columns = (np.abs(2 * np.arange(side) - (side - 1)) + 1 for side in size)
    sides: NDArray[np.int64] = np.maximum(rows[:, None], columns[None])
    return sides
