"""How one exported file does in each program that opens it: agreement with Keras, and milliseconds.

python -m benchmarks.programs MODEL FILE.tflite
"""

from __future__ import annotations

import csv
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter, run
from rich.progress import track

from benchmarks.programs.programs import PROGRAMS, Job, input_of
from benchmarks.programs.table import COLUMNS, Turn, compare_turn, markdown, rows_of
from segformer_tf.edge.metadata import read_model_info
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import list_images, load_image
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console


def main(
    model: Path,
    file: Path,
    /,
    *,
    images: Annotated[list[Path], Parameter(consume_multiple=True, negative=())] = [],  # noqa: B006
    programs: Annotated[list[str], Parameter(consume_multiple=True, negative=())] = list(PROGRAMS),  # noqa: B006
    rounds: int = 3,
    calls: int = 3,
    threads: int = 1,
    csv_file: Path | None = None,
) -> None:
    """Run a file, unchanged, in every program that is installed, and print a Markdown table.

    Each program takes its turn in every round, in a process that ends before the next one's: a call that does not
    count, then some that do. A round takes one photo, the next round the next. The time is the median of the turns'
    medians, from pixels in memory to the logits; MediaPipe's is from the photo to its category mask.

    "error" is the relative error of the logits to Keras'; "same class" is the share of the photos' pixels with the
    class that Keras' logits give. Programs that give logits all get the photo fitted as Segmenter fits it, and their
    logits become a mask as its do. MediaPipe gets the photo, and does both by its own rules.

    What is not installed gets a row that says how to install it.

    For instance:

        python -m benchmarks.programs runs/mine model.tflite --images photos/

        python -m benchmarks.programs runs/mine model.tflite --programs litert mediapipe

    Parameters
    ----------
    model
        The .keras file or run folder that the file was exported from.
    file
        A file of `segformer export`.
    images
        Photos or folders of them, of which as many as rounds are used. Default: synthetic pictures.
    programs
        Of tflite-runtime, litert, litert-gpu, mediapipe, litert.js-wasm and litert.js-webgpu.
    rounds
        Turns of each program.
    calls
        Calls that are timed in a turn.
    threads
        CPU threads of each program. MediaPipe takes one on a PC, whatever is asked.
    csv_file
        File to write the rows to.
    """
    if min(rounds, calls, threads) < 1:
        raise InputError(f"--rounds, --calls and --threads must be positive. Received: {rounds}, {calls} and {threads}")
    if unknown := [name for name in programs if name not in PROGRAMS]:
        raise InputError(f"--programs must be some of {', '.join(PROGRAMS)}. Received: {unknown[0]}")
    info, source = read_model_info(file), input_of(file)
    paths = evenly_spaced(list_images(images), rounds) if images else []
    import_tensorflow()
    from convert.sample_images import synthetic_images
    from segformer_tf.keras_file import load_segformer

    keras = load_segformer(model)
    if (classes := keras.config.num_classes) != len(info.labels.names):
        raise InputError(f"{file}: has {len(info.labels.names)} classes. Received: a model of {classes}")
    photos = [load_image(path, bits=info.bits) for path in paths] or synthetic_images(source.size, rounds)
    turns: dict[str, list[Turn]] = {name: [] for name in programs}
    reasons: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        for number in track(range(rounds), "rounds", transient=True, console=plain_console(stderr=True)):
            job = Job(file, source, photos[number % len(photos)], Path(folder), calls, threads)
            expected = keras.logits(job.fitted[None])[0]
            for name in programs:
                if name in reasons:
                    continue
                try:
                    turns[name].append(compare_turn(PROGRAMS[name](job), job, expected))
                except InputError as error:
                    reasons[name] = str(error).removeprefix(f"{file}: ")
    rows = rows_of(turns, reasons)
    sizes = f"{source.size[0]}x{source.size[1]}, {info.recipe}, {rounds} x {calls} calls, threads: {threads}"
    print(f"{file.name}, {sizes}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}\n\n{markdown(rows)}")
    if csv_file:
        with atomic(csv_file) as part, part.open("w", newline="") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"programs: {error}")
