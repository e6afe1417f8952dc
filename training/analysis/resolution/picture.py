"""Mean IoU, latency and memory over the size of the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from segformer_tf.files import atomic
from training.analysis.palette import style
from training.analysis.resolution.measure import Row


def draw(rows: Sequence[Row], out: Path) -> None:
    """Write a PNG of three charts, one above the other."""
    figure = charts(rows)
    with atomic(out) as part:
        figure.savefig(part, dpi=150)


def charts(rows: Sequence[Row]) -> Any:
    """The matplotlib figure of `draw`."""
    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(5, 6.2 + 0.22 * len(models)), layout="constrained")
    panels = (("mean_iou", "mean IoU (0 to 1)"), ("milliseconds", "ms to logits"), ("megabytes", "peak MB"))
    axes = figure.subplots(len(panels), 1, sharex=True)
    for each, (attribute, title) in zip(axes, panels, strict=True):
        for i, model in enumerate(models):
            own = [row for row in rows if row.model == model]
            each.plot(
                [row.height * row.width / 1e6 for row in own],
                [getattr(row, attribute) for row in own],
                **style(i),
                label=model if attribute == "mean_iou" else None,
            )
        each.set_ylabel(title)
        each.set_ylim(0, 1.1 * max(each.get_ylim()[1], 1e-9))
        each.grid(alpha=0.3)
    axes[-1].set_xlim(left=0)
    axes[-1].set_xlabel("megapixels of the input")
    for text in figure.legend(loc="outside upper center", frameon=False).get_texts():
        text.set_parse_math(False)
    return figure
