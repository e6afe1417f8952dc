"""Timing of TFLite files side by side."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segformer_tf import __version__
from segformer_tf.edge.benchmark.hardware import cores, processor
from segformer_tf.edge.benchmark.matmul import GFLOP, Matmul
from segformer_tf.edge.benchmark.stopwatch import Stopwatch
from segformer_tf.edge.metadata import find_model_info
from segformer_tf.edge.runtime import choose_runtime, installed_runtimes, runtime_version
from segformer_tf.edge.segmenter import STAGES
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.errors import InputError
from segformer_tf.image import read_head

_T = TypeVar("_T")


@dataclass(frozen=True)
class Timing:
    """One file on one runtime. Times are milliseconds, medians but for p90; megabytes are 10^6 bytes.

    Attributes:
        path, recipe: of the file; "unknown" where it does not say.
        height, width: of the input.
        classes: of the logits; 0 if the file gives class ids.
        runtime, runtime_version: that ran it.
        image_height, image_width: of the image that was segmented, and so of the mask.
        load: decoding the image.
        resize: fitting it to the input.
        p50: invoke, from pixels to logits.
        p90: invoke, 90th percentile.
        mask: from logits to the mask, at the image's own size.
        total: median of the sum of the four stages.
        megabytes: size of the file.
        memory: the most megabytes its process held up to the first mask.
        ops, partitions, outside: see `GraphStats`; None, like the next two, if the runtime does not list operations.
        gmac: 10^9 multiply-accumulates of an invoke, by the file.
        share: speed of an invoke over that of this machine's float32 matrix product; 1.0 is equal.
        mean_iou: from the user, 0..1.
    """

    path: Path
    recipe: str
    height: int
    width: int
    classes: int
    runtime: str
    runtime_version: str
    image_height: int
    image_width: int
    load: float
    resize: float
    p50: float
    p90: float
    mask: float
    total: float
    megabytes: float
    memory: float
    ops: int | None
    partitions: int | None
    outside: dict[str, int] | None
    gmac: float | None
    share: float | None
    mean_iou: float | None


@dataclass(frozen=True)
class Conditions:
    """What all timings of a run share.

    Attributes:
        threads: of each runtime, and of the matrix product.
        warm_up, repeats: calls before the timed ones, and timed calls, of each file on each runtime.
        image: name of the picture that was segmented, or "synthetic".
        gmac_counted: 10^9 multiply-accumulates that shares count by; None for those of each file.
        matmul_gflops: 10^9 operations a second of numpy's float32 matrix product, median.
        machine, cores, system: processor, cores that the process may use, operating system.
        date: start of the run, ISO 8601.
        python, numpy, pillow, segformer_tf: versions.
    """

    threads: int
    warm_up: int
    repeats: int
    image: str
    gmac_counted: float | None
    matmul_gflops: float
    machine: str
    cores: int
    system: str
    date: str
    python: str
    numpy: str
    pillow: str
    segformer_tf: str


@dataclass(frozen=True)
class Benchmark:
    """Timings, in the order of the files and, for each file, of the runtimes; and what they share."""

    timings: list[Timing]
    conditions: Conditions


def time_files(
    models: Sequence[Path],
    *,
    runtimes: Sequence[str] | None = None,
    threads: int = 2,
    repeats: int = 30,
    warm_up: int = 3,
    image: Path | None = None,
    gmac: float | None = None,
    scores: Sequence[float] | None = None,
    contract: Contract | None = None,
    watch: Callable[[range], Iterable[int]] = iter,
) -> Benchmark:
    """Time every file on every runtime from a picture to its mask, each in a process of its own, calls interleaved.

    Args:
        models: ``.tflite`` files.
        runtimes: to use; None takes all that are installed.
        threads, repeats, warm_up: see `Conditions`.
        image: a picture to segment; None takes a JPEG of each file's own input size.
        gmac: 10^9 multiply-accumulates to count shares by; None takes those of each file.
        scores: mean IoU of each file, for its row.
        contract: for the files that are from elsewhere.
        watch: wraps the turns, as a progress bar does.

    Raises:
        InputError: nothing to time, a number out of range, a picture that cannot be read, or a file or runtime that
            cannot be used.
    """
    if not models:
        raise InputError("no model given; expected .tflite files")
    if repeats < 1:
        raise InputError(f"--repeats must be positive. Received: {repeats}")
    if warm_up < 0:
        raise InputError(f"--warm-up must not be negative. Received: {warm_up}")
    if threads < 1:
        raise InputError(f"--threads must be positive. Received: {threads}")
    if gmac is not None and not 0 < gmac < float("inf"):
        raise InputError(f"--gmac must be positive. Received: {gmac}")
    if scores is not None and len(scores) != len(models):
        raise InputError(f"expected scores of each of {len(models)} files. Received: {len(scores)}")
    chosen = [choose_runtime(runtime) for runtime in runtimes or installed_runtimes()] or [choose_runtime(None)]
    image_size = read_head(image).upright if image else None
    foreign = [find_model_info(model) is None for model in models]
    contracts = [contract if each or not any(foreign) else None for each in foreign]
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    with ExitStack() as stack:
        pairs = [
            (i, stack.enter_context(Stopwatch(model, runtime=runtime, threads=threads, image=image, contract=each)))
            for i, (model, each) in enumerate(zip(models, contracts, strict=True))
            for runtime in chosen
        ]
        matmul = stack.enter_context(Matmul(threads))
        runners: list[Callable[[], list[float]]] = [*(stopwatch for _, stopwatch in pairs), matmul]
        *spent, products = take_turns(runners, repeats=repeats, warm_up=warm_up, watch=watch)
    gflops = GFLOP / float(np.median(products)) * 1e3
    timings = [
        _timing(
            stopwatch,
            np.asarray(times),
            image_size=image_size or stopwatch.size,
            gmac=gmac,
            gflops=gflops,
            mean_iou=scores[i] if scores else None,
        )
        for (i, stopwatch), times in zip(pairs, spent, strict=True)
    ]
    conditions = Conditions(
        threads=threads,
        warm_up=warm_up,
        repeats=repeats,
        image=image.name if image else "synthetic",
        gmac_counted=gmac,
        matmul_gflops=gflops,
        machine=processor(),
        cores=cores(),
        system=f"{platform.system()} {platform.release()}",
        date=date,
        python=platform.python_version(),
        numpy=version("numpy"),
        pillow=version("Pillow"),
        segformer_tf=__version__,
    )
    return Benchmark(timings, conditions)


def _timing(
    stopwatch: Stopwatch,
    times: NDArray[np.float64],
    *,
    image_size: tuple[int, int],
    gmac: float | None,
    gflops: float,
    mean_iou: float | None,
) -> Timing:
    """A row of the (repeats, stages) milliseconds of one file on one runtime."""
    load, resize, p50, mask = np.median(times, axis=0).tolist()
    graph = stopwatch.graph
    own_gmac = graph.macs / 1e9 if graph else None
    counted = gmac or own_gmac
    return Timing(
        path=stopwatch.path,
        recipe=stopwatch.recipe,
        height=stopwatch.size[0],
        width=stopwatch.size[1],
        classes=stopwatch.grid[2],
        runtime=stopwatch.runtime,
        runtime_version=runtime_version(stopwatch.runtime),
        image_height=image_size[0],
        image_width=image_size[1],
        load=load,
        resize=resize,
        p50=p50,
        p90=float(np.quantile(times[:, STAGES.index("invoke")], 0.9)),
        mask=mask,
        total=float(np.median(times.sum(axis=1))),
        megabytes=stopwatch.path.stat().st_size / 1e6,
        memory=stopwatch.memory / 1e6,
        ops=graph.ops if graph else None,
        partitions=graph.partitions if graph else None,
        outside=graph.outside if graph else None,
        gmac=own_gmac,
        share=2 * counted / (p50 / 1e3) / gflops if counted else None,
        mean_iou=mean_iou,
    )


def take_turns(
    runners: Sequence[Callable[[], _T]],
    *,
    repeats: int,
    warm_up: int,
    watch: Callable[[range], Iterable[int]] = iter,
) -> list[list[_T]]:
    """Call every runner once in each turn, in order, so that a busy moment of the machine hits all of them.

    Returns:
        For each runner its `repeats` results, without those of the first `warm_up` turns.
    """
    turns = [[runner() for runner in runners] for _ in watch(range(warm_up + repeats))]
    return [list(results) for results in zip(*turns[warm_up:], strict=True)]
