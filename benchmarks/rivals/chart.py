"""The picture: latency on this machine against published accuracy, with the frontier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.results import Row, frontier
from segformer_tf.files import atomic

OURS, OTHERS, EDGE = "#D55E00", "#0072B2", "#555555"  # Okabe-Ito: vermillion and blue; gray


def draw(rows: Sequence[Row], out: Path, note: str) -> None:
    """Write a PNG of 840x1080 that is readable at 390 pixels: int8 filled, fp32 hollow, the same network joined.

    Args:
        rows: those without a time or a published accuracy are left out.
        out: to write.
        note: small print.
    """
    from matplotlib.figure import Figure

    placed = [row for row in rows if row.placed]
    figure = Figure(figsize=(7, 9), dpi=120)
    axes = figure.add_axes((0.12, 0.15, 0.85, 0.74))
    axes.set_xscale("log")
    edge = frontier(rows)
    axes.plot(
        [_x(row) for row in edge], [_y(row) for row in edge], color=EDGE, ls="--", lw=1.5, label="frontier", zorder=1
    )
    for key in dict.fromkeys(row.key for row in placed):
        own = [row for row in placed if row.key == key]
        axes.plot([_x(row) for row in own], [_y(row) for row in own], color=_color(own[0]), lw=0.8, alpha=0.6, zorder=2)
        for row in own:
            face = _color(row) if row.form == "int8" else "white"
            axes.scatter(_x(row), _y(row), s=60, facecolor=face, edgecolor=_color(row), linewidth=1.8, zorder=3)
    for color, face, label in (
        (OURS, OURS, "ours, int8"),
        (OURS, "white", "ours, fp32"),
        (OTHERS, OTHERS, "others, int8"),
        (OTHERS, "white", "others, fp32"),
    ):
        axes.scatter([], [], s=60, facecolor=face, edgecolor=color, linewidth=1.8, label=label)
    axes.set_xlabel("milliseconds to the logits of 512x512 pixels", fontsize=13)
    axes.set_ylabel("published mean IoU on ADE20K, %", fontsize=13)
    axes.tick_params(labelsize=12, which="both")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "125" else "")
    axes.grid(alpha=0.3, which="both")
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=12)
    _label(axes, placed)
    figure.text(0.02, 0.02, note, fontsize=10, parse_math=False)
    with atomic(out) as part:
        figure.savefig(part, format="png")


def _x(row: Row) -> float:
    assert row.logits_ms is not None
    return row.logits_ms


def _y(row: Row) -> float:
    assert row.mean_iou is not None
    return row.mean_iou


def _color(row: Row) -> str:
    return OURS if row.key.startswith("ours_") else OTHERS


def _label(axes: Any, placed: Sequence[Row]) -> None:
    """A name for each network, at its fastest file, where it covers no other name and no point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    axes.autoscale_view()  # or the places would be those of an empty picture
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    places = axes.transData.transform([(_x(row), _y(row)) for row in placed])
    taken = [Bbox([place - 8, place + 8]) for place in places]
    firsts = [min((row for row in placed if row.key == key), key=_x) for key in dict.fromkeys(r.key for r in placed)]
    for row in sorted(firsts, key=_y):
        for dx, dy, side in _PLACES:
            text = axes.annotate(
                row.name, (_x(row), _y(row)), (dx, dy), textcoords="offset points", ha=side, va="center", fontsize=11,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}, parse_math=False,
                arrowprops={"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 4},
            )  # fmt: skip
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            if not box.count_overlaps(taken) and axes.bbox.count_contains(box.corners()) == 4:
                break
            text.remove()
        else:
            continue
        taken.append(box)


_PLACES = [
    (sign * away, up, side)
    for away in (9, 20, 40, 70)
    for up in (0, 12, -12, 24, -24, 40, -40, 60, -60)
    for sign, side in ((1, "left"), (-1, "right"))
]
