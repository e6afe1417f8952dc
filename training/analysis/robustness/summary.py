"""The scores of all cells as a table of 80 columns and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
from rich.table import Table

from segformer_tf.terminal import narrow_table
from training.analysis.robustness.corruptions import CLEAN, GROUPS, Cell
from training.analysis.robustness.record import Record

_ACROSS = 4  # models side by side
_LINE = 80  # characters


@dataclass(frozen=True)
class Summary:
    """One model, 0..1.

    Attributes:
        name: of the model.
        clean: mean IoU without corruption.
        severities: mean IoU of each corruption at each of its severities.
    """

    name: str
    clean: float
    severities: dict[str, dict[int, float]]

    @property
    def corruptions(self) -> dict[str, float]:
        """Mean IoU of each corruption, the mean over its severities."""
        return {name: float(np.mean(list(each.values()))) for name, each in self.severities.items()}

    @property
    def mean(self) -> float:
        """Mean over the corruptions, each counting alike."""
        return float(np.mean(list(self.corruptions.values()))) if self.severities else nan

    @property
    def retention(self) -> float:
        """`mean` over `clean`: the share of the score that is kept."""
        return self.mean / self.clean if self.clean else nan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; nan becomes None."""
        return {
            "model": self.name,
            "clean": _plain(self.clean),
            "mean": _plain(self.mean),
            "retention": _plain(self.retention),
            "corruptions": {
                name: {
                    "mean": _plain(mean),
                    "severities": {str(key): _plain(value) for key, value in self.severities[name].items()},
                }
                for name, mean in self.corruptions.items()
            },
        }


def summarize(names: Sequence[str], cells: Sequence[Cell], record: Record) -> list[Summary]:
    """One summary for each model; all `cells` must be in `record`."""
    summaries = []
    for i, name in enumerate(names):
        severities: dict[str, dict[int, float]] = {}
        for cell in cells:
            if cell != CLEAN:
                severities.setdefault(cell.corruption, {})[cell.severity] = record.scores[cell.name][i].mean_iou
        summaries.append(Summary(name, record.scores[CLEAN.name][i].mean_iou, severities))
    return summaries


def tables(summaries: Sequence[Summary]) -> list[Table]:
    """Mean IoU of each corruption, a column for each model; several tables where they are many."""
    return [_table(summaries[i : i + _ACROSS]) for i in range(0, len(summaries), _ACROSS)]


def _table(summaries: Sequence[Summary]) -> Table:
    table = narrow_table(("corruption", "severity"))
    taken = 16 + 8 + 2 * (len(summaries) + 2) + 1  # both columns, and the gaps between all
    for each in summaries:
        width = (_LINE - taken) // len(summaries)
        table.add_column(each.name, justify="right", overflow="fold", max_width=width)
    table.add_row("none", "", *(_text(each.clean) for each in summaries), end_section=True)
    for group in GROUPS.values():
        rows = [name for name in group if name in summaries[0].severities]
        for name in rows:
            levels = summaries[0].severities[name]
            span = f"{min(levels)} to {max(levels)}" if len(levels) == max(levels) - min(levels) + 1 > 1 else ""
            cells = (_text(each.corruptions[name]) for each in summaries)
            table.add_row(
                name.replace("_", " "), span or " ".join(map(str, levels)), *cells, end_section=name == rows[-1]
            )
    count = len(summaries[0].severities)
    table.add_row(f"mean of {count}", "", *(_text(each.mean) for each in summaries))
    table.add_row("kept", "", *(_text(each.retention, percent=True) for each in summaries))
    return table


def _plain(value: float) -> float | None:
    return None if isnan(value) else round(value, 6)


def _text(value: float, *, percent: bool = False) -> str:
    if isnan(value):
        return "-"
    return f"{value:.1%}" if percent else f"{value:.4f}"
