"""The race: every file in turns, each time in a fresh process, so that one is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.remote import Remote
from benchmarks.rivals.engine import Facts, Rival
from segformer_tf.errors import InputError

SLOW = 2.0  # seconds
SLOW_ROUNDS = 3  # rounds that a file takes part in whose time to logits is longer


@dataclass
class Entry:
    """A file in the race, and what was measured of it.

    Attributes:
        path: of the file.
        own: as of `Rival`.
        seconds: to logits and mask, and of processors to the logits, of each turn.
        facts: after the first round.
        error: why it dropped out.
    """

    path: Path
    own: bool
    seconds: list[tuple[float, float, float]] = field(default_factory=list)
    facts: Facts | None = None
    error: str = ""

    @property
    def slow(self) -> bool:
        return bool(self.seconds) and float(np.median([turn[0] for turn in self.seconds])) > SLOW


def race(
    entries: Sequence[Entry],
    *,
    rounds: int,
    turns: int,
    threads: int,
    log: Path,
    start: Callable[..., Any] = Rival,
    watch: Callable[[Iterable[tuple[int, Entry]]], Iterable[tuple[int, Entry]]] = iter,
) -> None:
    """Measure all entries in `rounds` rounds of `turns` turns each; what crashes drops out with its error.

    Args:
        entries: filled in here, so what was measured before Ctrl-C is kept.
        rounds: a busy moment of the machine hits all files of a round.
        turns: of a file in a round.
        threads: CPU threads.
        log: file for the processes' output.
        start: makes a `Rival` in the process.
        watch: wraps the turns, as a progress bar does.
    """
    for number, entry in watch([(number, entry) for number in range(rounds) for entry in entries]):
        if entry.error or (number >= SLOW_ROUNDS and entry.slow):
            continue
        try:
            with Remote(start, entry.path, entry.own, threads, log=log) as remote:
                measured = [remote.call("turn") for _ in range(1 if entry.slow else turns)]
                entry.facts = entry.facts or remote.call("facts")
            entry.seconds += measured
        except InputError as error:
            entry.error = str(error)
