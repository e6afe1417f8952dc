"""How large the things in a mask are, measured on the network's grid of 1/4."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.labels import IGNORE_ID

CELL = 4  # pixels of the image that a cell's side covers


def regions(mask: NDArray[np.uint8], count: int) -> dict[int, NDArray[np.int64]]:
    """Pixels of each connected region of each class that an (H, W) mask shows; corners connect.

    Args:
        mask: classes below `count`, and others.
        count: number of classes.
    """
    from scipy import ndimage  # an extra

    boxes = ndimage.find_objects(mask.astype(np.int32) + 1, max_label=count)
    areas = {}
    for i, box in enumerate(boxes):
        if box is not None:
            numbers, _ = ndimage.label(mask[box] == i, structure=np.ones((3, 3), np.int8))
            areas[i] = np.bincount(numbers.ravel())[1:]
    return areas


def through_grid(mask: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """What is left of a mask once its classes were averaged over the cells of the grid and enlarged again.

    Returns:
        (2, C) int64: for each class, the pixels in both masks, and those in either; ignored ones are left out.
    """
    height, width = mask.shape
    grid = ceil(width / CELL), ceil(height / CELL)
    most, coarse = np.full(mask.shape, -1, np.int16), np.zeros(mask.shape, np.uint8)
    for i in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:count]):
        share = Image.fromarray((mask == i).astype(np.uint8) * 255).resize(grid, Image.Resampling.BOX)
        back = np.asarray(share.resize((width, height), Image.Resampling.BILINEAR))
        coarse[back > most] = i
        most = np.maximum(most, back)
    counts = mask != IGNORE_ID
    truth, guess = mask[counts], coarse[counts]
    both = np.bincount(truth[truth == guess], minlength=256)[:count]
    either = np.bincount(truth, minlength=256)[:count] + np.bincount(guess, minlength=256)[:count] - both
    return np.stack([both, either])
