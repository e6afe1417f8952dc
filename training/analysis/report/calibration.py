"""Whether a network is as often right as it is sure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15
_AT_ONCE = 1 << 20  # pixels; a photo of 24 megapixels would take half a gigabyte in one piece


class Calibration:
    """Counts pixels by their confidence, in `BINS` bins of equal width.

    Attributes:
        pixels, right: (BINS,) int64, all pixels and those whose class is right.
        confidence: (BINS,) float64, the sum over the pixels of each bin.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    def __init__(self) -> None:
        self.pixels, self.right = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.confidence = np.zeros(BINS)

    def add(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Count pixels, of any one shape; confidences are 0..1."""
        flat, hits = confidence.ravel(), right.ravel()
        for start in range(0, flat.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            sure = flat[part].astype(np.float64)
            place = np.minimum((sure * BINS).astype(np.intp), BINS - 1)
            self.pixels += np.bincount(place, minlength=BINS)
            self.right += np.bincount(place[hits[part]], minlength=BINS)
            self.confidence += np.bincount(place, sure, minlength=BINS)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(BINS,) share of right pixels, 0..1; nan for an empty bin."""
        return _mean(self.right.astype(np.float64), self.pixels)

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """(BINS,) mean over the pixels, 0..1; nan for an empty bin."""
        return _mean(self.confidence, self.pixels)

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1: mean over pixels of what parts accuracy and confidence in their bin."""
        total = self.pixels.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else float("nan")

    @property
    def bias(self) -> float:
        """Mean confidence less accuracy, -1..1: above 0 where the network is too sure."""
        total = self.pixels.sum()
        return float((self.confidence.sum() - self.right.sum()) / total) if total else float("nan")


def _mean(total: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
