"""What each recipe costs in accuracy: exports a model in all of them and scores every file on every runtime.

    pip install '.[train,convert]'
    python benchmarks/accuracy.py models/camvid_b0.keras --data data/camvid --size 576 768

Each row is written as soon as it is scored; rows that the CSV has already are not scored again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, run
from rich.progress import track
from rich.table import Table

from segformer_tf.edge.runtime import installed_runtimes, runtime_version
from segformer_tf.files import atomic, make_folder
from segformer_tf.image import Pixels, fit_image, list_images
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.mask import logits_to_mask
from segformer_tf.terminal import plain_console

KERAS = "Keras"
Row = dict[str, str]


def main(
    model: Path,
    /,
    *,
    data: Path,
    size: tuple[int, int],
    split: str = "test",
    format: Literal["tflite", "onnx"] = "tflite",
    recipes: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None,
    out: Path = Path("runs/accuracy"),
) -> None:
    """Print mean IoU of the model and of its file in each recipe, on each runtime.

    Parameters
    ----------
    model
        A .keras file or a run folder.
    data
        Data set folder; calibration takes 100 of its training images.
    size
        Height and width that images are stretched to.
    split
        Split to score on.
    format
        Of the files; onnx ones are run on ONNX Runtime and OpenVINO.
    recipes
        Default: all.
    out
        Folder for the files and accuracy.csv, of this model and data set alone: what is there is not made again.
    """
    import_tensorflow()
    from convert.export import export_tflite
    from convert.quantize.recipes import RECIPES
    from segformer_tf.keras_file import load_segformer
    from training.data.open import open_source
    from training.evaluate import evaluate, open_predictor
    from training.protocols import EvalProtocol

    every = tuple(RECIPES)
    if format == "onnx":
        from convert.onnx.export import RECIPES as every
        from convert.onnx.export import export_onnx
        from convert.onnx.runtimes import installed
        from convert.onnx.runtimes import runtime_version as onnx_version
    if unknown := [name for name in recipes or () if name not in every]:
        sys.exit(f"accuracy: --recipes must be of {', '.join(every)}. Received: {unknown[0]}")
    make_folder(out)
    source, loaded = open_source(str(data), split), load_segformer(model)
    options: dict[str, Any] = {"size": size, "images": list_images([data / "train" / "images"])}
    rows = _read(out / "accuracy.csv")

    def score(name: str, where: str, path: Path | None, opened: Callable[[], AbstractContextManager[Any]]) -> None:
        if any(row["recipe"] == name and row["runtime"] == where for row in rows):
            return
        with opened() as predict:
            if name == KERAS and predict.match.note:
                print(f"{model}: {predict.match.note}", file=sys.stderr)
            indices = track(range(len(source)), f"{name} on {where}", transient=True)
            mean_iou = evaluate(predict, source, indices=indices).mean_iou
        megabytes = f"{path.stat().st_size / 1e6:.2f}" if path else ""
        rows.append({"recipe": name, "runtime": where, "megabytes": megabytes, "mean_iou": f"{mean_iou:.6f}"})
        _write(out / "accuracy.csv", rows)

    protocol, labels = EvalProtocol(size=size), source.labels
    score(KERAS, KERAS, None, partial(open_predictor, model, runtime=None, labels=labels, protocol=protocol))
    for name in recipes or every:
        path = out / f"{name}.{format}"
        if format == "onnx":
            if not path.exists():
                export_onnx(loaded, path, recipe=name, **options)
            for runtime in installed():
                score(name, f"{runtime} {onnx_version(runtime)}", path, partial(_onnx_predictor, path, runtime, size))
            continue
        runtimes = [*RECIPES[name].fitting(installed_runtimes()), *RECIPES[name].also]
        if not path.exists():
            export_tflite(loaded, path, recipe=name, runtimes=runtimes, **options)
        for runtime in runtimes:
            opened = partial(open_predictor, path, runtime=runtime, labels=labels)
            score(name, f"{runtime} {runtime_version(runtime)}", path, opened)
    _print(rows, f"{model.name}, {len(source)} images of {split}, {size[0]}x{size[1]}")


@contextmanager
def _onnx_predictor(path: Path, runtime: str, size: tuple[int, int]) -> Iterator[Callable[[Pixels], Any]]:
    from convert.onnx.runtimes import open_on

    infer = open_on(runtime, path)
    yield lambda image: logits_to_mask(infer(fit_image(image, size)[None])[0], (image.shape[0], image.shape[1]))


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[Row]) -> None:
    with atomic(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _print(rows: list[Row], title: str) -> None:
    keras = next(float(row["mean_iou"]) for row in rows if row["recipe"] == KERAS)
    table = Table("recipe", "runtime", "MB", "mIoU", "against Keras", title=title)
    for row in rows:
        mean_iou = float(row["mean_iou"])
        against = "" if row["recipe"] == KERAS else f"{mean_iou - keras:+.4f}"
        table.add_row(row["recipe"], row["runtime"], row["megabytes"], f"{mean_iou:.4f}", against)
    plain_console().print(table)


if __name__ == "__main__":
    run(main)
