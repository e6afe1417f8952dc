"""Pixels of each class in a sample of a split's masks, for class weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segformer_tf.sampling import evenly_spaced
from training.data.source import Source

_SAMPLED = 500


def sampled_indices(count: int) -> list[int]:
    """Up to 500 evenly chosen samples of `count`."""
    return evenly_spaced(range(count), _SAMPLED)


def sampled_pixels(source: Source) -> NDArray[np.int64]:
    """(C,) int64, what the check of a folder's masks counts by the way."""
    count = len(source.labels.names)
    pixels = np.zeros(count, np.int64)
    for i in sampled_indices(len(source)):
        pixels += np.bincount(source[i][1].ravel(), minlength=256)[:count]
    return pixels
