"""The results as Markdown, put into a page between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.results import TIMES, Row, verdict
from benchmarks.rivals.table import cells, failures, sources
from segformer_tf.errors import InputError
from segformer_tf.files import atomic

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
_HEADER = ("network", "", "M parameters", "GMAC", "MB", "logits, ms", "mask, ms", "CPU, ms", "peak MB", "mIoU, %")


def update_page(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Replace what stands between the marks.

    Raises:
        InputError: the file cannot be read or has no such marks.
    """
    try:
        before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path}: expected a line {BEGIN} and a line {END}")
    with atomic(path) as part:
        part.write_text(f"{before}{BEGIN}\n\n{markdown(rows, about)}\n{END}{after}", "utf-8")


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Table, conditions, what is ahead of our b0, sources and failures."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    lines += map(_line, cells(rows))
    turns = [row.turns for row in rows if row.turns] or [0]
    counts = " to ".join(str(count) for count in dict.fromkeys((min(turns), max(turns))))
    lines += [
        "",
        f"512x512, 150 classes, {about['threads']} threads, medians of {counts} "
        f"interleaved turns, random weights ({about['date'][:10]}, {about['processor']}, {about['cores']} cores, "
        f"LiteRT {about['litert']}). CPU: time of all processors to the logits, little changed by other work.",
        "",
    ]
    ours = [row for row in rows if row.key == "ours_b0" and row.placed]
    lines += [f"- {verdict(row, rows, time)}" for row in ours if row.form == "int8" for time in TIMES]
    lines += [
        "",
        "What is published, and beside it the size that is published with it, to compare with the table's:",
        "",
    ]
    lines += [f"- {line}" for line in sources(rows)]
    if errors := failures(rows):
        lines += [
            "",
            "What could not be made or run, or not as the others:",
            "",
            *(f"- {_code(line)}" for line in errors),
        ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _code(line: str) -> str:
    """The error itself as code, so that no character of it is markup."""
    head, _, tail = line.partition(": ")
    return f"{head}: `{tail.replace('`', chr(39))}`"
