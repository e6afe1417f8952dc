"""How many bits a training's images use: files of 16 often hold 10, 12 or 14, and do not say so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import track

from segformer_tf.errors import InputError
from segformer_tf.image import DEEP_SUFFIXES, is_deep_file, largest_value_of
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console
from training.config import RunConfig
from training.data.open import Split
from training.distributed.strategy import this_place

DEPTHS = (8, 10, 12, 14, 16)  # of cameras and scanners
_MOST_FILES = 20_000  # to look at


def settle_bits(
    config: RunConfig, sources: Sequence[Split[Any]], *, new: bool, inherited: int | None = None
) -> int | None:
    """Decide how many bits a training's images have, and set its sources to read them so.

    The option comes first, then the manifest, then the larger of what the largest value in the files needs (a line is
    printed) and what the initial weights use. A resumed run has its bits in its configuration.

    Args:
        config: the options, or those of the run.
        sources: the splits.
        new: whether the run is new.
        inherited: `image_bits` of the initial weights.

    Returns:
        8 to 16, see `load_image`; None where no image has more than 8.

    Raises:
        InputError: bits for a TFDS set, or an unreadable file.
    """
    if new and config.bits is not None and config.data.startswith("tfds:"):
        raise InputError(
            "--bits is for folders; of a TFDS set's pictures, which are in color, only the upper 8 bits can be read"
        )
    bits = config.bits
    if bits is None and new:
        bits = sources[0].bits
        files = (path for source in sources for path in source.images)
        if bits is None and (largest := _largest_value(files)) is not None:
            needed = next((depth for depth in DEPTHS if largest < 1 << depth), DEPTHS[-1])
            bits = max(needed, inherited or 0)
            if this_place().chief:
                reach = "" if needed == DEPTHS[-1] else f"reach {largest}, "
                why = f", as --weights have {bits}" if bits > needed else ""
                print(
                    f"{config.data}: image files of more than 8 bits {reach}taken for {bits} bits{why}; "
                    'if that is wrong, give --bits, or "bits" in dataset.json'
                )
        bits = bits or inherited
    for source in sources:
        source.bits = bits
    return bits


def _largest_value(files: Iterable[Path]) -> int | None:
    """The largest value in files of more than 8 bits, up to the first that needs 16 bits; None without such files.

    All are read: a brighter one met later would end the training.
    """
    paths = evenly_spaced([path for path in files if path.suffix.lower() in DEEP_SUFFIXES], _MOST_FILES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        deep = [path for path, is_deep in zip(paths, pool.map(is_deep_file, paths), strict=True) if is_deep]
        largest, console = None, plain_console(stderr=True)
        bar: Any = {"console": console, "transient": True, "disable": not (this_place().chief and console.is_terminal)}
        for value in track(pool.map(largest_value_of, deep), "looking for the largest value", len(deep), **bar):
            largest = max(largest or 0, value)
            if largest >= 1 << DEPTHS[-2]:
                pool.shutdown(cancel_futures=True)
                break
        return largest
