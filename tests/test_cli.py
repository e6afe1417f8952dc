from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from segformer_tf import SegFormer
from segformer_tf.cli import VERBS, main
from segformer_tf.errors import InputError
from tests.helpers import refused
from training.runs.callbacks import SaveRun
from training.runs.folder import Run


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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --data {tmp}", "no manifest"),
        ("train {data} --train-split none", "splits here: test, train, val"),
        ("train --data tfds:nothing_like_it", "no such TFDS data set"),
        ("train --data tfds:x/y", "tfds:x/y"),
        ("train {data} --crop 28 64", "--crop height must be at least 29 pixels. Received: 28x64"),
        ("train {data} --crop -5 64", "at least 29 pixels. Received: -5x64"),
        ("train {data} --eval-size 20 20", "at least 29 pixels. Received: 20x20"),
        ("train {data} --out {tmp}/run --variant b9", "variant must be one of"),
        ("train {data} --out {tmp}/run --drop-path 1.5", "drop_path_rate must be in"),
        ("train {data} --out {tmp}/file/run", "/file: the folder cannot be made (a file is there)"),
        ("train {data} --seed -1", "--seed must be from 0 to"),
        ("train {data} --seed 4294967296", "--seed must be from 0 to"),
        ("train --steps 5", "expected --data DATA and options of a new run"),
        ("train --resume x --steps 5", "x: not a run folder"),
        ("train {data} --steps 7 --epoch-steps 5 --warmup-steps 0", "multiple of --epoch-steps"),
        ("train {data} --scale 2 0.5", "--scale must be"),
        ("train {data} --mix 1.5", "--mix must be at most 1. Received: 1.5"),
        ("train {data} --mix nan", "--mix must not be negative. Received: nan"),
        ("train {data} --mix 0.5 --batch-size 1", "--batch-size must be at least 2. Received: 1"),
        ("train {data} --color -1", "--color must be from 0, no change, to 2, twice the usual one. Received: -1.0"),
        ("train {data} --stretch 0.9", "--stretch must be at least 1, which is none. Received: 0.9"),
        ("train {data} --stretch inf", "--stretch must be at least 1"),
        ("train {data} --learning-rate 0", "learning-rate must be positive. Received: 0.0"),
        ("train {data} --batch-size -2", "batch-size must be positive. Received: -2"),
        ("evaluate {tmp} {data} --size 0 0", "at least 29 pixels. Received: 0x0"),
        ("evaluate {tmp}/missing.keras {data}", "no such model file"),
        ("export {tmp}/missing.keras --out {tmp}/x.tflite", "no such model file"),
        ("info {tmp}/missing.tflite", "no such model file"),
        ("doctor {tmp}/missing.tflite", "no such model file"),
        ("doctor {tmp}", "a folder; expected a .tflite"),
        ("predict {tmp}/missing.tflite {tmp}/none", "no such file or folder"),
    ],
)
def test_bad_input_is_one_line(
    command: str, message: str, capsys: pytest.CaptureFixture, toy_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert message in refused(capsys, *command.format(tmp=tmp_path, data=f"--data {toy_folder}").split())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_outputs_that_exist_are_left_alone(
    capsys: pytest.CaptureFixture, tiny_files: dict, tiny: SegFormer, toy_folder: Path, tmp_path: Path
) -> None:
    def taken(*arguments: object) -> None:
        assert "exists already; give another name, or --overwrite" in refused(capsys, *arguments)

    image, out = toy_folder / "test" / "images" / "0.png", tmp_path / "out"
    out.mkdir()
    (out / "0_overlay.png").write_text("mine")
    predict = ("predict", tiny_files["int8"], image, "--out", out)
    taken(*predict)
    assert (out / "0_overlay.png").read_text() == "mine"
    main([*map(str, predict), "--overwrite"])
    assert (out / "0_overlay.png").read_bytes()[1:4] == b"PNG"

    table = tmp_path / "times.csv"
    table.write_text("mine")
    benchmark = ("benchmark", tiny_files["int8"], "--runtime", "litert", "--repeats", 1, "--csv", table)
    taken(*benchmark)
    main([*map(str, benchmark), "--overwrite"])
    assert "p50" in table.read_text()

    tiny.save(tmp_path / "model.keras")
    file = tmp_path / "model.tflite"
    file.write_text("mine")
    export = ("export", tmp_path / "model.keras", "--size", 64, 64, "--runtime", "litert", "--out", file)
    taken(*export)
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
        message = refused(capsys, *arguments)
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
