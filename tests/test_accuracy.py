"""`benchmarks.accuracy`: several models at once, each scored once, and the table of them."""

from __future__ import annotations

import csv
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclopts import App

import training.evaluate
from benchmarks import accuracy
from benchmarks.accuracy import Case, Format
from convert.quantize.recipes import RECIPES
from segformer_tf import SegFormer
from segformer_tf.edge.compiled import HALF
from segformer_tf.errors import InputError
from segformer_tf.image import fit_image
from segformer_tf.mask import logits_to_mask
from tests.test_documents import ROOT
from training.data.match_names import Match
from training.data.open import open_source

SIZE = (29, 45)


@pytest.fixture
def models(tiny: SegFormer, tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "first.keras", tmp_path / "second.keras"
    for path in paths:
        tiny.save(path)
    return paths


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The recipe of each export and each scoring, with stand-ins for files and their runtime.

    A file that is run says one class everywhere.
    """
    done: list[str] = []
    evaluate = training.evaluate.evaluate

    def export(case: Case, recipe: str, path: Path) -> None:
        done.append(f"export {recipe}")
        path.write_bytes(bytes(1230000))

    def opened(case: Case, path: Path, runtime: str) -> Any:
        assert path.exists()
        return nullcontext(lambda image: np.full(image.shape[:2], ("fp32", "int8").index(path.stem), np.uint8))

    def counted(predict: Any, source: Any, *, indices: Any) -> Any:
        done.append("score")
        return evaluate(predict, source, indices=indices)

    fake = Format("tflite", ("fp32", "int8"), lambda recipe: ["litert", "other"], lambda runtime: "1.0", export, opened)
    monkeypatch.setattr(accuracy, "tflite_format", lambda: fake)
    monkeypatch.setattr(training.evaluate, "evaluate", counted)
    return done


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_scored_is_not_scored_again(
    models: tuple[Path, Path], toy_folder: Path, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture
) -> None:
    both: dict[str, Any] = {"data": [toy_folder] * 2, "size": [SIZE] * 2, "runtimes": ("litert",)}
    one: dict[str, Any] = {"data": [toy_folder], "size": [SIZE], "runtimes": ("litert",)}
    out = tmp_path / "out"
    accuracy.main(models[0], **one, recipes=("int8",), out=out)
    assert calls == ["score", "export int8", "score"]
    calls.clear()
    accuracy.main(*models, **both, out=out)
    assert calls == ["export fp32", "score", "score", "export fp32", "score", "export int8", "score"]
    first, second = (out / f"{name}_{toy_folder.name}_29x45" for name in ("first", "second"))
    assert {path.name for path in first.iterdir()} == {"fp32.tflite", "int8.tflite", "test.csv", "weights.sha256"}
    assert [row["recipe"] for row in rows(first / "test.csv")] == ["Keras", "int8", "fp32"]
    assert sorted(rows(first / "test.csv"), key=str) == sorted(rows(second / "test.csv"), key=str)
    calls.clear()
    capsys.readouterr()
    (first / "fp32.tflite").unlink()  # its score is there
    accuracy.main(*models, **both, out=out)
    assert not calls
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    keras, *files = (float(row["mean_iou"]) for row in rows(second / "test.csv"))
    assert [line.split() for line in lines if line.startswith(("Keras", "fp32", "int8"))] == [
        ["Keras", *[f"{keras:.4f}"] * 2],
        *([name, "1.23", *[f"{value:.4f}", f"{value - keras:+.4f}"] * 2] for name, value in zip(
            ("fp32", "int8"), files, strict=True
        )),
    ]  # fmt: skip
    assert len({keras, *files}) == 3


def test_scores_of_other_weights_are_not_taken(
    tiny: SegFormer, models: tuple[Path, Path], toy_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    options: dict[str, Any] = {"data": [toy_folder], "size": [SIZE], "recipes": ("int8",), "out": tmp_path / "out"}
    accuracy.main(models[0], **options)
    variable = tiny.trainable_variables[0]
    before = variable.numpy()
    variable.assign_add(np.ones_like(before))
    tiny.save(models[0])
    variable.assign(before)
    with pytest.raises(InputError, match=r"first_toy_folder_29x45: has the scores of other weights"):
        accuracy.main(models[0], **options)


def test_a_file_is_exported_and_scored(tiny: SegFormer, toy_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(toy_folder), "test")
    case = Case(Path("tiny.keras"), toy_folder, SIZE, tmp_path, source, tiny, Match())
    path, files = tmp_path / "fp32.tflite", accuracy.tflite_format()
    assert files.recipes == tuple(RECIPES)
    assert "litert" in files.runtimes("fp32")
    assert files.runtimes("fp16_compute")[-1] == HALF
    files.export(case, "fp32", path)
    with files.open(case, path, "litert") as predict:
        image, _ = source[0]
        grid = tiny.logits(fit_image(image, SIZE)[None])[0]
        same = predict(image) == logits_to_mask(np.asarray(grid), (image.shape[0], image.shape[1]))
    assert same.mean() > 0.999


def test_classes_in_another_order_are_matched_on_onnx_too(
    toy_folder: Path, tiny: SegFormer, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(0).normal(size=(1, 8, 12, 6)).astype(np.float32)
    monkeypatch.setattr("convert.onnx.runtimes.open_on", lambda runtime, path: lambda batch: logits)
    image = np.zeros((30, 47, 3), np.uint8)
    order = np.array([5, 3, 1, 0, 2, 4], np.uint8)
    source = open_source(str(toy_folder), "test")

    def mask(match: Match) -> np.ndarray:
        case = Case(Path("model.keras"), toy_folder, SIZE, Path("out"), source, tiny, match)
        with accuracy.onnx_format().open(case, Path("int8.onnx"), "onnxruntime") as predict:
            return predict(image)

    assert mask(Match()).shape == (30, 47)
    np.testing.assert_array_equal(mask(Match(order)), order[mask(Match())])
    assert (mask(Match(order)) != mask(Match())).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [SIZE]}, "2 models, 2 data sets and 1 sizes"),
        ({"runtimes": ("litert", "no-such")}, "--runtimes must be of litert, .*Received: no-such"),
        ({"recipes": ("no-such",)}, "--recipes must be of fp32, .*Received: no-such"),
        ({"split": "no-such"}, "no-such"),
        ({"models": 0}, "same name, data and size"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_scored(
    change: dict, message: str, models: tuple[Path, Path], toy_folder: Path, tmp_path: Path, calls: list[str]
) -> None:
    given = (models[0], models[0]) if "models" in change else models
    options = {"data": [toy_folder] * 2, "size": [SIZE] * 2, "out": tmp_path / "out"}
    with pytest.raises(InputError, match=message):
        accuracy.main(*given, **(options | {name: value for name, value in change.items() if name != "models"}))
    assert not calls
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("page", "most"), [("benchmarks.md", 3), ("onnx.md", 1)])
def test_the_printed_commands_are_understood(page: str, most: int) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8").replace("\\\n", " ")
    printed = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python benchmarks/accuracy.py")]
    app, counts = App(), []
    app.default(accuracy.main)
    for arguments in printed:
        _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        counts.append(len(bound.args))
        assert len(bound.args) == len(bound.kwargs["data"]) == len(bound.kwargs["size"])
        assert all(len(size) == 2 for size in bound.kwargs["size"])
    assert max(counts) == most
