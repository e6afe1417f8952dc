"""How long a run is: epochs, early stopping, and a finished run that is lengthened."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf.cli import main
from segformer_tf.errors import InputError
from tests.helpers import refused
from tests.training.runs.test_resume import assert_same_end
from tests.training.small import EXACT, SMALL
from training.changes import with_changes
from training.config import PretrainConfig, TrainConfig
from training.optim.optimizer import SegFormerAdamW
from training.runs.backup import Progress
from training.runs.callbacks import SaveRun, StopEarly
from training.runs.folder import Run, write_json
from training.train import resume, train

SHORT = replace(SMALL, batch_size=4, warmup_steps=None, crop=(32, 32), eval_size=(32, 32))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Scores of the next validations, to be filled; None for a kill in the middle of one."""
    script: list[float | None] = []
    evaluate = keras.Model.evaluate

    def scripted(self: keras.Model, *arguments: object, **options: object) -> dict[str, float]:
        logs = evaluate(self, *arguments, **options)
        if (score := script.pop(0)) is None:
            raise KeyboardInterrupt
        return {**logs, "mean_iou": score}

    monkeypatch.setattr(keras.Model, "evaluate", scripted)
    return script  # type: ignore[return-value]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("images", "batch_size", "steps", "epoch_steps"), [(6, 4, 6, 2), (8, 4, 6, 2), (3, 64, 3, 1), (129, 64, 9, 3)]
)
def test_an_epoch_is_a_pass_over_the_images(images: int, batch_size: int, steps: int, epoch_steps: int) -> None:
    for kind in (TrainConfig, PretrainConfig):
        config = kind(data="tfds:x", epochs=3, batch_size=batch_size, out=Path("run"))
        config.check()
        final = config.resolved("x", images=images)
        assert (final.steps, final.epoch_steps, final.epochs) == (steps, epoch_steps, 3)
        assert final.warmup_steps == steps // 10
        final.check()
        assert final.resolved("x", images=images) == final  # as when the run goes on
    final = TrainConfig(data="tfds:x", out=Path("run")).resolved("x", images=images)
    assert (final.steps, final.epoch_steps, final.epochs, final.warmup_steps) == (40_000, 500, None, 1500)


