"""The verbs of a device, `predict` and `benchmark`, without TensorFlow."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
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
from segformer_tf.edge.predict_arguments import model_and_images
from segformer_tf.edge.segmenter import Result, Segmenter
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder, refuse_existing
from segformer_tf.image import DEEP_SUFFIXES, is_deep_file, largest_value_of, load_image
from segformer_tf.labels import Labels
from segformer_tf.terminal import plain_console


def predict(
    *files: Path,
    out: Path = Path("predictions"),
    runtime: str | None = None,
    threads: int | None = None,
    labels: Path | None = None,
    size: tuple[int, int] | None = None,
    foreign: Annotated[ForeignOptions | None, Parameter(name="*")] = None,
    bits: int | None = None,
    overwrite: bool = False,
) -> None:
    """Segment images with a TFLite file; needs no TensorFlow.

    Writes NAME_mask.png (palette PNG, index = class id) and NAME_overlay.png (with a legend) for every image, and
    predictions.json with the classes and their shares.

    For instance:

        segformer predict photo.jpg --out seen/

        segformer predict model.tflite photo.jpg --out seen/

        segformer predict model.tflite photos/ --out seen/ --runtime tflite-runtime

    A file from elsewhere needs the names of its classes, and the options that its metadata lacks:

        segformer predict theirs.tflite photos/ --labels names.txt --mean 127.5 --std 127.5

    Parameters
    ----------
    files
        A file made by `segformer export`, then images or folders of images. Without a model, the street scenes model
        of this repository is used.
    out
        Folder for the pictures; made if it is missing.
    runtime
        litert, tflite-runtime, or litert-gpu, which uses a GPU or SwiftShader. Default: the fastest installed one on
        the CPU.
    threads
        CPU threads. Default: all cores, four at most. On a busy machine tflite-runtime is far faster with 1.
    labels
        Text file of class names, one per line, for a .tflite from elsewhere; one name is enough for one channel.
    size
        Height and width, for a .tflite that takes images of any size.
    bits
        Bits in use, 8 to 16, in images of more than 8 bits per channel. Default: as in the model's training, or 16.
    overwrite
        Replace the files of an earlier run.
    """
    model, paths = model_and_images(files)
    names = _output_names(paths)
    contract = asdict((foreign or ForeignOptions()).contract(size))
    own_labels = Labels.read(labels) if labels else None
    segmenter = Segmenter(model, runtime=runtime, threads=threads, labels=own_labels, bits=bits, **contract)
    if not overwrite:
        refuse_existing([out / "predictions.json", *(path for name in names for path in Result.paths(out, name))])
    make_folder(out)
    for note in filter(None, (segmenter.license, segmenter.said)):
        print(f"{model}: {note}", file=sys.stderr)
    console = plain_console()
    records: dict[str, object] = {}
    times, errors, dark = [], [], ""
    for path, name in zip(track(paths, "segmenting", console=console), names, strict=True):
        try:
            result = segmenter(load_image(path, bits=segmenter.bits))
            if segmenter.bits is None and not dark and (dark := _seems_dark(path)):
                print(dark, file=sys.stderr)
        except InputError as error:
            errors.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        result.save(out, name)
        records[str(path)] = json.loads(result.to_json())
        times.append(sum(result.speed.values()))
    if times:
        with atomic(out / "predictions.json") as part:
            part.write_text(json.dumps(records, indent=1), "utf-8")
        console.print(f"{_count_images(len(times))}, median {np.median(times):.1f} ms from pixels to mask -> {out}")
    if errors:
        raise InputError("\n".join([*errors, f"left out: {len(errors)} of {_count_images(len(paths))}"]))


def _seems_dark(path: Path) -> str:
    """A warning if a file of 16 bits seems to use fewer, so that it is nearly black, or ""."""
    if path.suffix.lower() not in DEEP_SUFFIXES or not is_deep_file(path):
        return ""
    if (largest := largest_value_of(path)) >= 1 << 14:
        return ""
    return (
        f"{path}: its values reach {largest}, of 65535 that 16 bits hold, and the model's metadata gives no number of "
        f"bits; if they are of {largest.bit_length()} bits or so, give --bits"
    )


def _count_images(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"


def _output_names(paths: list[Path]) -> list[str]:
    """Stems, or whole names if stems clash (a.jpg beside a.png); raises InputError if names clash too."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    if clashes := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"two images are named {clashes[0]}: their results would overwrite each other; predict them separately"
        )
    return names


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
        Runtimes to use, of litert, tflite-runtime and litert-gpu. Default: all on the CPU that are installed.
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
