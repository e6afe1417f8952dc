"""The same keras-hub weights by its own LiteRT export and by our import and export: error and time, interleaved.

pip install '.[train,convert,peers]'
python -m benchmarks.peers.keras_hub
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from cyclopts import run
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.files import CLASSES, versions
from benchmarks.peers import engines
from benchmarks.peers.keras_hub_files import BY_DEFAULT, EXPECTED, OURS, THEIRS, make_files
from benchmarks.picture import SIZE
from benchmarks.remote import Remote
from segformer_tf.edge.benchmark.timing import take_turns
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.errors import InputError
from segformer_tf.files import make_folder
from segformer_tf.metrics import relative_error
from segformer_tf.terminal import plain_console


def main(
    *,
    variant: Literal["b0", "b1", "b2"] = "b0",
    threads: int = 2,
    rounds: int = 20,
    cache: Path = Path("runs/keras_hub"),
) -> None:
    """Export one keras-hub SegFormer twice, by ``model.export(format="litert")`` and by ours, and race the files.

    Images are 512x512, classes 150, the batch 1, the weights random, norms and statistics off their defaults. Errors
    are of the logits at full size, against keras-hub's own forward pass with ``training=False``; ours are resized to
    it. Each file has a process of its own, which is stopped during the turns of the other.

    Parameters
    ----------
    variant
        Which SegFormer.
    threads
        CPU threads of each.
    rounds
        Turns of each, after one of warm-up.
    cache
        Folder for the files, which are made anew, and log.txt.
    """
    if threads < 1 or rounds < 1:
        raise InputError(f"--threads and --rounds must be positive. Received: {threads} and {rounds}")
    runtime = choose_runtime("litert")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    make_folder(cache)
    console, log = plain_console(), cache / "log.txt"
    with console.status("keras-hub's network, and both exports"):
        Remote(make_files, variant, cache, log=log).close()
    with ExitStack() as stack, console.status(f"{rounds} rounds"):
        opened = [
            stack.enter_context(Remote(open_, cache / name, runtime, threads, log=log))
            for open_, name in ((engines.keras_hub, THEIRS), (engines.ours, OURS))
        ]
        logits = [remote.call("logits") for remote in opened]
        seconds = take_turns([partial(remote.call, "turn") for remote in opened], repeats=rounds, warm_up=1)
    expected, by_default = (np.load(cache / name) for name in (EXPECTED, BY_DEFAULT))
    logits[1] = full_size(logits[1])
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for column in ("error", "largest", "logits, ms", "ratio", "mask, ms", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    medians = [1e3 * np.median(np.asarray(spent), axis=0) for spent in seconds]
    for name, ours, median in zip(("keras-hub's export", "our import and export"), logits, medians, strict=True):
        times = [text for t, base in zip(median, medians[1], strict=True) for text in (f"{t:.1f}", f"{t / base:.2f}x")]
        table.add_row(name, *errors(ours, expected), *times)
    table.add_row("keras-hub, no training=False", *errors(by_default, expected))
    console.print(table)
    date = datetime.now(UTC).date().isoformat()
    packages = versions("keras-hub", "keras", "tensorflow", "ai-edge-litert")
    console.print(
        f"{variant}, {SIZE[0]}x{SIZE[1]}, {CLASSES} classes, {threads} threads, medians of {rounds} rounds, {date}, "
        f"{packages}. error: Euclidean, over the logits'; largest: difference over largest logit. The mask of "
        "keras-hub is the arg-max of its logits, which are at full size; ours is resized from 1/4."
    )


def errors(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[str, str]:
    """Relative Euclidean error, and largest difference over the largest logit."""
    largest = np.abs(logits - expected).max() / np.abs(expected).max()
    return f"{relative_error(logits, expected):.1e}", f"{largest:.1e}"


def full_size(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits at 1/4 resized as keras-hub resizes its own."""
    import tensorflow as tf

    return np.asarray(tf.image.resize(logits, SIZE))


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"keras_hub: {error}")