def test_a_length_is_given_in_one_way(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    for verb in ("train", "pretrain"):
        for option in ("--steps", "--epoch-steps"):
            line = refused(capsys, verb, "--data", "d", "--epochs", 3, option, 10)
            assert f"--epochs is instead of --steps and --epoch-steps. Received: --epochs and {option}" in line
    assert "--epochs must be positive. Received: 0" in refused(capsys, "train", "--data", "d", "--epochs", 0)
    odd = TrainConfig(data="tfds:x", epochs=3, steps=30, epoch_steps=10, batch_size=8)
    with pytest.raises(InputError, match=r"100 images in batches of 8 are 13 steps\. Received: --epoch-steps 10"):
        odd.resolved("x", images=100)
    late = TrainConfig(data="tfds:x", epochs=3, warmup_steps=50)
    late.check()
    with pytest.raises(InputError, match=r"--warmup-steps must be from 0 to below the steps in all, 39\. Received: 50"):
        late.resolved("x", images=100)
    Run.create(tmp_path / "run", replace(SMALL, data="data"))
    line = refused(capsys, "train", "--resume", tmp_path / "run", "--epochs", 9)
    assert "this one validates every 2 steps, so give --steps, a multiple of that. Received: --epochs 9" in line
    by_epochs = replace(SMALL, epochs=2, steps=4, epoch_steps=2)
    assert (longer := with_changes(by_epochs, {"epochs": 5})).steps == 10
    assert with_changes(by_epochs, {"steps": 10}) == longer
    with pytest.raises(InputError, match=r"--epochs of a run can only grow, from 2\. Received: 1"):
        with_changes(by_epochs, {"epochs": 1})
    with pytest.raises(InputError, match="--epochs is instead of --steps"):
        with_changes(by_epochs, {"epochs": 5, "steps": 10})


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_finished_run_is_lengthened_by_epochs(
    toy_folder: Path, tmp_path: Path, scores: list, capsys: pytest.CaptureFixture
) -> None:
    scores[:] = [0.9]
    config = replace(SHORT, steps=None, epoch_steps=None, data=str(toy_folder))
    run = train(replace(config, epochs=1, out=tmp_path / "run"))
    assert "training, 0 of 2 steps (1 epochs) done" in capsys.readouterr().out
    best = run.best.read_bytes()
    scores[:] = [0.6]
    main(["train", "--resume", str(run.root), "--epochs", "2"])
    output = capsys.readouterr().out
    assert "--epochs: 1 -> 2" in output
    assert "--steps: 2 -> 4; the rate falls to 0 at the new end" in output
    assert "training, 2 of 4 steps (2 epochs) done" in output
    assert "best validation mean iou: 0.9000, epoch 1" in output
    assert [int(row["epoch"]) for row in rows(run.root)] == [0, 1]
    assert run.best.read_bytes() == best
    optimizer = keras.models.load_model(run.last).optimizer
    assert int(optimizer.iterations) == 4
    assert optimizer.get_config()["learning_rate"]["config"]["total_steps"] == 4
    saved = json.loads((run.root / "config.json").read_text())
    assert [saved[name] for name in ("epochs", "steps", "epoch_steps")] == [2, 4, 2]


@pytest.mark.usefixtures("quick", "shrunk")
def test_patience_ends_a_run_and_survives_a_kill(
    toy_folder: Path, tmp_path: Path, scores: list, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SHORT, steps=6, epoch_steps=1, patience=1, data=str(toy_folder))
    scores[:] = [0.3, None]
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, out=tmp_path / "run"))
    scores[:] = [0.3]  # the same score is not a better one
    run = resume(tmp_path / "run")  # validates epoch 2, and that is the end
    output = capsys.readouterr().out
    assert "stopped early after epoch 2, by --patience 1" in output
    assert "best validation mean iou: 0.3000, epoch 1" in output
    best = run.best.read_bytes()
    with monkeypatch.context() as patched:  # a kill right after it was lengthened
        patched.setattr("training.train._fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for changes, message in (({}, "nothing is left to do, 2 of 6"), ({"steps": 8}, "training, 2 of 8")):
            with pytest.raises(KeyboardInterrupt):
                resume(run.root, changes=changes)
            assert f"{message} steps done" in capsys.readouterr().out
    scores[:] = [0.1]
    resume(run.root)  # a longer run has its patience again
    assert "stopped early after epoch 3, by --patience 1" in capsys.readouterr().out
    assert run.best.read_bytes() == best
    assert [int(row["epoch"]) for row in rows(run.root)] == [0, 1, 2]


def test_validations_without_a_better_score_are_counted(tmp_path: Path, scores: list) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=SegFormerAdamW(1e-3), loss="mse")
    run, progress = Run(tmp_path), Progress()
    run.last.parent.mkdir()
    save = SaveRun(run, progress, score="mean_iou")
    data = tf.data.Dataset.from_tensors((np.ones((2, 1)), np.ones((2, 1)))).repeat()

    def fit(*script: float, patience: int | None) -> tuple[int, int, int]:
        scores[:] = script
        options = {"steps_per_epoch": 1, "validation_data": data, "validation_steps": 1, "verbose": 0, "shuffle": False}
        options |= {"initial_epoch": progress.epoch, "epochs": progress.epoch + len(script)}
        model.fit(data, callbacks=[save, StopEarly(progress, patience)], **options)
        return progress.epoch, progress.best_epoch, progress.waited

    assert fit(0.1, 0.3, 0.2, 0.25, 0.3, patience=None) == (5, 2, 3)
    assert fit(0.4, 0.1, 0.2, 0.5, patience=2) == (8, 6, 2)
    assert fit(0.1, 0.9, patience=3) == (9, 6, 3)
    save.size = [64, 64]
    assert fit(0.05, 0.01, patience=3) == (11, 10, 1)  # scores of another size are not compared


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_that_was_lengthened_and_killed_ends_as_one_left_alone(
    left_alone: Path, toy_folder: Path, tmp_path: Path
) -> None:
    whole = Path(shutil.copytree(left_alone, tmp_path / "whole"))
    resume(whole, changes={"steps": 6, "patience": 9})
    killed = Path(shutil.copytree(whole, tmp_path / "killed"))
    for path in (killed / "backup").glob("worker0-epoch3.*"):
        path.unlink()
    resume(killed)
    assert_same_end(whole, killed, epochs=3)


def test_runs_of_before_are_read(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", replace(EXACT, data="data", out=tmp_path / "run"))
    saved = json.loads((run.root / "config.json").read_text())
    new = ("epochs", "patience", "freeze", "layer_decay", "balance")
    write_json(run.root / "config.json", {name: value for name, value in saved.items() if name not in new})
    assert TrainConfig.read(run.root) == replace(EXACT, data="data", out=run.root)
    old = Progress(epoch=3, samples=6, best=0.5, size=None, history=[], trained=None)
    old.lengthen(4)
    assert not old.stopped_early(1)
