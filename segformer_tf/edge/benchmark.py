"""Interleaved timing of TFLite files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from segformer_tf.edge.runtime import installed_runtimes, runtime_version
from segformer_tf.edge.tflite import TFLiteModel
from segformer_tf.errors import InputError

_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """One file on one runtime: megabytes (10^6 bytes) and milliseconds from pixels to logits."""

    path: Path
    recipe: str
    size: tuple[int, int]
    runtime: str
    megabytes: float
    p50: float
    p90: float


def time_files(
    models: Sequence[Path], *, runtimes: Sequence[str] | None = None, threads: int = 2, repeats: int = 30
) -> list[Timing]:
    """Median and 90th percentile from pixels to logits, for every file on every runtime, calls interleaved.

    Raises:
        InputError: nothing to time, or a file or runtime that cannot be used.
    """
    runtimes = list(runtimes) if runtimes else installed_runtimes()
    if not models:
        raise InputError("no model given; expected .tflite files")
    if not runtimes:
        raise InputError("no TFLite runtime is installed; pip install 'segformer_tf[edge]'")
    if repeats < 1:
        raise InputError(f"--repeats must be positive. Received: {repeats}")
    pairs = [
        (path, runtime, TFLiteModel(path, runtime=runtime, threads=threads)) for path in models for runtime in runtimes
    ]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*model.size, 3), np.uint8) for _, _, model in pairs]
    spent = np.zeros((len(pairs), repeats))
    for turn in range(-_WARM_UP, repeats):
        for i, (_, _, model) in enumerate(pairs):
            start = perf_counter()
            model.logits(images[i])
            if turn >= 0:
                spent[i, turn] = (perf_counter() - start) * 1e3
    return [
        Timing(
            path=path,
            recipe=model.recipe,
            size=model.size,
            runtime=f"{runtime} {runtime_version(runtime)}",
            megabytes=path.stat().st_size / 1e6,
            p50=float(np.median(times)),
            p90=float(np.quantile(times, 0.9)),
        )
        for (path, runtime, model), times in zip(pairs, spent, strict=True)
    ]
