"""Segments large pictures by windows: a TIFF of any size block by block, from disk to disk, others in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from segformer_tf.edge.predict.geotiff import new_tiff, open_tiff, write_block
from segformer_tf.edge.result import Result, class_shares, summary
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.edge.sliding import StageClock
from segformer_tf.files import atomic
from segformer_tf.image import load_image
from segformer_tf.labels import IGNORE_ID
from segformer_tf.overlay import overlay


def tiff_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """The files that `segment_tiff` writes: mask and overlay."""
    return folder / f"{name}_mask.tif", folder / f"{name}_overlay.tif"


def segment_tiff(
    segmenter: Segmenter, path: Path, folder: Path, name: str, *, slide: bool | int, scale: float, progress: Progress
) -> tuple[dict[str, Any], int]:
    """Write ``NAME_mask.tif`` (palette, index = class id) and ``NAME_overlay.tif`` of a TIFF.

    Both have its size and georeference. Pixels without data (a nodata value, a mask, alpha 0) are 255 in the mask,
    which it then names as its own nodata value, and count for no class.

    Args:
        segmenter: the model.
        path: of the TIFF.
        folder: of the results.
        name: of the results.
        slide, scale: see `Segmenter`.
        progress: shows the share that is done.

    Returns:
        The picture's entry of ``predictions.json``, and the largest value of 16 bits, 0 if it has 8.

    Raises:
        InputError: a file that cannot be read, or results that cannot be written; then neither is.
    """
    mask_path, overlay_path = tiff_paths(folder, name)
    counts, clock = np.zeros(256, np.int64), StageClock()
    with (
        atomic(mask_path) as mask_part,
        atomic(overlay_path) as overlay_part,
        open_tiff(path, bits=segmenter.bits) as read,
        new_tiff(mask_part, read.size, 1, read.georeference(), nodata=IGNORE_ID if read.has_gaps else None) as mask,
        new_tiff(overlay_part, read.size, 3, read.georeference()) as picture,
        _bar(progress, read.size) as advance,
    ):
        colors = dict(enumerate(segmenter.labels.colors))
        mask.write_colormap(1, {i: (*colors.get(i, (0, 0, 0)), 255) for i in range(256)})
        if read.note:
            print(read.note, file=sys.stderr)
        for rows, columns, ids in segmenter.blocks(read, read.size, slide=slide, scale=scale, clock=clock):
            if read.has_gaps:
                ids[read.gaps(rows, columns)] = IGNORE_ID
            counts += np.bincount(ids.ravel(), minlength=256)
            write_block(mask, rows, columns, ids)
            write_block(picture, rows, columns, overlay(read(rows, columns), ids, segmenter.labels))
            advance(ids.size)
    shares = class_shares(counts[:IGNORE_ID], segmenter.labels)
    return summary(read.size, shares, clock.spent), read.largest


def slide_file(segmenter: Segmenter, path: Path, *, slide: bool | int, scale: float, progress: Progress) -> Result:
    """What ``segmenter(path, slide=slide, scale=scale)`` gives, while `progress` shows the share that is done."""
    clock = StageClock()
    pixels = clock.timed("load", load_image)(path, bits=segmenter.bits)
    size, mask = (pixels.shape[0], pixels.shape[1]), np.empty(pixels.shape[:2], np.uint8)
    with _bar(progress, size) as advance:
        blocks = segmenter.blocks(lambda *part: pixels[part], size, slide=slide, scale=scale, clock=clock)
        for rows, columns, ids in blocks:
            mask[rows, columns] = ids
            advance(ids.size)
    return Result(pixels, mask, segmenter.labels, clock.spent)


@contextmanager
def _bar(progress: Progress, size: tuple[int, int]) -> Iterator[Callable[[int], None]]:
    """A bar that is there for one picture; yields what advances it by pixels."""
    bar = progress.add_task("this picture", total=size[0] * size[1])
    try:
        yield lambda pixels: progress.advance(bar, pixels)
    finally:
        progress.remove_task(bar)
