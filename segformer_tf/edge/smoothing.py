"""Calmer masks of a video: the mean of the scores of its frames, the latest counting most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError


class MovingAverage:
    """An exponential moving average of scores, pixel by pixel.

    Each call returns ``smooth * before + (1 - smooth) * scores``; what is older than ``1 / (1 - smooth)`` frames hardly
    counts. The first scores are returned as they are, and so are those after a mean that is not finite, which no later
    ones would mend.

    Args:
        smooth: weight of the past, from 0, which changes nothing, to below 1.

    Attributes:
        smooth: as given.
        latest: the scores of the last call, not averaged.

    Raises:
        InputError: a weight out of range.
    """

    def __init__(self, smooth: float) -> None:
        if not 0 <= smooth < 1:
            raise InputError(f"smooth is the weight of earlier frames, 0 to below 1. Received: {smooth:g}")
        self.smooth = smooth
        self.latest: NDArray[np.float32] | None = None
        self._mean: NDArray[np.float32] | None = None

    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean so far, (h, w, C) float32 as the scores; the caller must not change it."""
        self.latest = scores
        if not self.smooth:
            return scores
        if self._mean is None or not np.isfinite(self._mean).all():
            self._mean = scores.copy()
        else:
            self._mean *= np.float32(self.smooth)
            self._mean += np.float32(1 - self.smooth) * scores
        return self._mean
