"""The verb `benchmark`, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.progress import track

from segformer_tf.edge.benchmark.report import (
    files_table,
    read_scores,
    runtimes_table,
    speed_table,
    write_csv,
    write_picture,
)
from segformer_tf.edge.benchmark.scatter_plot import check_matplotlib
from segformer_tf.edge.benchmark.timing import time_files
from segformer_tf.edge.foreign_options import ForeignOptions
from segformer_tf.errors import InputError
from segformer_tf.files import refuse_existing
from segformer_tf.terminal import plain_console


def benchmark(
    *models: Path,
    runtime: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    threads: int = 2,
    repeats: int = 30,
    warm_up: int = 3,
    image: Path | None = None,
    gmac: float | None = None,
    scores: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    size: tuple[int, int] | None = None,
    foreign: Annotated[ForeignOptions | None, Parameter(name="*")] = None,
    csv: Path | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Time TFLite files side by side; needs no TensorFlow.

    Each file on each runtime has a process of its own, which segments an image as `segformer predict` does. They take
    turns, image by image, so that a busy moment of the machine hits all of them.

    The columns:

    - load, resize, mask: ms to decode the image, to fit it to the input, and from logits to classes at the image's
      size.
    - invoke: ms from pixels to logits; p50 is the median, nine of ten calls stay below p90.
    - total: ms of all four. All but p90 are medians.
    - of matmul: operations per second of an invoke over those of numpy's float32 matrix product, timed in the same
      turns on as many threads. Int8 can exceed 100 %.
    - MB: size of the file.
    - GMAC: 10^9 multiply-accumulates of an invoke, in the file's convolutions and matrix products.
    - ops: operations in the file.
    - peak MB: most memory held by a process that loaded the file and made one mask, with Python and the runtime; for
      litert-gpu also the CPU's interpreter, which checks the first result.
    - parts: parts of the graph that XNNPACK runs. The runtime's own kernels run the operations outside; they split the
      graph and are often the slow ones. A dash: the runtime does not list its operations.

    For instance:

        segformer benchmark fp32.tflite int8.tflite

        segformer benchmark model.tflite --runtime litert tflite-runtime --threads 4 --warm-up 10 --repeats 100

        segformer benchmark model.tflite --image photo.jpg --csv times.csv

        segformer benchmark plain.tflite rewritten.tflite --gmac 4.09

        segformer evaluate fp32.tflite --data data --json > fp32.json

        segformer evaluate int8.tflite --data data --json > int8.json

        segformer benchmark fp32.tflite int8.tflite --scores fp32.json int8.json --picture size.png

    Parameters
    ----------
    models
        Files made by `segformer export`, or others.
    runtime
        Of litert, tflite-runtime, litert-gpu and litert-fp16. Default: all on the CPU that are installed.
    threads
        CPU threads.
    repeats
        Timed images for each file on each runtime.
    warm_up
        Images before them that do not count, after one that measures memory.
    image
        A photo to segment. Default: a synthetic JPEG of each file's input size, so nothing is resized.
    gmac
        GMAC to count shares by instead of each file's own, so that a rewrite that saves some does not lower its share.
    scores
        Outputs of `segformer evaluate MODEL --json`, one file per model in order: adds mean IoU.
    size
        Height and width, for models that take images of any size.
    csv
        File to write all rows to, with versions, machine and date.
    picture
        PNG to draw: median invoke against mean IoU, or against MB without --scores; a circle's area is MB. Needs
        matplotlib.
    overwrite
        Replace those files.
    """
    if picture and picture.suffix.lower() != ".png":
        raise InputError(f"--picture must end in .png. Received: {picture}")
    if picture:
        check_matplotlib()
    if not overwrite:
        refuse_existing([path for path in (csv, picture) if path])
    console = plain_console()
    result = time_files(
        models,
        runtimes=runtime,
        threads=threads,
        repeats=repeats,
        warm_up=warm_up,
        image=image,
        gmac=gmac,
        scores=[read_scores(path) for path in scores] if scores else None,
        contract=(foreign or ForeignOptions()).contract(size),
        # No thread that draws during timing.
        watch=lambda turns: track(turns, "timing", console=console, transient=True, auto_refresh=False),
    )
    try:
        if csv:
            write_csv(csv, result)
        if picture:
            write_picture(picture, result)
    finally:  # show the result even if a file cannot be written
        for table in (speed_table(result), files_table(result), runtimes_table(result)):
            console.print(table)
