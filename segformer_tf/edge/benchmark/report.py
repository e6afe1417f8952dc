"""Output of `segformer benchmark`: tables, rows of a CSV file, points of a picture."""

from __future__ import annotations

import json
from csv import DictWriter
from dataclasses import asdict, fields
from pathlib import Path

from rich.table import Table

from segformer_tf.edge.benchmark.scatter_plot import Point, plot_points
from segformer_tf.edge.benchmark.timing import Benchmark, Conditions, Timing
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.terminal import narrow_table

_MISSING = "-"
COLUMNS = tuple(field.name for kind in (Timing, Conditions) for field in fields(kind))


def speed_table(result: Benchmark) -> Table:
    """Milliseconds of each stage, and the share of the machine's speed."""
    conditions, images = result.conditions, {(t.image_height, t.image_width) for t in result.timings}
    size = " ".join(f"{height}x{width}" for height, width in images) if len(images) == 1 else "of each input's size"
    table = narrow_table(
        ("file", "runtime"),
        ("load", "resize", "invoke\np50", "invoke\np90", "mask", "total", "of\nmatmul"),
        title=f"ms of {conditions.repeats} interleaved calls after {conditions.warm_up} to warm up, "
        f"threads: {conditions.threads}, image: {conditions.image}, {size}",
        caption=f"{conditions.machine}, {conditions.cores} cores; "
        f"float32 matrix product: {conditions.matmul_gflops:.1f} GFLOP/s"
        + (f"; shares count {conditions.gmac_counted:g} GMAC" if conditions.gmac_counted else ""),
    )
    for t in result.timings:
        times = (f"{value:.1f}" for value in (t.load, t.resize, t.p50, t.p90, t.mask, t.total))
        table.add_row(t.path.name, _runtime(t), *times, _MISSING if t.share is None else f"{t.share:.1%}")
    return table


def files_table(result: Benchmark) -> Table:
    """What each file is, on any runtime."""
    files: dict[Path, Timing] = {}
    for t in result.timings:  # the row of the first runtime that lists operations
        if t.path not in files or files[t.path].ops is None:
            files[t.path] = t
    scored = any(t.mean_iou is not None for t in files.values())
    numbers = ("input", "classes", "MB", "GMAC", "ops", *(["mIoU"] if scored else []))
    table = narrow_table(("file", "recipe"), numbers, title="the files")
    for t in files.values():
        table.add_row(
            t.path.name,
            t.recipe,
            f"{t.height}x{t.width}",
            str(t.classes),
            f"{t.megabytes:.2f}",
            _MISSING if t.gmac is None else f"{t.gmac:.2f}",
            _MISSING if t.ops is None else str(t.ops),
            *([] if t.mean_iou is None else [f"{t.mean_iou:.4f}"]),
        )
    return table


def runtimes_table(result: Benchmark) -> Table:
    """What each runtime makes of each file."""
    table = narrow_table(("file", "runtime"), ("peak MB", "parts"), title="what the runtimes make of them")
    table.add_column("ops outside XNNPACK's parts", overflow="fold")
    for t in result.timings:
        parts = _MISSING if t.partitions is None else str(t.partitions)
        table.add_row(t.path.name, _runtime(t), f"{t.memory:.0f}", parts, _outside(t))
    return table


def write_csv(path: Path, result: Benchmark) -> None:
    """`COLUMNS` of every timing, unknown values empty; raises InputError if the file cannot be written."""
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = DictWriter(file, COLUMNS)
        writer.writeheader()
        for timing in result.timings:
            row = asdict(result.conditions) | asdict(timing)
            row["outside"] = None if timing.outside is None else _outside(timing)
            writer.writerow({name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()})


def write_picture(path: Path, result: Benchmark) -> None:
    """Plot invoke against mean IoU, or against megabytes without scores; a circle's area is its file's size.

    Raises InputError if it cannot be written.
    """
    scored = all(t.mean_iou is not None for t in result.timings)
    points = [
        Point(
            x=t.p50,
            y=t.megabytes if t.mean_iou is None else t.mean_iou,
            area=t.megabytes,
            label=t.path.stem,
            group=_runtime(t),
        )
        for t in result.timings
    ]
    conditions = result.conditions
    plot_points(
        path,
        points,
        x_title="invoke, median ms",
        y_title="mean IoU" if scored else "MB",
        note=f"circle area: MB of the file; threads: {conditions.threads}; {conditions.machine}",
    )


def read_scores(path: Path) -> float:
    """`mean_iou`, 0..1, in the output of ``segformer evaluate MODEL --json``; raises InputError if there is none."""
    try:
        score = json.loads(path.read_text("utf-8"))["mean_iou"]
        if isinstance(score, bool) or not 0 <= float(score) <= 1:
            raise ValueError(score)
        return float(score)
    except OSError as error:
        raise InputError(f"{path}: scores that cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f'{path}: expected the output of `segformer evaluate MODEL --json`, with "mean_iou" from 0 to 1'
        ) from None


def _runtime(timing: Timing) -> str:
    return f"{timing.runtime} {timing.runtime_version}"


def _outside(timing: Timing) -> str:
    if timing.outside is None:
        return _MISSING
    return ", ".join(f"{count} {name}" for name, count in timing.outside.items()) or "none"
