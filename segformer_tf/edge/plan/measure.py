"""Times the shipped graphs, each in a process of its own, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from segformer_tf.edge.benchmark.stopwatch import Stopwatch
from segformer_tf.edge.benchmark.timing import take_turns
from segformer_tf.edge.plan.estimate import Sample
from segformer_tf.edge.plan.graphs import TimedGraph
from segformer_tf.edge.segmenter import STAGES


def measure(
    graphs: Sequence[TimedGraph],
    folder: Path,
    *,
    runtime: str,
    threads: int,
    repeats: int,
    watch: Callable[[range], Iterable[int]] = iter,
) -> list[Sample]:
    """A sample of each graph, medians of `repeats` images.

    Args:
        graphs: to time.
        folder: for their files.
        runtime, threads, repeats: see `Stopwatch` and `take_turns`.
        watch: wraps the turns, as a progress bar does.

    Raises:
        InputError: the runtime refuses a graph.
    """
    with ExitStack() as stack:
        watches = [
            stack.enter_context(Stopwatch(graph.write(folder), runtime=runtime, threads=threads)) for graph in graphs
        ]
        spent = take_turns(watches, repeats=repeats, warm_up=1, watch=watch)
    samples = []
    for graph, stopwatch, times in zip(graphs, watches, spent, strict=True):
        _, resize, invoke, mask = np.median(times, axis=0).tolist()
        assert len(STAGES) == 4  # load, resize, invoke, mask
        samples.append(
            Sample(
                variant=graph.variant,
                recipe=graph.recipe,
                size=graph.size,
                classes=stopwatch.grid[2],
                invoke=invoke,
                picture=resize + mask,
                megabytes=stopwatch.path.stat().st_size / 1e6,
                memory=stopwatch.memory / 1e6,
            )
        )
    return samples
