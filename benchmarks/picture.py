"""The picture that every contender is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segformer_tf.config import normalize
from segformer_tf.image import Pixels, fit_image

SIZE = (512, 512)


def picture(seed: int = 0) -> Pixels:
    """(*SIZE, 3) uint8 RGB: smooth colors with detail at several scales."""
    rng = np.random.default_rng(seed)
    layers = [fit_image(rng.integers(0, 256, (n, n, 3), np.uint8), SIZE) for n in (3, 9, 33, 129)]
    return np.mean(layers, axis=0).astype(np.uint8)


def normalized(seed: int = 0) -> NDArray[np.float32]:
    """`picture` for a network without normalization inside, (1, 3, *SIZE)."""
    return np.ascontiguousarray(normalize(picture(seed)).transpose(2, 0, 1)[None])
