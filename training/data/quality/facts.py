"""Reads every image and mask of a data set once, and keeps what is to be known of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from segformer_tf.errors import InputError
from segformer_tf.image import is_deep_file, read_head
from segformer_tf.terminal import plain_console
from training.data.open import Source
from training.data.quality.borders import Fit, fit
from training.data.quality.objects import regions, through_grid
from training.data.quality.twins import Fingerprint, fingerprint
from training.data.steps import Steps, steps


@dataclass(frozen=True)
class Facts:
    """What one sample shows.

    Attributes:
        split, index: where it is.
        name: of the image file, else "sample 3".
        size: (height, width), upright.
        pixels: (C,) int64 of each class.
        total: all pixels, with ignored ones.
        regions, kept: see `training.data.quality.objects`.
        picture, truth: digests of image and mask.
        fingerprint: see `training.data.quality.twins`.
        fit: of the mask over the image; None where there is little to judge by.
        steps: between classes.
        deep: whether the file has more than 8 bits.
        turn: EXIF orientation, 1 (none) to 8.
    """

    split: str
    index: int
    name: str
    size: tuple[int, int]
    pixels: NDArray[np.int64]
    total: int
    regions: dict[int, NDArray[np.int64]]
    kept: NDArray[np.int64]
    picture: bytes
    truth: bytes
    fingerprint: Fingerprint | None
    fit: Fit | None
    steps: Steps
    deep: bool
    turn: int


def read_facts(sources: Mapping[str, Source], *, quiet: bool = False) -> tuple[list[Facts], list[str]]:
    """The facts of every sample that can be read, and a line on each that cannot.

    Args:
        sources: by split.
        quiet: show no progress.
    """
    work = [(split, i) for split, source in sources.items() for i in range(len(source))]
    console = plain_console(stderr=True)
    bar: Any = {"console": console, "transient": True, "disable": quiet or not console.is_terminal}
    facts, faults = list[Facts](), list[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda item: _try(sources[item[0]], *item), work)
        for result in track(results, "looking at images and masks", len(work), **bar):
            if isinstance(result, Facts):
                facts.append(result)
            else:
                faults.append(result)
    return facts, faults


def _try(source: Source, split: str, index: int) -> Facts | str:
    try:
        return _facts(source, split, index)
    except InputError as error:
        return str(error)


def _facts(source: Source, split: str, index: int) -> Facts:
    image, mask = source[index]
    files: Any = source.images
    path: Path | None = files[index] if files else None
    count = len(source.labels.names)
    return Facts(
        split=split,
        index=index,
        name=path.name if path else f"sample {index}",
        size=(image.shape[0], image.shape[1]),
        pixels=np.bincount(mask.ravel(), minlength=256)[:count],
        total=mask.size,
        regions=regions(mask, count),
        kept=through_grid(mask, count),
        picture=_digest(image),
        truth=_digest(mask),
        fingerprint=fingerprint(image),
        fit=fit(image, mask),
        steps=steps(mask),
        deep=bool(path and is_deep_file(path)),
        turn=read_head(path).turn if path else 1,
    )


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    return sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()
