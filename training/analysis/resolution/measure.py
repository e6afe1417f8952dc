"""Mean IoU, latency and memory of models at one size after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segformer_tf.config import check_image_shape
from segformer_tf.edge.benchmark.stopwatch import Stopwatch
from segformer_tf.edge.benchmark.timing import take_turns
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.edge.segmenter import STAGES
from segformer_tf.errors import InputError
from training.analysis.resolution.stopwatch import KerasStopwatch
from training.data.open import Source
from training.evaluate import Predictor, evaluate
from training.protocols import Size

_INVOKE = STAGES.index("invoke")


@dataclass(frozen=True)
class Row:
    """One model at one size.

    Attributes:
        model: its name.
        height, width: that images are stretched to.
        mean_iou: 0..1, at the masks' own size; nan where no pixel counts.
        milliseconds: from pixels to logits, median; nan until it is timed.
        megabytes: 10^6 bytes, the most that a process with the model and its runtime held; nan until then.
    """

    model: str
    height: int
    width: int
    mean_iou: float
    milliseconds: float = float("nan")
    megabytes: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; nan becomes None."""
        own = asdict(self)
        return {name: None if value != value else value for name, value in own.items()}


def read_sizes(texts: Sequence[str]) -> list[Size]:
    """``["288x384", ...]`` as (height, width), the smallest first, each once; raises InputError."""
    sizes = set()
    for text in texts:
        height, by, width = text.lower().partition("x")
        if not (by and height.isascii() and height.isdigit() and width.isascii() and width.isdigit()):
            raise InputError(f"--sizes are heights and widths such as 288x384. Received: {text}")
        size = int(height), int(width)
        check_image_shape((None, *size, 3), "--sizes")
        sizes.add(size)
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def score(
    name: str,
    predict: Predictor,
    sizes: Sequence[Size],
    source: Source,
    indices: Sequence[int],
    *,
    watch: Callable[[Sequence[int], str], Iterable[int]] = lambda indices, _: indices,
) -> Iterator[Row]:
    """Rows of a model at each size, not timed yet.

    Args:
        name: of the model.
        predict: the model, of any size or of the only one in `sizes`.
        sizes: (height, width) that images are stretched to.
        source: the data.
        indices: of its images.
        watch: wraps `indices`, with a text, as a progress bar does.
    """
    for size in sizes:
        at_size = replace(predict, protocol=replace(predict.protocol, size=size))
        scores = evaluate(at_size, source, indices=watch(indices, f"{size[0]}x{size[1]}"))
        yield Row(name, *size, scores.mean_iou)


@contextmanager
def open_stopwatches(
    models: Sequence[Path], sizes: Sequence[Sequence[Size]], *, threads: int, runtime: str | None
) -> Iterator[list[tuple[Callable[[], float], int]]]:
    """For each model, and each of its sizes, what times one image in milliseconds, and the process's bytes."""
    with ExitStack() as stack:
        runners: list[tuple[Callable[[], float], int]] = []
        for model, own in zip(models, sizes, strict=True):
            if model.suffix == ".tflite":
                runtime = choose_runtime(runtime)
                watch = stack.enter_context(Stopwatch(model, runtime=runtime, threads=threads))
                runners.append((partial(_invoke, watch), watch.memory))
            else:
                keras = stack.enter_context(KerasStopwatch(model, own, threads=threads))
                runners += [(partial(keras.time, i), memory) for i, memory in enumerate(keras.memory)]
        yield runners


def time_rows(
    rows: Sequence[Row],
    stopwatches: Sequence[tuple[Callable[[], float], int]],
    *,
    repeats: int,
    watch: Callable[[range], Iterable[int]] = iter,
) -> list[Row]:
    """`rows` with medians of `repeats` images each; all take turns, so that a busy moment hits every one."""
    times = take_turns([runner for runner, _ in stopwatches], repeats=repeats, warm_up=2, watch=watch)
    return [
        replace(row, milliseconds=float(np.median(own)), megabytes=memory / 1e6)
        for row, own, (_, memory) in zip(rows, times, stopwatches, strict=True)
    ]


def _invoke(stopwatch: Stopwatch) -> float:
    return stopwatch()[_INVOKE]
