"""How long the networks take on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from segformer_tf.edge.benchmark.timing import time_files
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.terminal import plain_console
from training.analysis.report.scan import Findings

_REPEATS, _WARM_UP, _THREADS = 10, 2, 2


def latency_table(files: Sequence[Path]) -> tuple[list[list[str]], str]:
    """Each ``.tflite`` on the preferred installed runtime, and a line on the conditions.

    The columns are `LATENCY_COLUMNS`.

    Raises:
        InputError: no runtime, or a file that it does not take.
    """
    console = plain_console(stderr=True)
    quiet = not console.is_terminal
    result = time_files(
        files,
        runtimes=[choose_runtime(None)],
        threads=_THREADS,
        repeats=_REPEATS,
        warm_up=_WARM_UP,
        watch=lambda turns: track(turns, "timing", console=console, transient=True, auto_refresh=False, disable=quiet),
    )
    rows = [
        [
            each.path.name,
            f"{each.runtime} {each.runtime_version}",
            *(f"{value:.1f}" for value in (each.p50, each.p90, each.mask, each.total)),
            f"{each.megabytes:.2f}",
            f"{each.memory:.0f}",
        ]
        for each in result.timings
    ]
    conditions = result.conditions
    return rows, (
        f"Medians of {_REPEATS} interleaved calls after {_WARM_UP}; p90: nine of ten calls take less. "
        f"{_THREADS} threads of {conditions.machine}, {conditions.cores} cores; {conditions.date}. "
        "`segformer benchmark` has other runtimes."
    )


LATENCY_COLUMNS = ["file", "runtime", "network, ms", "p90, ms", "mask, ms", "in all, ms", "MB", "peak MB"]


def scored_milliseconds(findings: Findings) -> str:
    """A line on the network's time in the scoring, which no other model took turns with."""
    middle, most = (float(np.quantile(findings.milliseconds, share)) for share in (0.5, 0.9))
    return (
        f"network, while the images were scored: median {middle:.1f} ms, nine of ten below {most:.1f} ms "
        f"({len(findings.milliseconds)} images, on whatever threads it takes)"
    )
