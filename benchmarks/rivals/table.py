"""The table in 80 columns, where each accuracy was published, and what could not be made."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from benchmarks.rivals.results import Row

NOT_PUBLISHED = "not published"


def table(rows: Sequence[Row]) -> Table:
    """The rows in 80 columns."""
    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("network", overflow="fold", max_width=22)
    for column in ("", "M par.", "GMAC", "MB", "logits\nms", "mask\nms", "CPU\nms", "peak\nMB", "mIoU"):
        result.add_column(column, justify="right", no_wrap=True)
    for line in cells(rows):
        result.add_row(*map(Text, line))
    return result


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Ten cells for each file; a network's numbers that its files share stand in its first line."""
    lines, last = [], ""
    for row in rows:
        shared = ["", "", "", ""]  # name, parameters, GMAC, accuracy
        if row.key != last:
            own = [each for each in rows if each.key == row.key]
            parameters = next((each.parameters for each in own if each.parameters is not None), None)
            gmac = next((each.gmac for each in own if each.gmac is not None), None)
            accuracy = "-" if row.mean_iou is None else f"{row.mean_iou:.1f}"
            shared = [row.name, _number(parameters, 2), _number(gmac, 1), accuracy]
        last = row.key
        times = "error" if row.error else _milliseconds(row.logits_ms), _milliseconds(row.mask_ms)
        sizes = [_number(row.megabytes, 1), *times, _number(row.cpu_ms, 0), _number(row.memory, 0)]
        lines.append([shared[0], _label(row), *shared[1:3], *sizes, shared[3]])
    return lines


def _label(row: Row) -> str:
    """The form in four letters: dyn8 where activations are quantized as they come."""
    return "dyn8" if row.how.startswith("dynamic") else row.form


def _milliseconds(value: float | None) -> str:
    return _number(value, 0 if (value or 0) >= 100 else 1)


def _number(value: float | None, digits: int) -> str:
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
