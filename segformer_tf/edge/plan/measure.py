"""Times the shipped graphs, each in a process of its own; the sizes of one network take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from time import perf_counter

import numpy as np

from segformer_tf.edge.benchmark.stopwatch import Stopwatch
from segformer_tf.edge.benchmark.timing import take_turns
from segformer_tf.edge.plan.estimate import Sample
from segformer_tf.edge.plan.graphs import TimedGraph
from segformer_tf.edge.segmenter import STAGES

_WARM_UP_SECONDS = 2.0  # a processor that was idle is slower at first, by a quarter on the machine this was tried on


def measure(
    graphs: Sequence[TimedGraph],
    folder: Path,
    *,
    runtime: str,
    threads: int,
    repeats: int,
    watch: Callable[[Sequence[list[TimedGraph]]], Iterable[list[TimedGraph]]] = iter,
) -> list[Sample]:
    """A sample of each graph, medians of `repeats` images.

    Those of one variant and recipe, which `estimate` compares, take turns. The others are not in memory then: all
    together would be 2 GB, more than many boards have.

    Args:
        graphs: to time, by variant and recipe.
        folder: for their files.
        runtime, threads, repeats: see `Stopwatch` and `take_turns`.
        watch: wraps the networks, each the graphs of its sizes, as a progress bar does.

    Raises:
        InputError: the runtime refuses a graph.
    """
    networks = [list(sizes) for _, sizes in groupby(graphs, lambda graph: (graph.variant, graph.recipe))]
    samples = []
    for sizes in watch(networks):
        with ExitStack() as stack:
            watches = [
                stack.enter_context(Stopwatch(graph.write(folder), runtime=runtime, threads=threads)) for graph in sizes
            ]
            start = perf_counter()
            while perf_counter() - start < _WARM_UP_SECONDS:
                take_turns(watches, repeats=1, warm_up=0)
            spent = take_turns(watches, repeats=repeats, warm_up=1)
        medians = [np.median(times, axis=0).tolist() for times in spent]
        samples += [_sample(*each) for each in zip(sizes, watches, medians, strict=True)]
    return samples


def _sample(graph: TimedGraph, stopwatch: Stopwatch, milliseconds: list[float]) -> Sample:
    stages = dict(zip(STAGES, milliseconds, strict=True))
    return Sample(
        variant=graph.variant,
        recipe=graph.recipe,
        size=graph.size,
        classes=stopwatch.grid[2],
        invoke=stages["invoke"],
        picture=stages["resize"] + stages["mask"],
        megabytes=stopwatch.path.stat().st_size / 1e6,
        memory=stopwatch.memory / 1e6,
    )
