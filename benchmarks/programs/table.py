"""The turns of the programs as rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.programs.programs import Answer, Job
from segformer_tf.errors import InputError
from segformer_tf.metrics import relative_error

COLUMNS = ("program", "version", "error", "same class", "ms", "to litert")
_REFERENCE = "litert"


@dataclass(frozen=True)
class Turn:
    """A program's turn, compared with Keras.

    Attributes:
        ms, version: of the answer.
        error: relative error of its logits, or None where it gives none.
        same: share of the photo's pixels with the class that Keras' logits give, for each of its masks.
    """

    ms: float
    version: str
    error: float | None
    same: dict[str, float]


def compare_turn(answer: Answer, job: Job, expected: NDArray[np.float32]) -> Turn:
    """Against Keras' logits (h, w, C); raises InputError for an answer of another shape."""
    if answer.logits is not None and answer.logits.shape != expected.shape:
        raise InputError(f"gives logits {answer.logits.shape}, Keras {expected.shape}")
    error = None if answer.logits is None else relative_error(answer.logits, expected)
    truth = job.mask_of(expected)
    if strange := [mask.shape for mask in answer.masks.values() if mask.shape != truth.shape]:
        raise InputError(f"gives a mask {strange[0]}, of a photo {truth.shape}")
    same = {kind: float((mask == truth).mean()) for kind, mask in answer.masks.items()}
    return Turn(answer.ms, answer.version, error, same)


def rows_of(turns: Mapping[str, Sequence[Turn]], reasons: Mapping[str, str]) -> list[list[str]]:
    """A row for each program and mask: medians of times, means of errors and shares; or why it did not run.

    Args:
        turns: of each program, by name.
        reasons: why a program took no more turns.
    """
    medians = {name: statistics.median(turn.ms for turn in taken) for name, taken in turns.items() if taken}
    rows = []
    for name, taken in turns.items():
        if name in reasons:
            rows.append([name, f"not run: {reasons[name]}", "", "", "", ""])
            continue
        errors = [turn.error for turn in taken if turn.error is not None]
        ratio = f"{medians[name] / medians[_REFERENCE]:.2f}x" if medians.get(_REFERENCE) else ""
        for number, kind in enumerate(taken[0].same):
            times = ["", ""] if number else [f"{medians[name]:.1f}", ratio]
            same = statistics.mean(turn.same[kind] for turn in taken)
            error = f"{statistics.mean(errors):.1e}" if errors else ""
            rows.append([f"{name}, {kind}" if kind else name, taken[0].version, error, f"{same:.2%}", *times])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """With the columns above them."""
    lines = (COLUMNS, ["---"] * len(COLUMNS), *rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
