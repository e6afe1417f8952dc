"""The chart of scores, and the contact sheet of what the models saw and answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from segformer_tf.files import atomic
from segformer_tf.image import Pixels, fit_image
from segformer_tf.overlay import class_ids, overlay
from training.analysis.palette import style
from training.analysis.robustness.corruptions import CLEAN, GROUPS, Cell, corrupt
from training.analysis.robustness.summary import Summary
from training.data.open import Source
from training.evaluate import Predictor
from training.runs.plots import plot_panel

_SIDE = 480  # pixels of a picture's longer side on the sheet


def draw_chart(summaries: Sequence[Summary], out: Path) -> None:
    """Mean IoU of each corruption and model as a PNG that a phone shows whole; dashed lines are without corruption."""
    figure = chart(summaries)
    with atomic(out) as part:
        figure.savefig(part, dpi=150)


def chart(summaries: Sequence[Summary]) -> Any:
    """The matplotlib figure of `draw_chart`."""
    rows, ticks, edges, y = dict[str, float](), list[str](), list[float](), 0.0
    for group in GROUPS.values():
        present = [name for name in group if name in summaries[0].severities]
        for name in present:
            rows[name], y = y, y + 1
            ticks.append(name.replace("_", " "))
        if present:
            edges.append(y - 0.5)
    figure = Figure(figsize=(5, 1.6 + 0.27 * len(rows) + 0.22 * len(summaries)), layout="constrained")
    axes = figure.subplots()
    offsets = np.linspace(-0.22, 0.22, len(summaries)) if summaries[1:] else [0.0]
    for i, (each, offset) in enumerate(zip(summaries, offsets, strict=True)):
        look = style(i)
        color = look["color"]
        axes.axvline(each.clean, color=color, linestyle=(2 * i, (3, 3)), linewidth=1)
        for name, position in rows.items():
            levels = list(each.severities[name].values())
            height = position + offset
            axes.plot([min(levels), max(levels)], [height] * 2, color=color, alpha=0.35, linewidth=2)
        axes.scatter(
            [each.corruptions[name] for name in rows],
            [position + offset for position in rows.values()],
            s=22,
            zorder=3,
            label=f"{each.name} (kept {each.retention:.0%})",
            **look,
        )
    for edge in edges[:-1]:
        axes.axhline(edge, color="0.8", linewidth=0.8)
    axes.set_yticks(list(rows.values()), ticks)
    axes.set_ylim(y - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("mean IoU (0 to 1); bars: all severities;\ndashed: without corruption")
    axes.grid(axis="x", alpha=0.3)
    for text in figure.legend(loc="outside upper center", frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def draw_sheet(
    cells: Sequence[Cell], names: Sequence[str], predictors: Sequence[Predictor], source: Source, index: int, out: Path
) -> None:
    """One image under the lowest, middle and highest severity of each corruption, and the masks at the highest.

    Args:
        cells: those that were scored.
        names, predictors: the models.
        source, index: the image.
        out: a PNG.
    """
    image, truth = source[index]
    factor = min(1.0, _SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
    by_corruption: dict[str, list[Cell]] = {}
    for cell in cells:
        by_corruption.setdefault(cell.corruption, []).append(cell)
    across = max(2, *(min(3, len(own)) for own in by_corruption.values()))
    blank = np.full((*size, 3), 255, np.uint8)
    seen = [truth.ravel()]
    rows: list[list[Pixels]] = []
    titles: list[list[str]] = []
    for corruption, own in by_corruption.items():
        chosen = [own[0], own[len(own) // 2], own[-1]] if len(own) > 2 else own
        corrupted = [corrupt(image, cell, index=index) for cell in chosen]
        masks = [predict(corrupted[-1]) for predict in predictors]
        seen += [mask.ravel() for mask in masks]
        pictures = [fit_image(pixels, size) for pixels in corrupted]
        pictures += [blank] * (across - len(pictures))
        texts = [_title(cell) for cell in chosen] + [""] * (across - len(chosen))
        if corruption == CLEAN.corruption:
            pictures[1], texts[1] = fit_image(overlay(image, truth, source.labels), size), "truth"
        pictures += [fit_image(overlay(corrupted[-1], mask, source.labels), size) for mask in masks]
        rows.append(pictures)
        titles.append(texts + list(names))
    colors = source.labels.colors
    legend = [(source.labels.names[i], colors[i]) for i in class_ids(np.concatenate(seen))]
    plot_panel(rows, out, titles=titles, legend=legend)


def _title(cell: Cell) -> str:
    return f"{cell.corruption.replace('_', ' ')} {cell.severity}" if cell.severity else "no corruption"
