"""Models side by side on corrupted images, what is kept of it, and how it goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from segformer_tf.metrics import confusion_matrix, mean_iou
from tests.helpers import refused
from training.analysis.robustness import pictures, run
from training.analysis.robustness.corruptions import CLEAN, Cell, choose_cells, corrupt
from training.analysis.robustness.pictures import chart, draw_sheet
from training.analysis.robustness.record import Record, Score
from training.analysis.robustness.run import open_models, score_missing
from training.analysis.robustness.summary import summarize, tables
from training.data.open import open_source
from training.protocols import EvalProtocol

FOG = [Cell("fog", 1), Cell("fog", 5)]


class Halves:
    """Images whose right half is bright, with noise, and of the second class."""

    name, license, bits, labels, images = "halves", "", None, Labels.named(["dark", "bright"]), ()

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        truth = np.zeros((33, 40), np.uint8)
        truth[:, 20:] = 1
        noise = np.random.default_rng(index).integers(0, 90, (33, 40, 3))
        return (noise + 120 * truth[..., None]).astype(np.uint8), truth


def above(threshold: int) -> object:
    return lambda image: (image.mean(-1) > threshold).astype(np.uint8)


def test_every_model_gets_the_same_pixels_and_a_cell_is_scored_over_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, models, made = Halves(), [above(100), above(150)], []
    monkeypatch.setattr(run, "corrupt", lambda *a, **k: made.append((a[1].name, k["index"])) or corrupt(*a, **k))
    record = Record(tmp_path / "results.json", {"models": ["a", "b"], "classes": ["dark", "bright"]})
    score_missing([CLEAN, *FOG], models, source, [0, 2], record)
    assert made == [(cell.name, i) for cell in (CLEAN, *FOG) for i in (0, 2)]  # once, whatever the number of models
    for cell in (CLEAN, *FOG):
        for predict, score in zip(models, record.scores[cell.name], strict=True):
            matrix = sum(
                confusion_matrix(source[i][1], predict(corrupt(source[i][0], cell, index=i)), num_classes=2)
                for i in (0, 2)
            )
            assert score.mean_iou == mean_iou(matrix)
    assert record.scores["clean"][0].mean_iou == 1
    assert record.scores["fog/5"][0].mean_iou < 1
    again = Record.open(record.path, record.setting)
    assert again.scores.keys() == record.scores.keys()
    assert again.scores["fog/5"][1].mean_iou == pytest.approx(record.scores["fog/5"][1].mean_iou, abs=1e-6)
    made.clear()
    score_missing([CLEAN, *FOG, Cell("snow", 1)], models, source, [0, 2], again)
    assert made == [("snow/1", 0), ("snow/1", 2)]


def test_the_means_are_those_of_the_paper(tmp_path: Path) -> None:
    cells = choose_cells(["fog", "gaussian_noise"], (1, 2, 3, 4, 5))
    record = Record(tmp_path / "results.json", {})
    for i, cell in enumerate(cells):
        record.scores[cell.name] = (Score(0.8 - 0.05 * i, ()), Score(0.5, ()))
    first, second = summarize(["one.tflite", "two.tflite"], cells, record)
    noise, fog = np.mean([0.75, 0.7, 0.65]), np.mean([0.6, 0.55, 0.5, 0.45, 0.4])
    assert first.corruptions == pytest.approx({"gaussian_noise": noise, "fog": fog})
    assert first.mean == pytest.approx((noise + fog) / 2)  # each corruption counts alike, not each cell
    assert first.retention == pytest.approx((noise + fog) / 2 / 0.8)
    assert second.retention == pytest.approx(1)
    figure = chart([first, second])
    dots = figure.axes[0].collections
    np.testing.assert_allclose(dots[0].get_offsets()[:, 0], [noise, fog])
    assert [text.get_text() for text in figure.legends[0].get_texts()][1] == "two.tflite (kept 100%)"


def test_the_sheet_has_a_row_for_each_corruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    monkeypatch.setattr(pictures, "plot_panel", lambda rows, out, **texts: drawn.update(texts, rows=rows))
    cells = [CLEAN, *(Cell("fog", severity) for severity in (1, 2, 5)), Cell("shot_noise", 3)]
    draw_sheet(cells, ["one", "two"], [above(100), above(150)], Halves(), 0, tmp_path / "sheet.png")
    assert drawn["titles"] == [
        ["no corruption", "truth", "", "one", "two"],
        ["fog 1", "fog 2", "fog 5", "one", "two"],
        ["shot noise 3", "", "", "one", "two"],
    ]
    np.testing.assert_array_equal(drawn["rows"][1][2], corrupt(Halves()[0][0], cells[3], index=0))
    assert [name for name, _ in drawn["legend"]] in (["dark", "bright"], ["bright", "dark"])


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_tables_have_80_columns(tmp_path: Path, count: int, capsys: pytest.CaptureFixture) -> None:
    from segformer_tf.terminal import plain_console

    cells = choose_cells(None, (1, 2, 3, 4, 5))
    record = Record(tmp_path / "results.json", {})
    record.scores |= {cell.name: (Score(0.5, ()),) * count for cell in cells}
    for table in tables(summarize([f"a_long_name_of_a_model_{i}.tflite" for i in range(count)], cells, record)):
        plain_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("jpeg compression" in line for line in lines) == -(-count // 4)


def test_a_file_of_another_setting_is_refused(tmp_path: Path) -> None:
    path, setting = tmp_path / "results.json", {"models": ["a"], "classes": ["x", "y"], "images": [0, 4]}
    record = Record(path, setting)
    record.add(CLEAN, [Score(0.5, (0.25, float("nan")))])
    assert np.isnan(Record.open(path, setting).scores["clean"][0].per_class[1])
    with pytest.raises(InputError, match=r"another setting: images \[0, 4\]. Received: \[0, 2, 4\]; another --out"):
        Record.open(path, {**setting, "images": [0, 2, 4]})
    whole = path.read_text()
    saved = json.loads(whole)
    saved["scores"]["clean"][0]["mean_iou"] = 7
    for broken in (whole[:60], "[]", json.dumps({**json.loads(whole), "format": 2}), json.dumps(saved)):
        path.write_text(broken)
        with pytest.raises(InputError, match="not the results of `segformer robustness`"):
            Record.open(path, setting)


def test_results_of_another_runtime_are_not_gone_on_with(tiny_files: dict[str, Path]) -> None:
    predictors = [SimpleNamespace(protocol=EvalProtocol(size=(97, 161)))]
    files = [tiny_files["fp32"]]
    ours, theirs, chosen = (
        run.setting_of(files, predictors, Halves(), [0, 2], by="a package", runtime=runtime)
        for runtime in ("litert", "tflite-runtime", None)
    )
    assert ours == chosen
    assert {name for name in ours if ours[name] != theirs[name]} == {"runtime"}


def test_a_stopped_run_goes_on_by_the_same_command(
    tiny: SegFormer,
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    no_plots: None,
) -> None:
    monkeypatch.setattr(pictures, "plot_panel", lambda _, out, **__: out.touch())
    tiny.save(tmp_path / "one.keras")
    options = [
        "--data",
        toy_folder,
        "--images",
        2,
        "--size",
        33,
        64,
        "--corruptions",
        "fog",
        "frost",
        "--severities",
        5,
    ]
    command = [str(each) for each in ("robustness", tmp_path / "one.keras", *options, "--json")]
    main([*command, "--out", str(tmp_path / "whole")])
    expected = json.loads(capsys.readouterr().out)
    calls = []

    def stop_at_the_fourth(*arguments: object, **options: object) -> np.ndarray:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return corrupt(*arguments, **options)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(run, "corrupt", stop_at_the_fourth)
        patch.setattr("sys.argv", ["segformer", *command, "--overwrite"])
        with pytest.raises(SystemExit) as stop:
            main([*command, "--out", str(out)])
    assert stop.value.code == 130
    error = capsys.readouterr().err
    assert "1 of 3 scored" in error
    assert "to go on: segformer robustness" in error
    assert "--overwrite" not in error
    assert sorted(path.name for path in out.iterdir()) == [".lock", "results.json"]
    assert len(json.loads((out / "results.json").read_text())["scores"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(run, "corrupt", lambda *a, **k: calls.append(a) or corrupt(*a, **k))
        calls.clear()
        main([*command, "--out", str(out)])
    assert len(calls) == 2 * 2
    assert json.loads(capsys.readouterr().out) == expected
    assert sorted(path.name for path in out.iterdir()) == [".lock", "chart.png", "results.json", "sheet.png"]
    tiny.save(tmp_path / "two.keras")
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "two.keras"), "--out", str(out)])
    assert "holds results for another setting: models" in capsys.readouterr().err


def test_keras_and_tflite_side_by_side_see_the_same_size(
    tiny: SegFormer, tiny_files: dict[str, Path], toy_folder: Path, tmp_path: Path
) -> None:
    tiny.save(tmp_path / "tiny.keras")
    source = open_source(str(toy_folder), "test")
    paths = [tmp_path / "tiny.keras", tiny_files["fp32"]]
    with open_models(paths, labels=source.labels) as predictors:
        assert [each.protocol.size for each in predictors] == [(97, 161)] * 2
        record = Record(tmp_path / "results.json", {})
        score_missing([Cell("frost", 2)], predictors, source, [1], record)
    keras, fp32 = record.scores["frost/2"]
    assert keras.mean_iou == pytest.approx(fp32.mean_iou, abs=1e-3)
    assert keras.mean_iou > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no model given"),
        (["a.keras", "--images", "0"], "--images must be positive"),
        (["a.keras", "--size", "20", "64"], "--size height must be at least 29"),
        (["a.keras", "--corruptions", "mist"], "Received: mist"),
        (["a.keras"], "a.keras: no such model file"),
        (["a.tflite", "--size", "33", "64"], "a .tflite sees its own size"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], line: str, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert line in refused(capsys, "robustness", *arguments, "--data", toy_folder, "--out", tmp_path / "out")
