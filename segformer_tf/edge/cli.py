"""Verbs `predict` and `benchmark`: the device side of the command, without TensorFlow."""

from __future__ import annotations

import json
import sys
from collections import Counter
from csv import DictWriter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from segformer_tf.edge.benchmark import time_files
from segformer_tf.edge.image import list_images, load_image
from segformer_tf.edge.segmenter import Result, Segmenter
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder, refuse_existing
from segformer_tf.labels import Labels

# Of a clone of the repository; a wheel has no model in it.
DEFAULT_MODEL = Path("models") / "camvid_b0_int8.tflite"


def predict(
    *files: Path,
    out: Path = Path("predictions"),
    runtime: str | None = None,
    threads: int | None = None,
    labels: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Segment images with a TFLite file; needs no TensorFlow.

    Writes NAME_mask.png (palette PNG, index = class id) and NAME_overlay.png for every image, and
    predictions.json with the classes and their shares.

    For instance:

        segformer predict photo.jpg --out seen/

        segformer predict model.tflite photo.jpg --out seen/

        segformer predict model.tflite photos/ --out seen/ --runtime tflite-runtime

    Parameters
    ----------
    files
        A file made by `segformer export`, then images or folders of images. Without a .tflite first, the street
        scenes model of this repository is taken.
    out
        Folder for the pictures; made if it is missing.
    runtime
        litert or tflite-runtime. Default: the faster one that is installed.
    threads
        CPU threads. Default: all cores, four at most. On a busy machine tflite-runtime is far faster with 1.
    labels
        Text file of class names, one a line, for a .tflite from elsewhere. It must take RGB 0..255.
    overwrite
        Replace what an earlier run wrote.
    """
    model, images = _model_and_images(files)
    paths = list_images(images)
    names = _output_names(paths)
    segmenter = Segmenter(model, runtime=runtime, threads=threads, labels=Labels.read(labels) if labels else None)
    if not overwrite:
        refuse_existing([out / "predictions.json", *(path for name in names for path in Result.paths(out, name))])
    make_folder(out)
    if segmenter.license:
        print(f"{model}: {segmenter.license}", file=sys.stderr)
    console = Console()
    records: dict[str, object] = {}
    spent, unread = [], []
    for path, name in zip(track(paths, "segmenting", console=console), names, strict=True):
        try:
            pixels = load_image(path)
        except InputError as error:
            unread.append(str(error))
            continue
        result = segmenter(pixels)
        result.save(out, name)
        records[str(path)] = json.loads(result.to_json())
        spent.append(sum(result.speed.values()))
    if spent:
        with atomic(out / "predictions.json") as part:
            part.write_text(json.dumps(records, indent=1), "utf-8")
        console.print(f"{_counted(len(spent))}, median {np.median(spent):.1f} ms from pixels to mask -> {out}")
    if unread:
        raise InputError("\n".join([*unread, f"left out: {len(unread)} of {_counted(len(paths))}"]))


def _model_and_images(files: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
    """The model to use, and the images."""
    named = bool(files) and files[0].suffix.lower() in (".tflite", ".keras")  # the latter is refused by name
    images = files[1:] if named else files
    if not images:
        raise InputError("no image given; expected [MODEL.tflite] and images or folders of images")
    return files[0] if named else _default_model(), images


def _default_model() -> Path:
    beside = Path(__file__).parents[2] / DEFAULT_MODEL
    for path in (beside, DEFAULT_MODEL):
        if path.is_file():
            print(f"model: {path}", file=sys.stderr)
            return path
    raise InputError(f"no .tflite given, and no {DEFAULT_MODEL} here, which a clone of the repository has")


def _counted(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"


def _output_names(paths: list[Path]) -> list[str]:
    """Stems, or whole names where stems clash (a.jpg beside a.png); names that clash too are refused."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"two images are named {twice[0]}: their results would overwrite each other; predict them apart"
        )
    return names


def benchmark(
    *models: Path,
    runtime: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    threads: int = 2,
    repeats: int = 30,
    csv: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Time TFLite files side by side; needs no TensorFlow.

    Files and runtimes take turns, call by call, so that a busy moment of the machine hits all of them.

    For instance:

        segformer benchmark fp32.tflite int8.tflite

        segformer benchmark model.tflite --runtime litert tflite-runtime --threads 4

    Parameters
    ----------
    models
        Files made by `segformer export`.
    runtime
        Runtimes to use. Default: all that are installed.
    threads
        CPU threads.
    repeats
        Timed calls of each file on each runtime.
    csv
        File to write the rows to as well.
    overwrite
        Replace that file.
    """
    if csv and not overwrite:
        refuse_existing([csv])
    rows = time_files(models, runtimes=runtime, threads=threads, repeats=repeats)
    if csv:
        with atomic(csv) as part, part.open("w", newline="") as file:
            writer = DictWriter(file, [field.name for field in fields(rows[0])])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    table = Table(title=f"pixels in, logits out, {threads} threads, {repeats} interleaved calls")
    table.add_column("file", overflow="fold", min_width=14)
    table.add_column("recipe", no_wrap=True)
    table.add_column("runtime")
    for column in ("MB", "p50 ms", "p90 ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.path.name,
            row.recipe,
            row.runtime,
            f"{row.megabytes:.2f}",
            f"{row.p50:.1f}",
            f"{row.p90:.1f}",
        )
    Console().print(table)
