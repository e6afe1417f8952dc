"""Masks as pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segformer_tf.image import Pixels
from segformer_tf.labels import Labels


def colorize(mask: NDArray[np.integer], labels: Labels) -> Pixels:
    """(H, W) class ids to (H, W, 3) uint8 RGB in the labels' colours; `IGNORE_ID` is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(labels.colors)] = labels.colors
    return table[mask]


def overlay(image: Pixels, mask: NDArray[np.integer], labels: Labels, *, alpha: float = 0.55) -> Pixels:
    """The mask's colours over the image, (H, W, 3) uint8; `IGNORE_ID` shows the image, darkened.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) class ids.
        labels: their colours.
        alpha: share of the colour, 0..1.
    """
    mixed = image * np.float32(1 - alpha) + colorize(mask, labels) * np.float32(alpha)
    return np.round(mixed).astype(np.uint8)
