"""The verb `robustness`. TensorFlow is imported after the options are checked."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segformer_tf.config import check_image_shape
from segformer_tf.errors import InputError, counted
from segformer_tf.files import make_folder, refuse_existing
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console
from training.analysis.notes import model_names, prepare
from training.analysis.robustness.corruptions import SEVERITIES, Cell, choose_cells, load_package
from training.analysis.robustness.record import Record
from training.analysis.robustness.run import open_models, score_missing, setting_of
from training.analysis.robustness.summary import summarize, tables
from training.data.open import Source, open_source
from training.evaluate import Predictor
from training.lock import locked


def robustness(
    *models: Path,
    data: str,
    split: str = "test",
    images: int = 50,
    corruptions: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    severities: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = SEVERITIES,
    size: tuple[int, int] | None = None,
    runtime: str | None = None,
    out: Path = Path("robustness"),
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Score models side by side on corrupted images: the 16 corruptions of Cityscapes-C at 5 severities.

    Each image is corrupted once, at its own size, and given to every model. The score of a corruption is the mean
    of its severities' mean IoU, as in the paper's Table 5; noise ends at severity 3 there. What is kept is the mean of
    all corruptions over the score without corruption. The same command gives the same numbers.

    Keras, its fp32 file and its int8 file:

        segformer export runs/mine --recipe fp32 --out fp32.tflite

        segformer export runs/mine --recipe int8 --calibration data/train/images --out int8.tflite

        segformer robustness runs/mine fp32.tflite int8.tflite --data data --out seen/robustness

    After Ctrl-C or a crash, the same command goes on: each corruption and severity is kept when it is finished.

    A first look, in a minute:

        segformer robustness int8.tflite --data data --images 5 --corruptions weather jpeg_compression --severities 3

    The folder gets results.json (with the IoU of each class), chart.png, and sheet.png: one image under each
    corruption, with the masks. It needs '.[robustness]'.

    Parameters
    ----------
    models
        Any number of .tflite files, .keras files and run folders (their best weights), of the same classes.
    data
        Folder of images and masks, its manifest, or tfds:NAME.
    split
        Split to score.
    images
        Number of images, evenly spread over the split.
    corruptions
        Names, or groups: noise, blur, digital, weather. Default: all 16.
    severities
        Of 1 to 5.
    size
        Height and width that images are stretched to for .keras files and runs; a .tflite has its own. Default: that of
        the .tflite files among the models, else what a run was validated at, else each image's own.
    runtime
        litert, tflite-runtime, litert-gpu or litert-fp16, for a .tflite. Default: the faster installed one on the CPU.
    out
        Folder for the results. One that holds results of the same models, images and runtime is gone on with; of others
        it is refused.
    overwrite
        Begin anew in that folder.
    as_json
        Print one JSON object instead of a table.
    """
    if not models:
        raise InputError("no model given; expected .tflite files, .keras files or run folders")
    if images < 1:
        raise InputError(f"--images must be positive. Received: {images}")
    if size:
        check_image_shape((None, *size, 3), "--size")
        if all(path.suffix == ".tflite" for path in models):
            raise InputError("--size is for .keras files and runs; a .tflite sees its own size")
    cells = choose_cells(corruptions, severities)
    package = load_package()
    if data.startswith("tfds:") or any(path.suffix != ".tflite" for path in models):
        import_tensorflow()
    from training.analysis.robustness.pictures import draw_chart, draw_sheet  # to fail now without matplotlib

    source = open_source(data, split)
    indices = evenly_spaced(range(len(source)), images)
    names = model_names(models)
    make_folder(out)
    with open_models(models, labels=source.labels, size=size, runtime=runtime) as predictors:
        prepare(models, predictors, source)
        setting = setting_of(models, predictors, source, indices, by=package, runtime=runtime)
        with locked(out / ".lock", when_busy=lambda: _refuse_busy(out)):
            if overwrite:
                (out / "results.json").unlink(missing_ok=True)
            elif not (out / "results.json").exists():
                refuse_existing([out / "chart.png", out / "sheet.png"])
            record = Record.open(out / "results.json", setting)
            _score(cells, predictors, source, indices, record)
            summaries = summarize(names, cells, record)
            draw_chart(summaries, out / "chart.png")
            draw_sheet(cells, names, predictors, source, indices[len(indices) // 2], out / "sheet.png")
        sizes = [each.protocol.size for each in predictors]
    if as_json:
        facts: dict[str, Any] = {"data": data, "split": split, "images": len(indices), "corrupted_by": package}
        print(json.dumps({**facts, "sizes": sizes, "models": [each.to_dict() for each in summaries]}, indent=1))
        return
    console = plain_console()
    console.print(f"mean IoU on {counted(len(indices), 'image')} of {split} of {source.name}, corrupted by {package}")
    for table in tables(summaries):
        console.print(table)
    seen = {f"{size[0]}x{size[1]}" if size else "its own size" for size in sizes}
    console.print(f"kept: mean over none. Each image at {' or '.join(sorted(seen))}.")
    console.print(f"{out}: results.json, chart.png, sheet.png")


def _score(
    cells: Sequence[Cell], predictors: Sequence[Predictor], source: Source, indices: Sequence[int], record: Record
) -> None:
    """Score what is missing under a progress bar; when stopped, say what is kept and how to go on."""
    missing = [cell for cell in cells if cell.name not in record.scores]
    if len(missing) < len(cells):
        print(f"{len(cells) - len(missing)} of {len(cells)} scored before: {record.path}", file=sys.stderr)
    console = plain_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("scoring", total=len(missing) * len(indices))
            score_missing(
                missing,
                predictors,
                source,
                indices,
                record,
                advance=lambda cell: progress.update(bar, advance=1, description=cell.name),
            )
    except (KeyboardInterrupt, SystemExit):
        done = sum(cell.name in record.scores for cell in cells)
        again = shlex.join(["segformer", *(each for each in sys.argv[1:] if each != "--overwrite")])
        print(f"{done} of {len(cells)} scored: {record.path}; to go on: {again}", file=sys.stderr)
        raise


def _refuse_busy(out: Path) -> None:
    raise InputError(f"{out}: another process writes its results there; give another --out")
