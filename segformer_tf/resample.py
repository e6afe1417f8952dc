"""The resize of a picture that is read by windows: Pillow's, without the whole picture in memory."""

from __future__ import annotations

import numpy as np
import PIL
from numpy.typing import NDArray

from segformer_tf.image import Pixels, Reader

_BITS = 22  # of Pillow's fixed-point weights
_TALL_DOWN_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
_READ_BYTES = 8 << 20  # of the picture that are read at a time


class Resized:
    """Pillow's antialiased bilinear resize of a picture, bit by bit as `fit_image`, any part of it.

    The picture is resized across and down, and rounded to 8 bits between the two; weights are rounded to 22 bits. From
    Pillow 13 on, a picture that loses many rows goes down first.

    Args:
        read: gives (rows, columns, 3) uint8 of the picture for slices with both ends.
        size: (height, width) of the picture.
        to: (height, width) to resize to.
    """

    def __init__(self, read: Reader, size: tuple[int, int], to: tuple[int, int]) -> None:
        self._read, self._size, self._to = read, size, to
        self._down_first = _TALL_DOWN_FIRST and 0 < size[0] - to[0] > 2 * (size[1] - to[1])

    def __call__(self, rows: slice, columns: slice) -> Pixels:
        """(rows, columns, 3) uint8 of slices with both ends."""
        if self._size == self._to:
            return self._read(rows, columns)
        left, across = _taps(self._size[1], self._to[1], columns)
        reach = _reach(left, across, self._size[1])
        bytes_per_row = 3 * (reach.stop - reach.start) * self._size[0] / self._to[0]
        step = max(1, int(_READ_BYTES / bytes_per_row))
        out = np.empty((rows.stop - rows.start, len(left), 3), np.uint8)
        for start in range(rows.start, rows.stop, step):
            some = slice(start, min(start + step, rows.stop))
            top, down = _taps(self._size[0], self._to[0], some)
            pixels = self._read(_reach(top, down, self._size[0]), reach)
            if self._down_first:
                pixels = _mean(pixels, top - top[0], down)
            pixels = _mean(pixels.swapaxes(0, 1), left - left[0], across).swapaxes(0, 1)
            if not self._down_first:
                pixels = _mean(pixels, top - top[0], down)
            out[some.start - rows.start : some.stop - rows.start] = pixels
        return out


def _taps(size_in: int, size_out: int, part: slice) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """The first input of each output, and the (outputs, n) weights of the inputs from there on."""
    ratio = size_in / size_out
    reach = max(ratio, 1.0)
    center = (np.arange(part.start, part.stop) + 0.5) * ratio
    first = np.maximum((center - reach + 0.5).astype(np.intp), 0)
    stop = np.minimum((center + reach + 0.5).astype(np.intp), size_in)
    places = first[:, None] + np.arange((stop - first).max())
    weight = np.maximum(1 - np.abs((places - center[:, None] + 0.5) * (1 / reach)), 0)
    weight[places >= stop[:, None]] = 0
    weight /= weight.cumsum(1)[:, -1:]  # added one by one, as Pillow does
    return first, (weight * (1 << _BITS) + 0.5).astype(np.int32)


def _reach(first: NDArray[np.intp], weights: NDArray[np.int32], side: int) -> slice:
    return slice(int(first[0]), min(int(first[-1]) + weights.shape[1], side))


def _mean(pixels: Pixels, first: NDArray[np.intp], weights: NDArray[np.int32]) -> Pixels:
    """Weighted mean along the first axis."""
    total = np.full((len(first), *pixels.shape[1:]), 1 << (_BITS - 1), np.int32)
    for k in range(weights.shape[1]):
        places = np.minimum(first + k, len(pixels) - 1)  # beyond the border the weight is 0
        total += pixels[places] * weights[:, k, None, None]
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)
