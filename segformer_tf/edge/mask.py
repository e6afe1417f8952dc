"""Logits at 1/4 -> class mask at the image's own size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 24  # full-resolution logits held at a time


def logits_to_mask(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Arg-max of one half-pixel bilinear resize, computed in blocks of rows.

    Arg-max before the resize would be another mask: the 1/4 grid would show.

    Args:
        logits: (h, w, C) float, C up to 255.
        size: (height, width) of the mask.

    Returns:
        (height, width) uint8 class ids.

    Raises:
        ValueError: logits of another rank or class count, or a size that is not positive.
    """
    if logits.ndim != 3 or not 1 <= logits.shape[2] <= 255:
        raise ValueError(f"expected logits (h, w, C) with C in 1..255. Received: {logits.shape}")
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"expected a positive size. Received: {height}x{width}")
    mask = np.empty(size, np.uint8)
    for rows, block in resized_rows(logits, size):
        mask[rows] = block.argmax(-1)
    return mask


def resized_rows(logits: NDArray[np.float32], size: tuple[int, int]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The half-pixel bilinear resize that `logits_to_mask` takes the arg-max of, some rows at a time.

    Args:
        logits: (h, w, C) float.
        size: (height, width) to resize to.

    Yields:
        Which rows, and their (rows, width, C) float32, the caller's to change.
    """
    height, width = size
    logits = np.asarray(logits, np.float32)
    top, bottom, down = _taps(logits.shape[0], height)
    left, right, across = _taps(logits.shape[1], width)
    rows = max(1, _BLOCK_BYTES // (4 * width * logits.shape[2]))
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        upper, lower = logits[top[part]], logits[bottom[part]]
        row = upper + (lower - upper) * down[part, None, None]  # (rows, w, C)
        before, after = row[:, left], row[:, right]
        yield part, before + (after - before) * across[:, None]


def _taps(size_in: int, size_out: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The two source indices of every output position, and the weight of the second."""
    position = np.clip((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0, size_in - 1)
    first = np.floor(position).astype(np.intp)
    return first, np.minimum(first + 1, size_in - 1), (position - first).astype(np.float32)
