"""Sliding windows over a picture of any size: their logits blended, and the mask of that, block by block.

The blend is the mean, over the windows that cover a pixel, of each window's logits upsampled to it. No pixel of it
depends on where blocks begin, so a picture of any size gets the mask that it would get at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from segformer_tf.image import Pixels, Reader
from segformer_tf.mask import Part, Size, part_reach, part_to_mask, resized_part

BLOCK = 256  # rows of a block of the mask; its columns are a multiple of it, or end with the picture
_WINDOWS_BYTES = 96 << 20  # logits of windows that are held for the next blocks
_BLEND_BYTES = 8 << 20  # blended logits that are held at a time

Logits = NDArray[np.float32]
Network = Callable[[Pixels], Logits]  # (H, W, 3) to (h, w, C), a grid over the whole of it


def default_stride(window: Size) -> int:
    """Three quarters of the shorter side, as the paper slides over Cityscapes (1024 and 768)."""
    return max(1, min(window) * 3 // 4)


def scaled_size(size: Size, factor: float) -> Size:
    """Both sides times `factor`, at least 1."""
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def spans(side: int, length: int, stride: int) -> list[slice]:
    """Windows of `length` that cover one side of a picture; the last one is shifted back inside.

    A side that is shorter is taken whole.
    """
    steps = -(-max(side - length, 0) // stride)
    ends = [min(i * stride + length, side) for i in range(steps + 1)]
    return [slice(max(end - length, 0), end) for end in ends]


class SlidingLogits:
    """The blended logits of a picture, any part of them; parts that touch share the windows between them.

    Args:
        network: takes one window, which may be smaller than `window` where the picture is.
        read: gives the picture's pixels.
        size: (height, width) of the picture.
        window: (height, width) of the windows.
        stride: from one to the next, down and across; up to the window's shorter side.
    """

    def __init__(self, network: Network, read: Reader, *, size: Size, window: Size, stride: int) -> None:
        self._network, self._read = network, read
        self.size, self._window, self._stride = size, window, stride
        self._rows, self._columns = (spans(*axis, stride) for axis in zip(size, window, strict=True))
        self._counts = _cover(size[0], self._rows), _cover(size[1], self._columns)
        self._held: dict[tuple[int, int], Logits] = {}  # by the first row and column of the window
        first = self._logits(self._rows[0], self._columns[0])
        self.classes, self._bytes = first.shape[2], first.nbytes

    def part(self, rows: slice, columns: slice) -> Logits:
        """(rows, columns, C) float32 of slices with both ends; holds the logits of the windows there until the next."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        total = np.zeros((*shape, self.classes), np.float32)
        here = list(product(_meeting(self._rows, rows), _meeting(self._columns, columns)))
        at = {(down.start, across.start) for down, across in here}
        self._held = {place: logits for place, logits in self._held.items() if place in at}
        for down, across in here:  # row by row: sums of floats depend on the order
            y, x = _overlap(down, rows), _overlap(across, columns)
            logits = self._logits(down, across)
            block = resized_part(logits, _size(down, across), (_less(y, down.start), _less(x, across.start)))
            total[_less(y, rows.start), _less(x, columns.start)] += block
        total /= (self._counts[0][rows, None] * self._counts[1][columns])[..., None]
        return total

    def lanes(self, size: Size) -> list[slice]:
        """Columns of a mask of `size` in lanes so narrow that the windows at work in one are few enough to hold."""
        ratio = self.size[1] / size[1]
        band = BLOCK * self.size[0] / size[0]
        at_once = (band + self._window[0]) / self._stride + 1  # of each column of windows
        columns = _WINDOWS_BYTES / (self._bytes * at_once)
        widest = max(BLOCK, ((columns - 1) * self._stride - self._window[1]) / ratio)
        count = -(-size[1] // int(widest))
        width = -(-size[1] // (count * BLOCK)) * BLOCK
        return [slice(start, min(start + width, size[1])) for start in range(0, size[1], width)]

    def mask(self, part: Part, size: Size) -> NDArray[np.uint8]:
        """Part of the mask of `size` that `logits_to_mask` gives for the blended logits."""
        rows, columns = part
        mask = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        ratios = [a / b for a, b in zip(self.size, size, strict=True)]
        step = max(1, int(_BLEND_BYTES / (4 * self.classes * mask.shape[1] * ratios[0] * ratios[1])))
        for top in range(rows.start, rows.stop, step):
            some = slice(top, min(top + step, rows.stop)), columns
            logits = self.part(*part_reach(self.size, size, some))
            mask[top - rows.start : some[0].stop - rows.start] = part_to_mask(logits, self.size, size, some)
        return mask

    def _logits(self, rows: slice, columns: slice) -> Logits:
        place = rows.start, columns.start
        if place not in self._held:
            self._held[place] = self._network(self._read(rows, columns))
        return self._held[place]


def mask_blocks(logits: SlidingLogits, size: Size) -> Iterator[tuple[slice, slice, NDArray[np.uint8]]]:
    """The mask of a picture, in blocks that cover it: lane by lane, each from top to bottom.

    Args:
        logits: of the picture, at any size.
        size: (height, width) of the mask.

    Yields:
        Rows, columns, and the (rows, columns) uint8 class ids there.
    """
    for columns in logits.lanes(size):
        for top in range(0, size[0], BLOCK):
            rows = slice(top, min(top + BLOCK, size[0]))
            yield rows, columns, logits.mask((rows, columns), size)


def _cover(side: int, windows: list[slice]) -> NDArray[np.float32]:
    """How many windows cover each place."""
    count = np.zeros(side, np.float32)
    for window in windows:
        count[window] += 1
    return count


def _meeting(windows: list[slice], part: slice) -> list[slice]:
    return [window for window in windows if window.start < part.stop and part.start < window.stop]


def _overlap(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def _less(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)


def _size(rows: slice, columns: slice) -> Size:
    return rows.stop - rows.start, columns.stop - columns.start
