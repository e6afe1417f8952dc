"""Which sample comes next: in passes over all of them, or by class. A function of the seed and the sample's number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Bool

from segformer_tf.errors import InputError

NO_CLASS = -1


def shuffled(number: Any, count: Any, keys: Sequence[Any]) -> Any:
    """Item `number` of an endless sequence of passes over 0..count - 1, each pass in its own order.

    Args:
        number, count: int64.
        keys: integers; others give another sequence.
    """
    key, *more = (tf.cast(each, tf.int64) for each in keys)
    seed = tf.stack([key, tf.cast(number // count, tf.int64)])
    for each in more:
        seed = tf.random.experimental.stateless_fold_in(seed, each)
    return tf.random.experimental.index_shuffle(number % count, seed, count - 1)


class ClassBalance:
    """Draws a share of the samples by class: a class in its turn, then an image that shows it in that image's turn.

    Each class that any mask shows comes equally often, and each image of a class as often as the others of that class.
    The samples in between pass over all images, as they do without it.

    Source: the rare class sampling of DAFormer (arXiv 2111.14887, section 3.3), which draws classes by
    ``softmax((1 - frequency) / T)``; this is its limit for large T, without dice.

    Args:
        shown: whether a mask shows a class.
        share: of the samples that are drawn by class, 0..1.

    Raises:
        InputError: no mask shows any class.
    """

    def __init__(self, shown: Bool[np.ndarray, "samples classes"], share: float) -> None:
        if not shown.any():
            raise InputError("--balance: no mask shows any class")
        self.count, self.share = len(shown), share
        self._classes = np.flatnonzero(shown.any(axis=0))
        self._counts = shown.sum(axis=0)[self._classes]
        self._starts = np.cumsum(self._counts) - self._counts
        self._samples = np.concatenate([np.flatnonzero(shown[:, each]) for each in self._classes])

    def draw(self, number: Any, *, seed: int) -> tuple[Any, Any]:
        """Sample `number`, int64: its index, int64, and the class that it was drawn for or `NO_CLASS`, int32."""
        drawn, after = (self._drawn_before(number + i) for i in (0, 1))
        position = shuffled(drawn, len(self._classes), [seed, 1])
        turn, count = drawn // len(self._classes), _at(self._counts, position)
        sample = _at(self._starts, position) + shuffled(turn, count, [seed, 2, position])
        by_class, in_passes = _at(self._samples, sample), shuffled(number - drawn, self.count, [seed])
        held = tf.cast(_at(self._classes, position), tf.int32)
        return tf.where(after > drawn, by_class, in_passes), tf.where(after > drawn, held, NO_CLASS)

    def _drawn_before(self, number: Any) -> Any:
        return tf.cast(tf.floor(tf.cast(number, tf.float64) * self.share), tf.int64)


def _at(table: Any, index: Any) -> Any:
    return tf.gather(tf.constant(table, tf.int64), index)
