"""How many bits are used of image files of more than 8: 10, 12 or 14 are often kept in 16, and no file says so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from rich.progress import track

from segformer_tf.errors import InputError
from segformer_tf.image import DEEP_SUFFIXES, is_deep_file, largest_value_of
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console
from training.config import RunConfig
from training.distributed.strategy import this_place

DEPTHS = (8, 10, 12, 14, 16)  # that cameras and scanners have
_FILES = 20_000  # that are looked at, at most


class Images(Protocol):
    """A split whose images are read with so many bits."""

    bits: int | None


def settle_bits(
    config: RunConfig, sources: Sequence[Images], files: Iterable[Path], *, new: bool, inherited: int | None = None
) -> int | None:
    """Find out how many bits a training's images have, and have its sources read them so.

    What is asked for comes first, then what the manifest says, then the larger of what the files' largest value shows,
    which is printed, and what the weights to start from are used to. A run that goes on has it in its configuration.

    Args:
        config: `bits` as it was asked for, or of the run.
        sources: the splits.
        files: of their images; none of a TFDS set.
        new: whether the run is.
        inherited: `image_bits` of the weights to start from.

    Returns:
        As `load_image` takes it: 8 to 16, or None where no image has more than 8.

    Raises:
        InputError: bits for a TFDS set, or a file that cannot be read.
    """
    if new and config.bits is not None and config.data.startswith("tfds:"):
        raise InputError(
            "--bits is for folders; of a TFDS set's pictures, which are in colour, the upper 8 bits alone can be read"
        )
    bits = config.bits
    if bits is None and new:
        bits = sources[0].bits
        if bits is None and (largest := _largest_value(files)) is not None:
            found = next((depth for depth in DEPTHS if largest < 1 << depth), DEPTHS[-1])
            bits = max(found, inherited or 0)
            if this_place().chief:
                reach = "" if found == DEPTHS[-1] else f"reach {largest}, "
                why = f", as --weights have {bits}" if bits > found else ""
                print(
                    f"{config.data}: image files of more than 8 bits {reach}taken for {bits} bits{why}; "
                    'if that is wrong, give --bits, or "bits" in dataset.json'
                )
        bits = bits or inherited
    for source in sources:
        source.bits = bits
    return bits


def _largest_value(files: Iterable[Path]) -> int | None:
    """Of files of more than 8 bits, or of the first of them that needs 16; None where there is none.

    All are read, as the brightest picture would end the training when its turn comes.
    """
    heads = evenly_spaced([path for path in files if path.suffix.lower() in DEEP_SUFFIXES], _FILES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        deep = [path for path, is_deep in zip(heads, pool.map(is_deep_file, heads), strict=True) if is_deep]
        largest, console = None, plain_console(stderr=True)
        bar: Any = {"console": console, "transient": True, "disable": not (this_place().chief and console.is_terminal)}
        for value in track(pool.map(largest_value_of, deep), "looking for the largest value", len(deep), **bar):
            largest = max(largest or 0, value)
            if largest >= 1 << DEPTHS[-2]:
                pool.shutdown(cancel_futures=True)
                break
        return largest
