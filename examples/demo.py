"""Everything in one run: train on generated shapes, export, segment without TensorFlow, compare.

Run by ``make demo``, which writes to runs/demo/. Each step prints its command.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from rich.progress import track
from rich.table import Table

from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import plain_console

ROOT = Path("runs/demo")
DATA = "tfds:toy_shapes"
SIZE = 128
EXPORTS = ("fp32", "int8")
RUNTIME = "tflite-runtime" if sys.version_info < (3, 12) else "litert"

# As on a device: importing these raises ImportError.
WITHOUT_TENSORFLOW = "for name in ('tensorflow', 'keras', 'torch'): sys.modules[name] = None"


def main() -> None:
    started = perf_counter()
    shutil.rmtree(ROOT, ignore_errors=True)
    os.environ["TFDS_DATA_DIR"] = str(ROOT / "data")
    run = ROOT / "train"
    segformer(
        *("train", "--data", DATA, "--variant", "b0", "--crop", SIZE, SIZE, "--scale", "0.75", "1.5"),
        *("--steps", 1200, "--epoch-steps", 300, "--warmup-steps", 50, "--learning-rate", "1e-3"),
        *("--head-multiplier", 1, "--drop-path", 0, "--out", run),
    )
    trained = perf_counter()
    write_images("train", 64)
    write_images("test", 100)
    for recipe in EXPORTS:
        segformer(
            *("export", run, "--recipe", recipe, "--size", SIZE, SIZE),
            *("--calibration", ROOT / "images" / "train", "--out", model(recipe)),
        )
    arguments = ("predict", model("int8"), ROOT / "images" / "test", "--runtime", RUNTIME, "--out", ROOT / "overlays")
    segformer(*arguments, without_tensorflow=True)
    segformer("benchmark", *map(model, EXPORTS), "--runtime", RUNTIME, "--threads", 1, "--csv", ROOT / "benchmark.csv")
    compare(run)
    plain_console().print(
        f"training {trained - started:.0f} s, all {perf_counter() - started:.0f} s; pictures in {ROOT / 'overlays'}, "
        f"curves and panel in {run}"
    )


def segformer(*arguments: object, without_tensorflow: bool = False) -> None:
    """Run a verb in a process of its own, as a user would."""
    words = [str(a) for a in arguments]
    plain_console().print(f"\n$ segformer {' '.join(words)}", style="bold", soft_wrap=True)
    block = WITHOUT_TENSORFLOW if without_tensorflow else ""
    code = f"import sys\n{block}\nfrom segformer_tf.cli import main; main(sys.argv[1:])"
    if failure := subprocess.run([sys.executable, "-c", code, *words], check=False).returncode:
        sys.exit(failure)


def model(recipe: str) -> Path:
    return ROOT / f"shapes_{recipe}.tflite"


def write_images(split: str, count: int) -> None:
    """The first images of a split as PNG files, for calibration and prediction."""
    from training.data.open import open_source

    source = open_source(DATA, split)
    folder = ROOT / "images" / split
    folder.mkdir(parents=True)
    for i in range(min(count, len(source))):
        Image.fromarray(source[i][0]).save(folder / f"{i:03d}.png")


def compare(run: Path) -> None:
    """Test mIoU of Keras and of each file, pixels on which they agree, and milliseconds of an invoke."""
    import_tensorflow()
    from segformer_tf.metrics import confusion_matrix, mean_iou
    from training.data.open import open_source
    from training.evaluate import open_predictor

    source = open_source(DATA, "test")
    classes = len(source.labels.names)
    paths = {"keras": run, **{recipe: model(recipe) for recipe in EXPORTS}}
    matrices = {name: np.zeros((classes, classes), np.int64) for name in paths}
    same = dict.fromkeys(paths, 0)
    with ExitStack() as stack:
        predictors = {
            name: stack.enter_context(open_predictor(path, runtime=RUNTIME, labels=source.labels))
            for name, path in paths.items()
        }
        for i in track(range(len(source)), "comparing", transient=True):
            image, truth = source[i]
            masks = {name: predict(image) for name, predict in predictors.items()}
            for name, mask in masks.items():
                matrices[name] += confusion_matrix(truth, mask, num_classes=classes)
                same[name] += int((mask == masks["keras"]).sum())
    with (ROOT / "benchmark.csv").open(newline="") as file:
        timings = {row["recipe"]: row for row in csv.DictReader(file)}

    table = Table(title=f"{len(source)} test images, {SIZE}x{SIZE}, {RUNTIME}, 1 thread")
    for column in ("recipe", "MB", "mIoU", "agrees with Keras", "ms"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name in paths:
        row = timings.get(name)
        table.add_row(
            name,
            f"{float(row['megabytes']):.2f}" if row else "",
            f"{mean_iou(matrices[name]):.4f}",
            f"{same[name] / (len(source) * SIZE * SIZE):.2%}",
            f"{float(row['p50']):.1f}" if row else "",
        )
    plain_console().print(table)


if __name__ == "__main__":
    main()
