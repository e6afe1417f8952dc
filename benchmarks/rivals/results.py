"""The rows of the comparison, and who is ahead of whom: latency against published accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segformer_tf.files import atomic

TIMES = {"logits_ms": "time to the logits", "mask_ms": "time to the mask", "cpu_ms": "processor time to the logits"}


@dataclass(frozen=True)
class Row:
    """One file, or the reason why there is none. Times are medians in milliseconds; megabytes are 10^6 bytes.

    Attributes:
        key, name: of the network.
        form: "fp32" or "int8".
        how: how an int8 file was quantized, or "".
        error: why it could not be made or run, in one line, or "".
        mean_iou, source: published, in percent on ADE20K at 512x512 and single scale, and where; None and "" if not.
        published_parameters, published_gmac: what stands there beside it; in millions and 10^9.
        parameters: of the network that was built, in millions.
        grid: of the logits.
        gmac, megabytes, memory, partitions, outside: of the file, see `benchmarks.rivals.engine.Facts`.
        logits_ms, mask_ms: from a picture in memory to the logits, and to the mask of 512x512.
        cpu_ms: of all processors together to the logits; other work on the machine changes it little.
        turns: how many measurements these are medians of.
    """

    key: str
    name: str
    form: str
    how: str = ""
    error: str = ""
    mean_iou: float | None = None
    source: str = ""
    published_parameters: float | None = None
    published_gmac: float | None = None
    parameters: float | None = None
    grid: tuple[int, int] | None = None
    gmac: float | None = None
    megabytes: float | None = None
    memory: float | None = None
    partitions: int | None = None
    outside: dict[str, int] | None = None
    logits_ms: float | None = None
    mask_ms: float | None = None
    cpu_ms: float | None = None
    turns: int = 0

    @property
    def placed(self) -> bool:
        """Whether it has both a time and a published accuracy."""
        return self.logits_ms is not None and self.mean_iou is not None


def ahead_of(row: Row, rows: Sequence[Row], time: str = "logits_ms") -> list[Row]:
    """Rows that are at least as fast and at least as accurate as `row`, and better in one of the two.

    Args:
        row: a placed one.
        rows: to look among; those that are not placed are passed over.
        time: one of `TIMES`.
    """
    own = (getattr(row, time), -(row.mean_iou or 0.0))

    def better(other: Row) -> bool:
        its = (getattr(other, time), -(other.mean_iou or 0.0))
        return its[0] <= own[0] and its[1] <= own[1] and its != own

    return [other for other in rows if other.placed and better(other)]


def frontier(rows: Sequence[Row], time: str = "logits_ms") -> list[Row]:
    """The placed rows that no other is ahead of, fast ones first."""
    best = [row for row in rows if row.placed and not ahead_of(row, rows, time)]
    return sorted(best, key=lambda row: getattr(row, time))


def verdict(row: Row, rows: Sequence[Row], time: str = "logits_ms") -> str:
    """A sentence: on the frontier, or who is ahead and by how much."""
    what, own = f"{row.name}, {row.form}", getattr(row, time)
    if not (better := ahead_of(row, rows, time)):
        return f"{what}: on the frontier of {TIMES[time]} against published mean IoU."
    each = "; ".join(
        f"{other.name}, {other.form} ({(other.mean_iou or 0) - (row.mean_iou or 0):+.1f} points in "
        f"{getattr(other, time) / own:.2f}x of the time)"
        for other in sorted(better, key=lambda other: -(other.mean_iou or 0))
    )
    return f"{what}: not on the frontier of {TIMES[time]}; ahead are {each}."


def write_results(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Write all rows as JSON."""
    with atomic(path) as part:
        part.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", "utf-8")


def read_results(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """What `write_results` wrote."""
    content = json.loads(path.read_text("utf-8"))
    rows = [Row(**{**row, "grid": tuple(row["grid"]) if row["grid"] else None}) for row in content["rows"]]
    return rows, content["about"]
