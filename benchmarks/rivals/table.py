"""The table in 80 columns, where each accuracy was published, and what could not be made."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from benchmarks.rivals.results import Row

NOT_PUBLISHED = "not published"


def table(rows: Sequence[Row]) -> Table:
    """A line for each file; a network's numbers that its files share stand in its first line."""
    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("network", overflow="fold", max_width=22)
    for column in ("", "M par.", "GMAC", "MB", "logits\nms", "mask\nms", "CPU\nms", "peak\nMB", "mIoU"):
        result.add_column(column, justify="right", no_wrap=True)
    last = ""
    for row in rows:
        first, last = row.key != last, row.key
        result.add_row(
            Text(row.name if first else ""),
            label(row),
            number(row.parameters, 2) if first else "",
            number(row.gmac, 1) if first else "",
            number(row.megabytes, 1),
            number(row.logits_ms, 0 if (row.logits_ms or 0) >= 100 else 1) if not row.error else "error",
            number(row.mask_ms, 0 if (row.mask_ms or 0) >= 100 else 1),
            number(row.cpu_ms, 0),
            number(row.memory, 0),
            ("" if not first else "-" if row.mean_iou is None else f"{row.mean_iou:.1f}"),
        )
    return result


def label(row: Row) -> str:
    """The form in four letters: dyn8 where activations are quantized as they come."""
    return "dyn8" if row.how.startswith("dynamic") else row.form


def number(value: float | None, digits: int) -> str:
    """With so many digits, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def sources(rows: Sequence[Row]) -> list[str]:
    """For each network the source of its accuracy, with the size that is published beside it, as a check of ours."""
    lines = []
    for row in {row.key: row for row in reversed(rows)}.values():
        if row.mean_iou is None:
            lines.append(f"{row.name}: {NOT_PUBLISHED} on ADE20K")
            continue
        beside = [f"{row.published_parameters:g} M parameters"] if row.published_parameters else []
        beside += [f"{row.published_gmac:g} GMAC"] if row.published_gmac else []
        lines.append(f"{row.name}: {row.mean_iou:g} % by {row.source}" + (f" ({', '.join(beside)})" if beside else ""))
    return lines[::-1]


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each file that could not be made or run, and for each whose activations are not int8."""
    lines = [f"{row.name}, {row.form}: {row.error}" for row in rows if row.error]
    return lines + [f"{row.name}, int8: {row.how}" for row in rows if row.how.startswith("dynamic")]
