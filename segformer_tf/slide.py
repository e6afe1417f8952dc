"""Sliding windows over a picture of any size: their logits blended, and the mask of that, block by block.

The blend is the mean, over the windows that cover a pixel, of each window's logits upsampled to it. No pixel of it
depends on where blocks begin, so a picture of any size gets the mask that it would get at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from segformer_tf.image import Pixels
from segformer_tf.mask import Part, Size, part_reach, part_to_mask, resized_part

BLOCK = 256  # rows of a block of the mask; its columns are a multiple of it, or end with the picture
_WINDOWS_BYTES = 96 << 20  # logits of windows that are held for the next blocks
_BLEND_BYTES = 8 << 20  # blended logits that are held at a time

Logits = NDArray[np.float32]
Network = Callable[[Pixels], Logits]  # (H, W, 3) to (h, w, C), a grid over the whole of it
Reader = Callable[[slice, slice], Pixels]  # rows and columns to (rows, columns, 3)


def default_stride(window: Size) -> int:
    """Three quarters of the shorter side, as the paper slides over Cityscapes (1024 and 768)."""
    return max(1, min(window) * 3 // 4)


def scaled_size(size: Size, factor: float) -> Size:
    """Both sides times `factor`, at least 1."""
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def windows(size: Size, window: Size, stride: int) -> list[Part]:
    """Windows that cover `size`, row by row; the last ones are shifted back inside.

    A side shorter than the window's is taken whole.
    """
    rows, columns = (_spans(side, length, stride) for side, length in zip(size, window, strict=True))
    return [(r, c) for r in rows for c in columns]


def _spans(side: int, length: int, stride: int) -> list[slice]:
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
        self._windows = windows(size, window, stride)
        spans = (_spans(side, length, stride) for side, length in zip(size, window, strict=True))
        self._counts = [_cover(side, axis) for side, axis in zip(size, spans, strict=True)]
        self._held: dict[int, Logits] = {}  # by the window's number
        first = self._logits(0)
        self.classes, self._bytes = first.shape[2], first.nbytes

    def part(self, rows: slice, columns: slice) -> Logits:
        """(rows, columns, C) float32 of slices with both ends; holds the logits of the windows there until the next."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        total = np.zeros((*shape, self.classes), np.float32)
        here = {i: w for i, w in enumerate(self._windows) if _meet(w[0], rows) and _meet(w[1], columns)}
        self._held = {i: logits for i, logits in self._held.items() if i in here}
        for i, (down, across) in here.items():  # in the order of their numbers: sums of floats depend on it
            y, x = _overlap(down, rows), _overlap(across, columns)
            block = resized_part(self._logits(i), _size(down, across), (_less(y, down.start), _less(x, across.start)))
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

    def _logits(self, number: int) -> Logits:
        if number not in self._held:
            self._held[number] = self._network(self._read(*self._windows[number]))
        return self._held[number]


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


def _cover(side: int, spans: list[slice]) -> NDArray[np.float32]:
    """How many of the spans cover each place."""
    count = np.zeros(side, np.float32)
    for span in spans:
        count[span] += 1
    return count


def _meet(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)


def _overlap(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def _less(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)


def _size(rows: slice, columns: slice) -> Size:
    return rows.stop - rows.start, columns.stop - columns.start
