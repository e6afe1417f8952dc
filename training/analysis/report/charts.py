"""Charts of a page, by matplotlib: curves of a training, and how far confidences can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.analysis.report.calibration import BINS, Calibration
from training.analysis.report.pictures import data_address
from training.runs.plots import Row, classes_in, confusion_figure, draw_classes, draw_curve

_SIZE = (5.2, 3.4)  # inches: 10 points are 10 pixels on a phone
_COLORS = ("#0072B2", "#E69F00")


def curves(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(What it shows, picture) of loss, score and the classes' IoU over the epochs of a history."""
    charts = []
    scores = [name for name in ("mean_iou", "top_1") if any(f"val_{name}" in row for row in rows)]
    for name in ("loss", *scores):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw_curve(figure.subplots(), rows, name)
        charts.append((f"{name.replace('_', ' ')} over epochs, in training and validation", _svg(figure)))
    if classes := classes_in(rows):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw_classes(figure.subplots(), rows, classes)
        charts.append(("IoU of the classes in validation over epochs", _svg(figure)))
    return charts


def reliability(calibrations: Sequence[Calibration], names: Sequence[str]) -> str:
    """Reliability diagram: accuracy over confidence, and below it the pixels of each bin."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 1), (0, 1), color="0.5", linestyle="--", linewidth=1, label="as right as sure")
    edges = np.linspace(0, 1, BINS + 1)
    for each, name, color, marker in zip(calibrations, names, _COLORS, "os", strict=False):
        above.plot(
            each.mean_confidence, each.accuracy, marker=marker, color=color, label=f"{name}, ECE {each.error:.3f}"
        )
        below.stairs(each.pixels / max(each.pixels.sum(), 1), edges, color=color, fill=len(calibrations) == 1)
    above.set_ylabel("accuracy of its pixels")
    above.set_ylim(0, 1)
    below.set_ylabel("share of pixels")
    below.set_xlabel("confidence")
    below.set_xlim(0, 1)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    for text in above.legend(loc="upper left").get_texts():
        text.set_parse_math(False)
    return _svg(figure)


def confusion_picture(matrix: NDArray[np.int64], names: Sequence[str]) -> str:
    """The confusion matrix of many classes."""
    return _svg(confusion_figure(matrix, names))


def _svg(figure: Figure) -> str:
    content = BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "report"}):
        warnings.filterwarnings("ignore", "Glyph")  # of names in scripts that its font lacks
        figure.savefig(content, format="svg", metadata={"Date": None})
    return data_address("image/svg+xml", content.getvalue())
