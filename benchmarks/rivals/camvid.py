"""SegFormer-B0 and DeepLabv3+ trained alike, from scratch: accuracy, receptive fields and robustness side by side.

pip install '.[train,convert,rivals,robustness]'
python -m benchmarks.rivals.camvid --data data/camvid
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import run
from rich.progress import track
from rich.table import Table

from benchmarks.trained import trained
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console

OURS, THEIRS = "SegFormer-B0", "DeepLabv3+, MobileNetV3"


def main(
    *,
    data: Path,
    steps: int = 600,
    size: tuple[int, int] = (192, 256),
    images: int = 16,
    corruptions: bool = True,
    out: Path = Path("runs/rivals-camvid"),
) -> None:
    """Train both networks alike, export both as fp32, and print mean IoU, receptive fields and robustness of both.

    The same data, augmentation, order, optimizer, loss and number of steps, by `training/`; images are stretched to
    one size, for keras-hub's DeepLabv3+ has fixed ones. A training that was stopped goes on, and one that is finished
    is not repeated. Scores are of the test split.

    For instance:

        python -m benchmarks.rivals.camvid --data data/camvid --steps 600

    Parameters
    ----------
    data
        Folder with train, val and test.
    steps
        Optimizer steps of each, of 4 crops.
    size
        Height and width of crops and of the images to validate and test on, multiples of 32.
    images
        Test images for receptive fields and robustness, evenly spread.
    corruptions
        Whether to score robustness: 16 corruptions at severities 1, 3 and 5.
    out
        Folder for the runs, the files and results.json.
    """
    if steps < 10 or any(side < 64 or side % 32 for side in size):
        raise InputError(f"--steps must be 10 or more, --size multiples of 32. Received: {steps} and {size}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_tensorflow()
    from training.data.open import open_source
    from training.runs.folder import Run

    runs = {OURS: out / "segformer_b0", THEIRS: out / "deeplab"}
    _train(runs, data, steps, size)
    files = {OURS: out / "segformer_b0.tflite", THEIRS: out / "deeplab.tflite"}
    models = {OURS: _open_ours(runs[OURS]), THEIRS: _open_deeplab(runs[THEIRS], data, size)}
    for name, file in files.items():
        if is_older(file, Run(runs[name]).best):  # or robustness would begin anew: a file holds its date
            _EXPORT[name](models[name], file, data, size)
    source = open_source(str(data), "test")
    chosen = evenly_spaced(range(len(source)), images)
    results: dict[str, dict[str, Any]] = {name: {"parameters": models[name].count_params()} for name in runs}
    for name, file in files.items():
        results[name]["mean_iou"] = _score(file, source)
    for name, fields in _fields(runs[OURS], models[THEIRS], source, chosen, size).items():
        results[name]["field"] = fields
    if corruptions:
        for name, kept in _robustness(files, source, chosen, out).items():
            results[name]["robustness"] = kept
    with atomic(out / "results.json") as part:
        part.write_text(json.dumps({"steps": steps, "size": size, "networks": results}, indent=1) + "\n", "utf-8")
    _print(results, f"{steps} steps, {size[0]}x{size[1]}, {len(chosen)} images for fields and robustness")


def _train(runs: dict[str, Path], data: Path, steps: int, size: tuple[int, int]) -> None:
    from benchmarks.rivals.deeplab_task import DeepLabConfig
    from training.config import TrainConfig

    for (name, root), kind in zip(runs.items(), (TrainConfig, DeepLabConfig), strict=True):
        print(f"{name}: training")
        trained(
            kind(
                data=str(data), variant="b0", out=root, steps=steps, epoch_steps=max(1, steps // 4),
                batch_size=4, crop=size, eval_size=size, scale=(0.4, 0.9), learning_rate=6e-4,
                head_multiplier=1.0, drop_path=0.0, warmup_steps=min(100, steps // 10),
            )
        )  # fmt: skip


def _open_ours(root: Path) -> Any:
    from segformer_tf.keras_file import load_segformer

    return load_segformer(root)


def _open_deeplab(root: Path, data: Path, size: tuple[int, int]) -> Any:
    """Built anew, with the file's weights: keras-hub's pyramid pooling cannot be loaded by Keras 3.15."""
    from benchmarks.rivals.deeplab_task import deeplab_quarter
    from training.data.open import open_source
    from training.runs.folder import Run

    model = deeplab_quarter(len(open_source(str(data), "test").labels.names), size)
    model.load_weights(Run(root).best)
    return model


def is_older(file: Path, weights: Path) -> bool:
    """Whether a file is to be written again from these weights, or for the first time."""
    return not file.is_file() or file.stat().st_mtime < weights.stat().st_mtime


def _export_ours(model: Any, file: Path, data: Path, size: tuple[int, int]) -> None:
    from convert.export import export_tflite
    from segformer_tf.image import list_images

    file.unlink(missing_ok=True)
    images = list_images([data / "train" / "images"])
    export_tflite(model, file, recipe="fp32", size=size, images=images, runtimes=["litert"])


def _export_deeplab(model: Any, file: Path, _: Path, size: tuple[int, int]) -> None:
    import tensorflow as tf

    from benchmarks.files import write_keras
    from segformer_tf.config import normalize

    def serve(image: Any) -> Any:
        return model(normalize(tf.cast(image, tf.float32)), training=False)

    with atomic(file) as part:
        write_keras(model, serve, part, size=size, dtype="uint8")  # integers say their range, floats do not


_EXPORT = {OURS: _export_ours, THEIRS: _export_deeplab}


def _score(file: Path, source: Any) -> float:
    from training.evaluate import evaluate, open_predictor

    with open_predictor(file, runtime="litert", labels=source.labels) as predict:
        return evaluate(predict, source, indices=track(range(len(source)), file.stem, transient=True)).mean_iou


def _fields(
    ours: Path, deeplab: Any, source: Any, indices: Sequence[int], size: tuple[int, int]
) -> dict[str, dict[str, dict[str, int]]]:
    """Sides of the centered squares that hold 50 and 90 % of the gradient, for each output of each network."""
    from benchmarks.rivals.deeplab_task import inner_outputs
    from segformer_tf.config import normalize
    from segformer_tf.image import fit_image
    from training.analysis.erf.field import effective_receptive_field
    from training.analysis.network import open_network, stage_outputs

    inner = inner_outputs(deeplab)
    outputs: dict[str, Callable[[Any], Any]] = {
        OURS: partial(stage_outputs, open_network(ours)),
        THEIRS: lambda pixels: inner(normalize(pixels), training=False),
    }
    found = {}
    for name, of in outputs.items():
        pixels = (fit_image(source[i][0], size).astype(np.float32) for i in track(indices, name, transient=True))
        measured = effective_receptive_field(of, pixels)
        found[name] = {key: {"50 %": field.side(0.5), "90 %": field.side(0.9)} for key, field in measured.items()}
    return found


def _robustness(files: dict[str, Path], source: Any, indices: Sequence[int], out: Path) -> dict[str, Any]:
    from training.analysis.robustness.corruptions import choose_cells, load_package
    from training.analysis.robustness.record import Record
    from training.analysis.robustness.run import open_models, score_missing, setting_of
    from training.analysis.robustness.summary import summarize

    cells, package, paths = choose_cells(None, (1, 3, 5)), load_package(), list(files.values())
    with open_models(paths, labels=source.labels, runtime="litert") as predictors:
        setting = setting_of(paths, predictors, source, indices, by=package)
        record = Record.open(out / f"robustness_{len(indices)}.json", setting)
        score_missing(cells, predictors, source, indices, record)
        summaries = summarize(list(files), cells, record)
    return {each.name: each.to_dict() for each in summaries}


def _print(results: dict[str, dict[str, Any]], title: str) -> None:
    console, table = plain_console(), Table("", *results, title=title)
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("parameters, M", lambda own: f"{own['parameters'] / 1e6:.2f}"),
        ("test mean IoU", lambda own: f"{own['mean_iou']:.4f}"),
        ("decoder's field, 50 %, px", lambda own: str(own["field"]["decoder"]["50 %"])),
        ("decoder's field, 90 %, px", lambda own: str(own["field"]["decoder"]["90 %"])),
    ]
    if all("robustness" in own for own in results.values()):
        rows.append(("corrupted, mean IoU", lambda own: f"{own['robustness']['mean']:.4f}"))
        rows.append(("kept", lambda own: f"{100 * own['robustness']['retention']:.0f} %"))
    for name, of in rows:
        table.add_row(name, *(of(own) for own in results.values()))
    console.print(table)


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"camvid: {error}")
