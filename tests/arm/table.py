"""What `make test-arm` measured, as rows and as the table of the README."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Row:
    """A file on an emulated board.

    Attributes:
        model: variant.
        recipe: how it was quantised.
        made_for: runtimes that the file was exported for.
        runtime: which ran it.
        board: the CPU.
        error: relative error of the logits to Keras'.
        error_to_x86: the same, to the file's on x86.
        same_class: share of pixels with Keras' class, 0..1.
        seconds: of starting, loading and one image, emulated: no measure of speed.
        verdict: right, wrong, or how it failed.
    """

    model: str
    recipe: str
    made_for: str
    runtime: str
    board: str
    error: float = float("nan")
    error_to_x86: float = float("nan")
    same_class: float = float("nan")
    seconds: float = float("nan")
    verdict: str = ""


def write_csv(rows: Sequence[Row], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def markdown(rows: Sequence[Row]) -> str:
    """A line a recipe, a column a runtime and board: the largest errors of all its files, to Keras and to x86."""
    columns = list(dict.fromkeys((row.runtime, row.board) for row in rows))
    lines = ["| recipe | " + " | ".join(f"{runtime}, {board}" for runtime, board in columns) + " |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    for recipe in dict.fromkeys(row.recipe for row in rows):
        cells = [_cell([r for r in rows if (r.recipe, r.runtime, r.board) == (recipe, *column)]) for column in columns]
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    if bad := [row for row in rows if row.verdict != "right"]:
        return f"{bad[0].model}: {bad[0].verdict}" + (f", {bad[0].error:.2g}" if bad[0].verdict == "wrong" else "")
    return f"{max(row.error for row in rows):.1e} ({max(row.error_to_x86 for row in rows):.1e})"
