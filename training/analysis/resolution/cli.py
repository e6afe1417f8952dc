"""The verb `resolution`. TensorFlow is imported after the options are checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.progress import track

from segformer_tf.errors import InputError, counted
from segformer_tf.files import refuse_existing
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import narrow_table, plain_console
from training.analysis.notes import model_names, prepare
from training.analysis.resolution.measure import Row, open_stopwatches, read_sizes, score, time_rows
from training.data.open import Source, open_source
from training.evaluate import open_predictor
from training.protocols import EvalProtocol, Size


def resolution(
    *models: Path,
    data: str,
    sizes: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    split: str = "test",
    images: int = 50,
    threads: int = 2,
    repeats: int = 20,
    runtime: str | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Score and time a model at several sizes of its input: mean IoU, latency and memory.

    SegFormer has no positional encoding, so a model takes sizes that it was not trained at. Images are stretched to
    each size; masks are compared at their own:

        segformer resolution runs/mine --data data --sizes 288x384 432x576 576x768

    A .tflite sees one size, and is scored at that alone: export one for each size, and give them all.

        segformer export runs/mine --size 288 384 --out small.tflite

        segformer export runs/mine --size 576 768 --out large.tflite

        segformer resolution runs/mine small.tflite large.tflite --data data --sizes 288x384 576x768 \\
            --picture sizes.png

    Latency is the median time from pixels to logits, all models and sizes in turns. Memory is the most that a process
    held with Python, the runtime and the model: TensorFlow alone is half a gigabyte.

    Parameters
    ----------
    models
        Any number of .keras files, run folders (their best weights) and .tflite files, of the same classes.
    data
        Folder of images and masks, its manifest, or tfds:NAME.
    sizes
        Heights and widths, such as 288x384, for .keras files and runs.
    split
        Split to score.
    images
        Number of images, evenly spread over the split.
    threads
        CPU threads while it is timed.
    repeats
        Timed images of each model and size, after two that do not count.
    runtime
        litert, tflite-runtime, litert-gpu or litert-fp16, for a .tflite. Default: the faster installed one on the CPU.
    picture
        A .png: mean IoU, latency and memory over the number of pixels.
    overwrite
        Replace that picture.
    as_json
        Print one JSON object instead of a table.
    """
    keras = [path for path in models if path.suffix != ".tflite"]
    if not models:
        raise InputError("no model given; expected .keras files, run folders or .tflite files")
    for name, value in (("--images", images), ("--threads", threads), ("--repeats", repeats)):
        if value < 1:
            raise InputError(f"{name} must be positive. Received: {value}")
    if keras and not sizes:
        raise InputError(f"expected --sizes for {keras[0]}, such as --sizes 288x384 576x768")
    if picture and picture.suffix.lower() != ".png":
        raise InputError(f"--picture must end in .png. Received: {picture}")
    if picture and not overwrite:
        refuse_existing([picture])
    chosen = read_sizes(sizes or [])
    if keras or data.startswith("tfds:"):
        import_tensorflow()
    if picture:
        import matplotlib  # noqa: F401  to fail now if it is missing
    source = open_source(data, split)
    indices = evenly_spaced(range(len(source)), images)
    title = f"{counted(len(indices), 'image')} of {split} of {source.name}, {counted(threads, 'thread')}"
    rows: list[Row] = []
    own_sizes: list[list[Size]] = []
    console, bits = plain_console(stderr=True), source.bits
    quiet = not console.is_terminal
    try:
        for model, name in zip(models, model_names(models), strict=True):
            source.bits = bits  # of the manifest: the model before may have set its own
            own_sizes.append(_score_model(model, name, chosen, source, indices, runtime, rows))
        with open_stopwatches(models, own_sizes, threads=threads, runtime=runtime) as stopwatches:
            # No thread that draws during timing.
            rows = time_rows(
                rows,
                stopwatches,
                repeats=repeats,
                watch=lambda turns: track(
                    turns, "timing", console=console, transient=True, auto_refresh=False, disable=quiet
                ),
            )
    except (KeyboardInterrupt, SystemExit):
        if rows:
            _print(rows, f"stopped after these, {title}")
        raise
    if picture:
        from training.analysis.resolution.picture import draw

        draw(rows, picture)
    if as_json:
        facts: dict[str, Any] = {"data": data, "split": split, "images": len(indices), "threads": threads}
        print(json.dumps({**facts, "rows": [row.to_dict() for row in rows]}, indent=1))
        return
    _print(rows, title)


def _score_model(
    model: Path,
    name: str,
    sizes: Sequence[Size],
    source: Source,
    indices: Sequence[int],
    runtime: str | None,
    rows: list[Row],
) -> list[Size]:
    """Append the rows of a model; its own sizes."""
    console = plain_console(stderr=True)

    def watch(numbers: Sequence[int], text: str) -> Iterable[int]:
        return track(numbers, text, console=console, transient=True, disable=not console.is_terminal)

    any_size = model.suffix != ".tflite"
    protocol = EvalProtocol(size=sizes[0]) if any_size else None
    with open_predictor(model, runtime=runtime, labels=source.labels, protocol=protocol) as predict:
        prepare([model], [predict], source)
        size = predict.protocol.size
        if not any_size and size and sizes and size not in sizes:
            print(f"{model}: sees {size[0]}x{size[1]}, no other size; it is scored at that", file=sys.stderr)
        own = list(sizes) if any_size else [size] if size else []
        for row in score(name, predict, own, source, indices, watch=watch):
            rows.append(row)
    return own


def _print(rows: Sequence[Row], title: str) -> None:
    console = plain_console()
    console.print(title)
    table = narrow_table(("model",), ("size", "mean IoU", "ms", "peak MB"))
    for i, row in enumerate(rows):
        numbers = ((row.mean_iou, ".4f"), (row.milliseconds, ".1f"), (row.megabytes, ".0f"))
        last = i + 1 < len(rows) and rows[i + 1].model != row.model
        texts = ("-" if isnan(value) else format(value, form) for value, form in numbers)
        table.add_row(row.model, f"{row.height}x{row.width}", *texts, end_section=last)
    with suppress(BrokenPipeError):
        console.print(table)
