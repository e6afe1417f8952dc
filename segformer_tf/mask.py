"""Logits at 1/4 -> class mask at the image's own size.

The grid of logits divides the image into cells, with a logit vector at each corner. If the four corners have the same
arg-max, so does every pixel of the cell: bilinear weights add up to 1, and a weighted mean keeps the order. Only the
mixed cells, a tenth of a photograph, need interpolation, and full-size logits are never computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # height, width
Part = tuple[slice, slice]  # rows and columns, each with both ends

_BLOCK_BYTES = 1 << 24  # full-size logits that `resized_rows` holds at a time
_PLANE_BYTES = 1 << 20  # the same of `resized_planes`: they stay in the processor's cache
_CORNER_VALUES = 1 << 18  # logits held at a time of each corner of the mixed cells
_PIXEL_VALUES = 1 << 14  # interpolated logits held at a time: they stay in the processor's cache


def logits_to_mask(logits: NDArray[np.float32], size: Size) -> NDArray[np.uint8]:
    """Arg-max of one half-pixel bilinear resize, without the resized logits; the arithmetic is float64.

    Arg-max before the resize would be another mask: the 1/4 grid would show.

    Args:
        logits: (h, w, C) float, C up to 255. A NaN counts as the largest, as in numpy's arg-max.
        size: (height, width) of the mask, larger or smaller than the grid.

    Returns:
        (height, width) uint8 class ids; the lowest of equal ones.

    Raises:
        ValueError: logits of another rank or class count, none at all, or a size that is not positive.
    """
    if logits.ndim != 3 or not 1 <= logits.shape[2] <= 255 or 0 in logits.shape:
        raise ValueError(f"expected logits (h, w, C) with C in 1..255. Received: {logits.shape}")
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"expected a positive size. Received: {height}x{width}")
    logits = np.ascontiguousarray(logits, np.float32)
    return _mask(logits, _cells(logits.shape[0], height), _cells(logits.shape[1], width))


def part_to_mask(logits: NDArray[np.float32], grid: Size, size: Size, part: Part) -> NDArray[np.uint8]:
    """``logits_to_mask(whole, size)[part]``, of only those logits that the part is computed of.

    Args:
        logits: (h, w, C) float, ``whole[part_reach(grid, size, part)]``.
        grid: (height, width) of the whole grid of logits.
        size: (height, width) of the whole mask.
        part: rows and columns of the mask.

    Returns:
        (rows, columns) uint8 class ids.
    """
    if grid == size:
        return logits.argmax(-1).astype(np.uint8)
    cells = (_cells(n_in, n_out, p).shifted() for n_in, n_out, p in zip(grid, size, part, strict=True))
    return _mask(np.ascontiguousarray(logits, np.float32), *cells)


def part_reach(grid: Size, size: Size, part: Part) -> Part:
    """Rows and columns of a grid that a part of its resize to `size` is computed of."""
    if grid == size:
        return part
    rows, columns = (_cells(n_in, n_out, p).reach for n_in, n_out, p in zip(grid, size, part, strict=True))
    return rows, columns


def _mask(logits: NDArray[np.float32], rows: _Cells, columns: _Cells) -> NDArray[np.uint8]:
    best = logits.argmax(-1).astype(np.uint8)
    upper, lower = best[rows.low], best[rows.high]
    corner = upper[:, columns.low]  # (row cells, column cells)
    mask = corner[:, columns.cell][rows.cell]
    mixed = (corner != upper[:, columns.high]) | (corner != lower[:, columns.low]) | (corner != lower[:, columns.high])
    i, j = np.nonzero(mixed)
    step = max(1, _CORNER_VALUES // logits.shape[2])
    with np.errstate(invalid="ignore", over="ignore"):  # of logits that are not finite
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            _fill_mixed(mask, logits, rows, columns, i[part], j[part])
    return mask


def ids_to_mask(ids: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Class ids (h, w) resized to (height, width) by the nearest neighbor, with half-pixel centers."""
    rows, columns = ((np.arange(n) * 2 + 1) * of // (2 * n) for n, of in zip(size, ids.shape, strict=True))
    return ids[rows[:, None], columns]


def resized_rows(logits: NDArray[np.float32], size: Size) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The half-pixel bilinear resize that `logits_to_mask` takes the arg-max of, some rows at a time.

    Args:
        logits: (h, w, C) float.
        size: (height, width) to resize to.

    Yields:
        A slice of rows, and their (rows, width, C) float32, which the caller may change.
    """
    height, width = size
    rows = max(1, _BLOCK_BYTES // (4 * width * logits.shape[2]))
    for start in range(0, height, rows):
        part = slice(start, min(start + rows, height))
        yield part, resized_part(logits, size, (part, slice(0, width)))


def resized_part(logits: NDArray[np.float32], size: Size, part: Part) -> NDArray[np.float32]:
    """Rows and columns `part` of the resize of `logits` (h, w, C) to `size`: a new (rows, columns, C) float32."""
    down, across = (_cells(n_in, n_out, p) for n_in, n_out, p in zip(logits.shape, size, part, strict=False))
    near = np.asarray(logits[down.reach, across.reach], np.float32)
    top, bottom, weight = down.shifted().taps()
    row = near[top] + (near[bottom] - near[top]) * weight[:, None, None]  # (rows, w, C)
    left, right, weight = across.shifted().taps()
    before = row[:, left]
    change = row[:, right]
    change -= before
    change *= weight[:, None]
    change += before
    return change


def resized_planes(logits: NDArray[np.float32], size: tuple[int, int]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """`resized_rows` with the classes before the columns: sums and maxima over classes are four times as fast there.

    Args:
        logits: (h, w, C) float.
        size: (height, width) to resize to.

    Yields:
        A slice of rows, and their (rows, C, width) float32, which the caller may change.
    """
    height, width = size
    planes = np.ascontiguousarray(np.moveaxis(logits, -1, 1), np.float32)  # (h, C, w)
    top, bottom, down = _cells(planes.shape[0], height).taps()
    left, right, across = _cells(planes.shape[2], width).taps()
    rows = max(1, _PLANE_BYTES // (4 * width * planes.shape[1]))
    for start in range(0, height, rows):
        part = slice(start, min(start + rows, height))
        first = top[start]
        near = planes[first : bottom[part.stop - 1] + 1]
        wide = near.take(left, axis=2)  # an index would put the columns first in memory
        wide += (near.take(right, axis=2) - wide) * across
        row, below = wide[top[part] - first], wide[bottom[part] - first]
        below -= row
        below *= down[part, None, None]
        row += below
        yield part, row


@dataclass(frozen=True)
class _Cells:
    """One axis of a resize, divided at the grid points into cells, of which those with output positions are kept.

    Attributes:
        low, high: (cells,) grid points on either side; equal beyond the border.
        cell: (size_out,) the cell of every position.
        weight: (size_out,) share of `high`, 0..1.
        positions: (n, cells) output positions of each cell, n in the longest; shorter ones repeat their last.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    cell: NDArray[np.intp]
    weight: NDArray[np.float64]
    positions: NDArray[np.intp]

    def taps(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """The two grid points of every position, and the weight of the second."""
        return self.low[self.cell], self.high[self.cell], self.weight.astype(np.float32)

    @property
    def reach(self) -> slice:
        """The grid points in use, from the first to the last."""
        return slice(int(self.low[0]), int(self.high[-1]) + 1)

    def shifted(self) -> _Cells:
        """The same for a grid of the points in `reach` alone."""
        return replace(self, low=self.low - self.low[0], high=self.high - self.low[0])


def _cells(size_in: int, size_out: int, part: slice | None = None) -> _Cells:
    """Of the output positions of a slice with both ends, or of all."""
    part = part or slice(0, size_out)
    place = (np.arange(part.start, part.stop) + 0.5) * (size_in / size_out) - 0.5
    below = np.floor(place).astype(np.intp)
    grid, first, cell, count = np.unique(below, return_index=True, return_inverse=True, return_counts=True)
    positions = first + np.minimum(np.arange(count.max())[:, None], count - 1)
    low, high = np.clip(grid, 0, size_in - 1), np.clip(grid + 1, 0, size_in - 1)
    return _Cells(low, high, cell, place - below, positions)


def _fill_mixed(
    mask: NDArray[np.uint8],
    logits: NDArray[np.float32],
    rows: _Cells,
    columns: _Cells,
    i: NDArray[np.intp],
    j: NDArray[np.intp],
) -> None:
    """Write the classes of the cells (i, j) into the mask."""
    corners = [logits[y[i], x[j]] for y in (rows.low, rows.high) for x in (columns.low, columns.high)]  # 4 of (n, C)
    # A class whose best corner is below another's worst is below it in the whole cell; a NaN excludes none.
    floor = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3])).max(1, keepdims=True)
    ceiling = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    candidate = ~(ceiling < floor)
    candidates, count = np.flatnonzero(candidate), np.count_nonzero(candidate, axis=1)
    first = np.cumsum(count) - count
    # Cells with about as many candidates are computed together.
    order = np.argsort(count, kind="stable")
    ranked = count[order]
    start = 0
    while start < len(order):
        least = int(ranked[start])
        fitting = max(1, _PIXEL_VALUES // (least * len(columns.positions)))
        stop = min(start + fitting, int(np.searchsorted(ranked, least + least // 2, "right")))
        group, most = order[start:stop], ranked[stop - 1]
        nth = np.minimum(np.arange(most), count[group, None] - 1)  # repeats the last
        table = candidates[first[group, None] + nth]  # (cells, most) into (n, C)
        classes = (table % logits.shape[2]).astype(np.uint8)
        top_left, top_right, left, right = (corner.reshape(-1)[table].astype(np.float64) for corner in corners)
        left -= top_left
        right -= top_right
        cells = np.arange(len(group))
        xs = columns.positions[:, j[group]]  # (m, cells)
        across = columns.weight[xs][..., None]
        for ys in rows.positions[:, i[group]]:
            down = rows.weight[ys][:, None]
            before = top_left + left * down
            change = top_right + right * down - before
            mask[ys, xs] = classes[cells, (before + change * across).argmax(-1)]
        start = stop
