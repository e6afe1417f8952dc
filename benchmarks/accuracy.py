"""What each recipe costs in accuracy: exports models in all of them and scores every file on its model's data set.

    pip install '.[train,convert]'
    python benchmarks/accuracy.py models/camvid_b0.keras --data data/camvid --size 576 768

Several models at once; the first has the first data set and the first size:

    python benchmarks/accuracy.py models/camvid_b0.keras models/nuclei_b0.keras \\
        --data data/camvid data/nuclei --size 576 768 512 512 --runtimes litert

Each score is written as soon as it is there, and what is there is not scored again.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter, run
from numpy.typing import NDArray
from rich.markup import escape
from rich.progress import track

from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder
from segformer_tf.image import Pixels, fit_image, list_images
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.mask import logits_to_mask
from segformer_tf.terminal import narrow_table, plain_console

if TYPE_CHECKING:
    from segformer_tf.model import SegFormer
    from training.data.match_names import Match
    from training.data.open import Source

KERAS = "Keras"
COLUMNS = ("recipe", "runtime", "megabytes", "mean_iou")
Row = dict[str, str]
Opened = AbstractContextManager[Callable[[Pixels], NDArray[np.uint8]]]
Many = Parameter(consume_multiple=True)


@dataclass(frozen=True)
class Case:
    """A model with the data that it is scored on, its size, and the folder of its files and scores."""

    model: Path
    data: Path
    size: tuple[int, int]
    folder: Path
    source: Source
    network: SegFormer
    match: Match

    @property
    def title(self) -> str:
        """Two lines above its column."""
        return f"{self.model.stem}\n{self.data.resolve().name} {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Format:
    """How files of one format are made and run.

    Attributes:
        suffix: of the files' names.
        recipes: all that there are.
        runtimes: those that files of a recipe are run on.
        version: of a runtime.
        export: write the file of a recipe.
        open: a file on a runtime.
    """

    suffix: str
    recipes: Sequence[str]
    runtimes: Callable[[str], Sequence[str]]
    version: Callable[[str], str]
    export: Callable[[Case, str, Path], object]
    open: Callable[[Case, Path, str], Opened]


def main(
    *models: Path,
    data: Annotated[list[Path], Many],
    size: Annotated[list[tuple[int, int]], Many],
    split: str = "test",
    format: Literal["tflite", "onnx"] = "tflite",
    recipes: Annotated[tuple[str, ...] | None, Many] = None,
    runtimes: Annotated[tuple[str, ...] | None, Many] = None,
    out: Path = Path("runs/accuracy"),
) -> None:
    """Print mean IoU of models, and of the file of each recipe on each runtime.

    Parameters
    ----------
    models
        .keras files or run folders.
    data
        Data set folder of each model; calibration takes 100 of its training images.
    size
        Height and width that images are stretched to, for each model.
    split
        Split to score on.
    format
        Of the files; onnx ones are run on ONNX Runtime and OpenVINO.
    recipes
        Default: all.
    runtimes
        To score on; a file is verified on all that are installed and that it is for. Default: all of these.
    out
        Has a folder for each model, data set and size, by their names, with the files and a CSV of the scores. What is
        there is not made again.
    """
    if not models or not len(models) == len(data) == len(size):
        given = f"{len(models)} models, {len(data)} data sets and {len(size)} sizes"
        raise InputError(f"expected a data set and a size (two numbers) for each model. Received: {given}")
    import_tensorflow()
    files = {"tflite": tflite_format, "onnx": onnx_format}[format]()
    named = _of("--recipes", recipes, files.recipes)
    fitting = [runtime for recipe in named for runtime in files.runtimes(recipe)]
    chosen = named, _of("--runtimes", runtimes, list(dict.fromkeys(fitting)))
    cases = [_open(*each, split, out) for each in zip(models, data, size, strict=True)]
    if len({case.folder for case in cases}) < len(cases):
        raise InputError("two models have the same name, data and size; score them in two calls, with an --out each")
    scored = [_scored(case, split, files, *chosen) for case in cases]
    for runtime in chosen[1]:
        _print(cases, scored, f"{runtime} {files.version(runtime)}", split)


def _of(option: str, chosen: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    if unknown := [name for name in chosen or () if name not in known]:
        raise InputError(f"{option} must be of {', '.join(known)}. Received: {unknown[0]}")
    return chosen or known


def _open(model: Path, data: Path, size: tuple[int, int], split: str, out: Path) -> Case:
    from segformer_tf.keras_file import load_segformer
    from training.data.match_names import match_names
    from training.data.open import open_source
    from training.evaluate import set_bits

    source, network = open_source(str(data), split), load_segformer(model)
    try:
        match = match_names(network.config.labels, source.labels, count=network.config.num_classes)
    except InputError as error:
        raise InputError(f"{model} {error}") from None
    for note in filter(None, (match.note, set_bits(source, network.config.image_bits))):
        print(f"{model}: {note}", file=sys.stderr)
    folder = out / f"{model.stem}_{data.resolve().name}_{size[0]}x{size[1]}"
    return Case(model, data, size, folder, source, network, match)


def _scored(
    case: Case, split: str, files: Format, recipes: Sequence[str], runtimes: Sequence[str]
) -> dict[tuple[str, str], Row]:
    """The rows of a case by recipe and runtime, in the order of `recipes`; those that are missing are scored."""
    from training.evaluate import evaluate, open_predictor
    from training.protocols import EvalProtocol

    make_folder(case.folder)
    _refuse_another(case)
    table = case.folder / f"{split}.csv"
    rows = _read(table)

    def score(recipe: str, runtime: str, path: Path | None, opened: Callable[[], Opened]) -> None:
        if any((row["recipe"], row["runtime"]) == (recipe, runtime) for row in rows):
            return
        if path and not path.exists():
            files.export(case, recipe, path)
        with opened() as predict:
            name = escape(f"{case.folder.name}, {recipe} on {runtime}")
            indices = track(range(len(case.source)), name, console=plain_console(stderr=True))
            mean_iou = evaluate(predict, case.source, indices=indices).mean_iou
        megabytes = f"{path.stat().st_size / 1e6:.2f}" if path else ""
        rows.append(dict(zip(COLUMNS, (recipe, runtime, megabytes, f"{mean_iou:.6f}"), strict=True)))
        _write(table, rows)

    keras = partial(open_predictor, case.model, runtime=None, labels=case.source.labels)
    score(KERAS, KERAS, None, partial(keras, protocol=EvalProtocol(size=case.size)))
    for recipe in recipes:
        path = case.folder / f"{recipe}.{files.suffix}"
        for runtime in files.runtimes(recipe):
            if runtime in runtimes:
                opened = partial(files.open, case, path, runtime)
                score(recipe, f"{runtime} {files.version(runtime)}", path, opened)
    order = (KERAS, *recipes)
    rows = sorted((row for row in rows if row["recipe"] in order), key=lambda row: order.index(row["recipe"]))
    return {(row["recipe"], row["runtime"]): row for row in rows}


def tflite_format() -> Format:
    from convert.export import export_tflite
    from convert.quantize.recipes import RECIPES
    from segformer_tf.edge.runtime import installed_runtimes, runtime_version
    from training.evaluate import open_predictor

    def export(case: Case, recipe: str, path: Path) -> None:
        targets = RECIPES[recipe].fitting(installed_runtimes())
        export_tflite(case.network, path, recipe=recipe, runtimes=targets, **_options(case))

    return Format(
        suffix="tflite",
        recipes=tuple(RECIPES),
        runtimes=lambda recipe: [*RECIPES[recipe].fitting(installed_runtimes()), *RECIPES[recipe].also],
        version=runtime_version,
        export=export,
        open=lambda case, path, runtime: open_predictor(path, runtime=runtime, labels=case.source.labels),
    )


def onnx_format() -> Format:
    from convert.onnx.export import RECIPES, export_onnx
    from convert.onnx.runtimes import installed, open_on, runtime_version

    @contextmanager
    def predictor(case: Case, path: Path, runtime: str) -> Iterator[Callable[[Pixels], NDArray[np.uint8]]]:
        infer = open_on(runtime, path)

        def predict(image: Pixels) -> NDArray[np.uint8]:
            logits = infer(fit_image(image, case.size)[None])[0]
            mask = logits_to_mask(logits, (image.shape[0], image.shape[1]))
            return mask if case.match.order is None else case.match.order[mask]

        yield predict

    return Format(
        suffix="onnx",
        recipes=RECIPES,
        runtimes=lambda _: installed(),
        version=runtime_version,
        export=lambda case, recipe, path: export_onnx(case.network, path, recipe=recipe, **_options(case)),
        open=predictor,
    )


def _refuse_another(case: Case) -> None:
    """Raises InputError if the folder has the files and scores of other weights of the same name."""
    weights = hashlib.sha256()
    for value in case.network.get_weights():
        weights.update(value.tobytes())
    record = case.folder / "weights.sha256"
    if not record.exists():
        with atomic(record) as part:
            part.write_text(weights.hexdigest(), "utf-8")
    elif record.read_text("utf-8") != weights.hexdigest():
        raise InputError(f"{case.folder}: has the scores of other weights. Give another --out, or remove it")


def _options(case: Case) -> dict[str, Any]:
    return {"size": case.size, "images": list_images([case.data / "train" / "images"])}


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[Row]) -> None:
    with atomic(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _print(cases: Sequence[Case], scored: Sequence[dict[tuple[str, str], Row]], runtime: str, split: str) -> None:
    """A row for each recipe, a column for each case; megabytes are those of the first case's file."""
    keras = [float(rows[KERAS, KERAS]["mean_iou"]) for rows in scored]
    title = f"mean IoU on {split}, on {runtime}, and its difference to Keras"
    table = narrow_table(["recipe"], ["MB", *(case.title for case in cases)], title=title)
    table.add_row(KERAS, "", *(f"{value:.4f}        " for value in keras))
    for recipe, where in scored[0]:
        if where == runtime:
            rows = [case[recipe, where] for case in scored]
            values = [float(row["mean_iou"]) for row in rows]
            cells = (f"{value:.4f} {value - base:+z.4f}" for value, base in zip(values, keras, strict=True))
            table.add_row(recipe, rows[0]["megabytes"], *cells)
    plain_console().print(table)


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"accuracy: {error}")
