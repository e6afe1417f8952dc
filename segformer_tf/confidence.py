"""How sure a network is of each pixel's class: the probability of the winning class, at the image's own size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segformer_tf.mask import resized_planes


def scores_to_confidence(
    scores: NDArray[np.float32],
    size: tuple[int, int],
    *,
    probabilities: bool = False,
    threshold: float | None = None,
) -> NDArray[np.float32]:
    """The largest softmax of one half-pixel bilinear resize, that of `segformer_tf.mask.logits_to_mask`.

    Softmax before the resize would be another value, and not that of the class in the mask. Some rows are computed at a
    time, so that the resized scores never lie in memory.

    Args:
        scores: (h, w, C) float.
        size: (height, width) of the result, larger or smaller than the grid.
        probabilities: the scores are probabilities; their own largest is taken.
        threshold: of a network of one channel, whose `scores` are 0 and the channel's value less this: p of a
            foreground pixel, 1 - p of the others, where p is the sigmoid of the value, or the value.

    Returns:
        (height, width) float32, 0..1; 0 where scores are not finite.
    """
    confidence = np.empty(size, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # of scores that are not finite
        for rows, block in resized_planes(scores, size):
            if threshold is not None:
                above = block[:, 1]
                value = above + np.float32(threshold)
                foreground = value if probabilities else 1 / (1 + np.exp(-value))
                confidence[rows] = np.where(above > 0, foreground, 1 - foreground)
            elif probabilities:
                confidence[rows] = block.max(1)
            else:
                block -= block.max(1, keepdims=True)
                confidence[rows] = 1 / np.exp(block, out=block).sum(1)
    np.nan_to_num(confidence, copy=False, nan=0)
    return np.clip(confidence, 0, 1, out=confidence)
