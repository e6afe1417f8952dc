from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from segformer_tf.cli import GROUP, SUMMARIES, main


def line(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line on standard error of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 1
    (message,) = capsys.readouterr().err.splitlines()
    return message


def test_every_verb_has_its_summary() -> None:
    assert {verb.name for verb in entry_points(group=GROUP)} == set(SUMMARIES)


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
    assert "at least 29 pixels. Received: 28x64" in line(capsys, "train", *data, "--crop", 28, 64)
    assert "variant must be one of" in line(capsys, "train", *data, "--variant", "b9", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "at least 29 pixels. Received: 20x20" in line(capsys, "train", *data, "--eval-size", 20, 20)
    assert "drop_path_rate must be in" in line(capsys, "train", *data, "--drop-path", 1.5, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "--seed must not be" in line(capsys, "train", *data, "--seed", -1)
    assert "multiple of --epoch-steps" in line(
        capsys, "train", *data, "--steps", 7, "--epoch-steps", 5, "--warmup-steps", 0
    )
    assert "tfds:x/y" in line(capsys, "train", "--data", "tfds:x/y")
    (tmp_path / "file").touch()
    assert "cannot be made" in line(capsys, "train", *data, "--out", tmp_path / "file" / "run")
    assert "--scale must be" in line(capsys, "train", *data, "--scale", 2, 0.5)
    assert "learning-rate must be positive. Received: 0.0" in line(capsys, "train", *data, "--learning-rate", 0)
    assert "batch-size must be positive. Received: -2" in line(capsys, "train", *data, "--batch-size", "-2")
    assert "at least 29 pixels. Received: -5x64" in line(capsys, "train", *data, "--crop", "-5", 64)
    assert "no such model file" in line(capsys, "evaluate", tmp_path / "missing.keras", *data)
    assert "no such model file" in line(capsys, "export", tmp_path / "missing.keras", "--out", tmp_path / "x.tflite")
    assert "no such model file" in line(capsys, "info", tmp_path / "missing.tflite")
    assert "no such file or folder" in line(capsys, "predict", tmp_path / "missing.tflite", tmp_path / "none")
