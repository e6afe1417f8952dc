from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from segformer_tf import SegFormer
from segformer_tf.cli import VERBS, main
from segformer_tf.errors import InputError
from training.runs.callbacks import SaveRun
from training.runs.folder import Run


def line(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line on standard error of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 1
    (message,) = capsys.readouterr().err.splitlines()
    return message


def test_every_verb_is_where_the_table_says() -> None:
    for function, _ in VERBS.values():
        module, name = function.split(":")
        assert callable(getattr(import_module(module), name))


def test_unknown_words_are_refused_with_the_nearest(capsys: pytest.CaptureFixture) -> None:
    for arguments, hint in ((["trian"], "train"), (["train", "--data", "x", "--varant", "b0"], "--variant")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code != 0
        assert hint in " ".join(capsys.readouterr())


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture, toy_folder: Path, tmp_path: Path) -> None:
    data = ("--data", toy_folder)
    assert "no manifest" in line(capsys, "train", "--data", tmp_path)
    assert "splits here: test, train, val" in line(capsys, "train", *data, "--train-split", "none")
    assert "no such TFDS data set" in line(capsys, "train", "--data", "tfds:nothing_like_it")
    assert "--crop height must be at least 29 pixels. Received: 28x64" in line(capsys, "train", *data, "--crop", 28, 64)
    assert "variant must be one of" in line(capsys, "train", *data, "--variant", "b9", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "at least 29 pixels. Received: 20x20" in line(capsys, "train", *data, "--eval-size", 20, 20)
    assert "drop_path_rate must be in" in line(capsys, "train", *data, "--drop-path", 1.5, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for seed in (-1, 2**32):
        assert "--seed must be from 0 to" in line(capsys, "train", *data, "--seed", seed)
    assert "expected --data DATA and options of a new run" in line(capsys, "train", "--steps", 5)
    assert "x: not a run folder" in line(capsys, "train", "--resume", "x", "--steps", 5)
    (tmp_path / "taken").touch()
    assert "multiple of --epoch-steps" in line(
        capsys, "train", *data, "--steps", 7, "--epoch-steps", 5, "--warmup-steps", 0
    )
    assert "tfds:x/y" in line(capsys, "train", "--data", "tfds:x/y")
    (tmp_path / "file").touch()
    assert "cannot be written" in line(capsys, "train", *data, "--out", tmp_path / "file" / "run")
    assert "--scale must be" in line(capsys, "train", *data, "--scale", 2, 0.5)
    assert "learning-rate must be positive. Received: 0.0" in line(capsys, "train", *data, "--learning-rate", 0)
    assert "batch-size must be positive. Received: -2" in line(capsys, "train", *data, "--batch-size", "-2")
    assert "at least 29 pixels. Received: -5x64" in line(capsys, "train", *data, "--crop", "-5", 64)
    assert "at least 29 pixels. Received: 0x0" in line(capsys, "evaluate", tmp_path, *data, "--size", 0, 0)
    assert "no such model file" in line(capsys, "evaluate", tmp_path / "missing.keras", *data)
    assert "no such model file" in line(capsys, "export", tmp_path / "missing.keras", "--out", tmp_path / "x.tflite")
    assert "no such model file" in line(capsys, "info", tmp_path / "missing.tflite")
    assert "no such file or folder" in line(capsys, "predict", tmp_path / "missing.tflite", tmp_path / "none")


def test_outputs_that_exist_are_left_alone(
    capsys: pytest.CaptureFixture, tiny_files: dict, tiny: SegFormer, toy_folder: Path, tmp_path: Path
) -> None:
    def refused(*arguments: object) -> None:
        assert "exists already; give another name, or --overwrite" in line(capsys, *arguments)

    image, out = toy_folder / "test" / "images" / "0.png", tmp_path / "out"
    out.mkdir()
    (out / "0_overlay.png").write_text("mine")
    predict = ("predict", tiny_files["int8"], image, "--out", out)
    refused(*predict)
    assert (out / "0_overlay.png").read_text() == "mine"
    main([*map(str, predict), "--overwrite"])
    assert (out / "0_overlay.png").read_bytes()[1:4] == b"PNG"

    table = tmp_path / "times.csv"
    table.write_text("mine")
    benchmark = ("benchmark", tiny_files["int8"], "--runtime", "litert", "--repeats", 1, "--csv", table)
    refused(*benchmark)
    main([*map(str, benchmark), "--overwrite"])
    assert "p50" in table.read_text()

    tiny.save(tmp_path / "model.keras")
    file = tmp_path / "model.tflite"
    file.write_text("mine")
    export = ("export", tmp_path / "model.keras", "--size", 64, 64, "--runtime", "litert", "--out", file)
    refused(*export)
    assert file.read_text() == "mine"
    main([*map(str, export), "--overwrite"])
    assert file.read_bytes()[4:8] == b"TFL3"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk that is full: every temporary file is /dev/full."""
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("needs /dev/full")
    with_name = Path.with_name

    def onto_the_device(path: Path, name: str) -> Path:
        part = with_name(path, name)
        if ".part" in name and not part.is_symlink():
            part.parent.mkdir(parents=True, exist_ok=True)
            part.symlink_to(device)
        return part

    monkeypatch.setattr(Path, "with_name", onto_the_device)
    return device


def test_a_full_disk_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture, full: Path, tiny_files: dict, tiny: SegFormer, toy_folder: Path, tmp_path: Path
) -> None:
    def failed(name: str, *arguments: object) -> None:
        message = line(capsys, *arguments)
        assert message.startswith("segformer: ")
        assert f"{name}: cannot be written (No space left on device)" in message

    image = toy_folder / "test" / "images" / "0.png"
    failed("0_mask.png", "predict", tiny_files["int8"], image, "--out", tmp_path / "out")
    benchmark = ("benchmark", tiny_files["int8"], "--runtime", "litert", "--repeats", 1)
    failed("x.csv", *benchmark, "--csv", tmp_path / "x.csv")
    failed("config.json", "train", "--data", toy_folder, "--variant", "tiny", "--out", tmp_path / "run")
    tiny.save(tmp_path / "model.keras")
    export = ("export", tmp_path / "model.keras", "--size", 64, 64, "--runtime", "litert")
    failed("x.tflite", *export, "--out", tmp_path / "x.tflite")
    Run(tmp_path / "kept").last.parent.mkdir(parents=True)
    with pytest.raises(InputError, match=r"last\.keras: cannot be written \(No space left on device\)"):
        SaveRun.save_weights(tiny, Run(tmp_path / "kept").last)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["model.keras"]
