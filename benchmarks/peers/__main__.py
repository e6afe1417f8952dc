"""SegFormer on this CPU by several frameworks and engines, in one interleaved run.

pip install '.[train,convert,peers]'
python -m benchmarks.peers --ours fp32.tflite
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from csv import DictWriter
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import partial
from math import isnan
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter, run
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from benchmarks.files import CLASSES
from benchmarks.peers.files import prepare
from benchmarks.peers.race import Contender, Row, differences, field, folds_worth, summarize
from benchmarks.remote import Remote
from segformer_tf.config import variant_config
from segformer_tf.edge.benchmark.timing import take_turns
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder
from segformer_tf.terminal import plain_console


def main(
    *,
    ours: Annotated[list[Path], Parameter(consume_multiple=True, negative=())],
    variant: Literal["b0", "b2"] = "b0",
    runtime: Literal["litert", "tflite-runtime"] = "litert",
    threads: int = 2,
    rounds: int = 20,
    cache: Path = Path("runs/peers"),
    csv: Path | None = None,
) -> None:
    """Race our exported SegFormer against keras-hub's and transformers' on LiteRT, ONNX Runtime, OpenVINO and PyTorch.

    Images are 512x512, classes 150, the batch 1. Two times are taken of each: from an input in memory to logits
    (at 1/4 of the image; keras-hub's graph has them at full size only), and from the same input to a 512x512 class
    mask by what its users call: ours by segformer_tf.edge.logits_to_mask, keras-hub by numpy's arg-max, transformers
    by torch's bilinear resize and arg-max on the same number of threads.

    Each contender has a process of its own, which is stopped during the turns of the others; a turn is a call that
    does not count, one to the logits and one to the mask. A peer whose package is missing is left out with a line.
    The peers' files are made in the first run, of random weights (some minutes), and kept.

    For instance:

        segformer export model.keras --size 512 512 --out fp32.tflite

        python -m benchmarks.peers --ours fp32.tflite

        python -m benchmarks.peers --ours fp32.tflite int8.tflite --runtime tflite-runtime

        python -m benchmarks.peers --ours fp32.onnx int8.onnx

        python -m benchmarks.peers --variant b2 --ours b2.tflite --rounds 10

    Parameters
    ----------
    ours
        Files of `segformer export --size 512 512`, of a model of 150 classes and the same variant; an .onnx is run
        on each engine for it, and where all are .onnx, so are the others. Ratios are to the first.
    variant
        Which SegFormer the others build.
    runtime
        TFLite runtime of ours and keras-hub's; tflite-runtime races these alone.
    threads
        CPU threads of each contender.
    rounds
        Turns of each contender, after one of warm-up.
    cache
        Folder of the peers' files and of log.txt, with their output.
    csv
        File to write the rows to. Default: VARIANT-RUNTIME.csv in the cache.
    """
    if threads < 1 or rounds < 1:
        raise InputError(f"--threads and --rounds must be positive. Received: {threads} and {rounds}")
    choose_runtime(runtime)
    if runtime == "tflite-runtime" and any(path.suffix == ".onnx" for path in ours):
        raise InputError("--runtime tflite-runtime races .tflite files alone")
    if missing := [path for path in ours if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such file; `segformer export` makes it")
    parameters = variant_config(variant, num_classes=CLASSES).parameter_count
    for path in ours:
        # One byte to four of each, some merged by the export, and the graph.
        if not 0.8 * parameters < (size := path.stat().st_size) < 5 * parameters:
            raise InputError(f"{path}: {size} bytes are no {variant}, which has {parameters:,} parameters; --variant?")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads sleep while they wait: see `onnxruntime`
    make_folder(cache / variant)
    console = plain_console()
    with ExitStack() as stack:
        remotes: dict[str, Remote] = {}
        packages: dict[str, tuple[str, str]] = {}
        logits: dict[str, np.ndarray] = {}
        for contender in field(variant, ours, runtime):
            name = contender.name
            try:
                with console.status(Text(name)):
                    remote = stack.enter_context(_start(contender, variant, threads, cache))
                    remote.call("turn")
                    packages[name] = remote.call("about")
                    if contender.same_weights:
                        logits[name] = remote.call("logits")
            except InputError as reason:
                if contender.needed:
                    raise InputError(str(reason)) from None
                console.print(f"{name}: left out ({reason})")
                continue
            remotes[name] = remote
        with console.status(f"{len(remotes)} contenders, {rounds} rounds"):
            turns = [partial(_turn, name, remote) for name, remote in remotes.items()]
            seconds = take_turns(turns, repeats=rounds, warm_up=1)
    times = {name: np.asarray(spent) for name, spent in zip(remotes, seconds, strict=True)}
    rows = summarize(times, packages, differences(logits))
    about: dict[str, object] = {
        "variant": variant,
        "threads": threads,
        "cores": os.cpu_count(),
        "rounds": rounds,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    csv = csv or cache / f"{variant}-{runtime}.csv"
    _write_csv(csv, rows, about)
    console.print(_table(rows, ", ".join(f"{key} {value}" for key, value in about.items())))
    notes = ["Medians (90th percentile) in ms; ratios to the first row."]
    if logits:
        name, values = next(iter(logits.items()))
        notes.append(f"Differences are from {name}, whose logits reach {np.abs(values).max():.2f}.")
    makers = {package for row in rows if row.made_by for package in row.made_by.split(", ")}
    notes.append(f"Files made by {', '.join(sorted(makers))}." if makers else "")
    console.print(*notes, f"Rows: {csv}")
    for line in folds_worth(rows, ours):
        console.print(Text(line))


def _start(contender: Contender, variant: str, threads: int, cache: Path) -> Remote:
    """Start its process, after making its file if there is none; raises InputError if either fails."""
    file, log = contender.file, cache / "log.txt"
    if isinstance(file, str):
        Remote(prepare, file, variant, cache / variant, log=log).close()
        file = cache / variant / file
    files = (file,) if file else ()
    return Remote(contender.open, *files, *contender.arguments, threads, log=log)


def _turn(name: str, remote: Remote) -> tuple[float, float]:
    try:
        return remote.call("turn")
    except InputError as reason:
        raise InputError(f"{name}: stopped in the middle of the race ({reason})") from None


def _table(rows: list[Row], title: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("contender", overflow="fold")
    for column in ("to logits", "ours is", "to mask", "ours is", "differs by"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        masked = not isnan(row.mask_ms)
        table.add_row(
            Text.assemble(row.contender, "\n", (row.engine, "dim")),
            f"{row.logits_ms:.1f} ({row.logits_p90_ms:.0f})",
            f"{row.logits_ratio:.2f}x",
            f"{row.mask_ms:.1f} ({row.mask_p90_ms:.0f})" if masked else "needs torch",
            f"{row.mask_ratio:.2f}x" if masked else "",
            "" if row.differs_by is None else f"{row.differs_by:.1e}",
        )
    return table


def _write_csv(path: Path, rows: list[Row], about: dict[str, object]) -> None:
    with atomic(path) as part, part.open("w", newline="") as file:
        writer = DictWriter(file, [*(column.name for column in fields(Row)), *about])
        writer.writeheader()
        writer.writerows({**asdict(row), **about} for row in rows)


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"peers: {error}")
