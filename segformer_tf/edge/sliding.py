"""A large picture through a model's window: tiles of the model's size, with the time that each stage takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.tflite.model import TFLiteModel
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, Reader, fit_image
from segformer_tf.resample import Resized
from segformer_tf.slide import SlidingLogits, default_stride, mask_blocks, scaled_size

P = ParamSpec("P")
R = TypeVar("R")
Block = tuple[slice, slice, NDArray[np.uint8]]
# With more windows over a block of the mask, those of one block would need more memory than all else.
_MOST_WINDOWS, _LARGEST_SCALE = 4, 4


@dataclass
class StageClock:
    """Milliseconds of stages that may call each other; each counts without those inside it."""

    spent: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, whose time counts for `stage`."""
        self.spent.setdefault(stage, 0.0)

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            inside, start = sum(self.spent.values()), perf_counter()
            result = function(*args, **kwargs)
            inside = sum(self.spent.values()) - inside
            self.spent[stage] += (perf_counter() - start) * 1e3 - inside
            return result

        return call


def sliding_blocks(
    model: TFLiteModel | IsolatedModel,
    read: Reader,
    size: tuple[int, int],
    *,
    stride: int | None,
    scale: float,
    clock: StageClock | None = None,
) -> Iterator[Block]:
    """The mask of a picture that is read by windows, block by block.

    Args:
        model: whose size is that of the windows. A side that the picture has shorter is stretched to it.
        read: gives (rows, columns, 3) uint8 RGB of the picture for two slices with both ends.
        size: (height, width) of the picture.
        stride: pixels from one window to the next; None takes three quarters of the model's shorter side.
        scale: factor on the picture before it is cut into windows.
        clock: of the stages "load", "resize", "invoke" and "mask".

    Yields:
        Rows, columns and their (rows, columns) uint8 class ids; all of them cover the picture once.

    Raises:
        InputError: a stride or scale out of range, or a file that gives class ids and no logits.
    """
    check_sliding(model.size, stride=stride, scale=scale)
    clock = clock or StageClock()
    to = scaled_size(size, scale)
    loaded = clock.timed("load", read)
    fitted = clock.timed("resize", Resized(loaded, size, to))
    logits = clock.timed("invoke", lambda pixels: model.logits(fit_image(pixels, model.size)))
    start = clock.timed("mask", SlidingLogits)
    blended = start(logits, fitted, size=to, window=model.size, stride=stride or default_stride(model.size))
    following = clock.timed("mask", lambda blocks: next(blocks, None))
    blocks = mask_blocks(blended, size)
    while block := following(blocks):
        yield block


def stride_of(slide: bool | int) -> int | None:
    """The stride that `slide` of a `Segmenter` stands for: None for True."""
    return None if slide is True else slide


def check_sliding(window: tuple[int, int], *, stride: int | None, scale: float) -> None:
    """Raises InputError for a stride beyond the window (height, width), or a scale out of range."""
    least, most = -(-min(window) // _MOST_WINDOWS), min(window)
    if stride is not None and not least <= stride <= most:
        raise InputError(
            f"--stride must be from {least} to {most}, a quarter to the whole of the shorter side of the model's "
            f"{window[0]}x{window[1]}. Received: {stride}"
        )
    if not (isfinite(scale) and 1 / 64 <= scale <= _LARGEST_SCALE):
        raise InputError(f"--scale must be from 1/64 to {_LARGEST_SCALE}. Received: {scale:g}")


def slide_segment(
    model: TFLiteModel | IsolatedModel, pixels: Pixels, *, stride: int | None, scale: float, clock: StageClock
) -> NDArray[np.uint8]:
    """The (H, W) uint8 mask of (H, W, 3) uint8 RGB; see `sliding_blocks`."""
    mask = np.empty(pixels.shape[:2], np.uint8)
    size = pixels.shape[0], pixels.shape[1]
    blocks = sliding_blocks(model, lambda *part: pixels[part], size, stride=stride, scale=scale, clock=clock)
    for rows, columns, ids in blocks:
        mask[rows, columns] = ids
    return mask
