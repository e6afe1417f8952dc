"""A run is killed, goes on, and ends with the bits of one that was left alone."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from segformer_tf import build_segformer, load_segformer
from segformer_tf.errors import InputError
from tests.forked import Forked
from tests.training.small import COMMAND, EAGER, SMALL, held
from training.optim.optimizer import SegFormerAdamW
from training.runs.backup import Backup, Progress
from training.runs.folder import Run, alone_in, write_json
from training.train import resume, train


def start(*words: object, command: Sequence[str] = COMMAND, **environment: str) -> Forked:
    return Forked([*command, *words], {**os.environ, **environment})


def options(data: Path, out: Path, *, epochs: int) -> list[object]:
    return [
        *("--data", data, "--out", out, "--variant", "tiny", "--steps", 2 * epochs, "--epoch-steps", 2),
        *("--batch-size", 2, "--crop", 64, 64, "--warmup-steps", 1, "--learning-rate", "1e-3"),
        *("--drop-path", 0.3, "--ema", 0.9, "--deterministic"),
    ]


def finish(*words: object) -> None:
    process = start(*words)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 0, error


def state(run: Path, epoch: int) -> dict[str, np.ndarray]:
    with np.load(run / "backup" / f"worker0-epoch{epoch}.npz") as file:
        return dict(file)


def progress(state: dict[str, np.ndarray]) -> dict:
    """The progress in a backup, without times."""
    values = json.loads(str(state.pop("progress")))
    for row in (*values["history"], values["trained"]):
        row.pop("images_per_second"), row.pop("data_wait")
    return values


def assert_same_end(one: Path, other: Path, *, epochs: int) -> None:
    expected, actual = state(one, epochs), state(other, epochs)
    assert progress(expected) == progress(actual)
    assert expected.keys() == actual.keys()
    assert any("seed_generator_state" in name for name in expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    for name in ("best", "last"):
        expected, actual = (load_segformer(run / "weights" / f"{name}.keras").get_weights() for run in (one, other))
        for a, b in zip(expected, actual, strict=True):
            np.testing.assert_array_equal(a, b)
    notes = [json.loads((run / "backup" / f"worker0-epoch{epochs}.json").read_text()) for run in (one, other)]
    assert notes[0]["best"] == notes[1]["best"]
    assert len(notes[0]["history"]) == len(notes[1]["history"]) == epochs
    assert [p.name for p in other.rglob("*.part*")] == []


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_killed_run_ends_as_one_left_alone(left_alone: Path, toy_folder: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = start(*options(toy_folder, killed, epochs=2), command=held(EAGER, "note", 1))
    while not list((killed / "backup").glob("worker0-epoch*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not (killed / "backup" / "worker0-epoch2.npz").exists()
    resume(killed)
    assert_same_end(left_alone, killed, epochs=2)
    assert len(json.loads((killed / "environment.json").read_text())) == 2


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_killed_before_its_first_backup_starts_where_it_started(toy_folder: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    build_segformer("tiny", num_classes=6).save(start)
    config = replace(SMALL, data=str(toy_folder), weights=start, steps=2, deterministic=True)
    alone = train(replace(config, out=tmp_path / "alone"))
    killed = Run(shutil.copytree(alone.root, tmp_path / "killed"))
    shutil.rmtree(killed.backup)  # the kill came after the weights and before the backup
    resume(killed.root)
    assert_same_end(alone.root, killed.root, epochs=1)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(toy_folder: Path, tmp_path: Path) -> None:
    alone, killed, epochs = tmp_path / "alone", tmp_path / "killed", 80
    finish(*options(toy_folder, alone, epochs=epochs))
    dice, kills = random.Random(0), 0
    while kills < 20:
        process = start(*(["--resume", killed] if killed.exists() else options(toy_folder, killed, epochs=epochs)))
        try:
            process.wait(timeout=dice.uniform(3, 16))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        else:
            pytest.fail(f"ended after {kills} kills")
        finally:
            print(f"{kills} kills:", process.communicate()[1])
    finish("--resume", killed)
    assert_same_end(alone, killed, epochs=epochs)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Its values are any test's to change."""
    model = build_segformer("tiny", num_classes=3, drop_path_rate=0.3)
    model.compile(optimizer=SegFormerAdamW(1e-3))
    model.optimizer.build(model.trainable_variables)
    return model


def test_backup_holds_random_states_and_progress(model: keras.Model, tmp_path: Path) -> None:
    progress = Progress(epoch=3, best=0.5, history=[{"epoch": 2, "loss": 1.0}])
    Backup(tmp_path).save(model, progress)
    kept = [np.array(v.value) for v in model.variables]
    for variable in model.variables:
        variable.assign(np.asarray(variable.value) + 1)
    assert Backup(tmp_path).restore(model) == progress
    for variable, value in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(variable.value, value)
    assert sum("seed" in v.name for v in model.variables) > 1


def test_a_backup_cut_short_leaves_the_one_before(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = Backup(tmp_path)
    for epoch in (1, 2, 3):
        backup.save(model, Progress(epoch=epoch))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["worker0-epoch2.npz", "worker0-epoch3.npz"]

    def cut_short(path: Path, **arrays: np.ndarray) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", cut_short)
    with pytest.raises(KeyboardInterrupt):
        backup.save(model, Progress(epoch=4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["worker0-epoch2.npz", "worker0-epoch3.npz"]
    assert backup.restore(model).epoch == 3


@pytest.mark.parametrize(
    ("newest", "message"),
    [([7, 0], "worker 1 has no backup, others have one of epoch 3"), ([0, 0], None), ([6, 5], None)],
)
def test_workers_agree_on_an_epoch_or_stop(
    newest: list[int], message: str | None, model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.runs.backup._of_all_workers", lambda number, strategy: newest)
    backup = Backup(tmp_path)
    for epoch in (2, 3):
        backup.save(model, Progress(epoch=epoch, trained={"loss": 1.0}))
        backup.note(Progress(epoch=epoch))
    if message:
        with pytest.raises(InputError, match=message):
            backup.restore(model)
        return
    restored = backup.restore(model)
    assert restored == (Progress(epoch=2) if any(newest) else Progress())
    assert not any(newest) or sorted(p.name for p in tmp_path.iterdir()) == [
        "worker0-epoch2.json",
        "worker0-epoch2.npz",
    ]


def test_an_epoch_that_one_worker_did_not_validate_is_validated_by_all(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.runs.backup._of_all_workers", lambda number, strategy: [number, number - 1])
    Backup(tmp_path).save(model, Progress(epoch=3, trained={"loss": 1.0}))
    Backup(tmp_path).note(Progress(epoch=3))
    assert Backup(tmp_path).restore(model) == Progress(epoch=3, trained={"loss": 1.0})


def test_one_process_a_run(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(InputError, match="another process is training it"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


def test_a_disk_without_locks_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / ".lock").touch()  # left by a run that was killed
    monkeypatch.setattr("fcntl.flock", no_locks)
    with alone_in(tmp_path), alone_in(tmp_path):
        pass


def test_an_out_folder_that_exists_is_refused_before_the_data_is_read(toy_folder: Path, tmp_path: Path) -> None:
    config = replace(SMALL, data=str(toy_folder / "missing"), out=tmp_path)
    with pytest.raises(InputError, match="exists already; choose another --out"):
        train(config)
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError, match="exists already; go on with --resume"):
        train(config)


def test_ctrl_c_ends_between_two_steps(toy_folder: Path, tmp_path: Path) -> None:
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    process = start(*options(toy_folder, run, epochs=200), command=EAGER, TMPDIR=str(temporary))
    while not list((run / "backup").glob("worker0-epoch*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert error.splitlines()[-2:] == [f"go on with: segformer train --resume {run}", "segformer: stopped"]
    assert list(temporary.iterdir()) == []


def test_backups_that_do_not_fit_give_one_line(model: keras.Model, tmp_path: Path) -> None:
    other = build_segformer("tiny", num_classes=4)
    other.compile(optimizer=SegFormerAdamW(1e-3))
    other.optimizer.build(other.trainable_variables)
    Backup(tmp_path).save(other, Progress(epoch=1))
    with pytest.raises(InputError, match=r"worker0-epoch1\.npz: a backup of another model"):
        Backup(tmp_path).restore(model)
    whole = (tmp_path / "worker0-epoch1.npz").read_bytes()
    for damaged in (b"", b"PK", whole[: len(whole) // 2]):
        (tmp_path / "worker0-epoch1.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"worker0-epoch1\.npz: not a usable backup"):
            Backup(tmp_path).restore(model)


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_without_a_backup_resumes_from_its_start(toy_folder: Path, tmp_path: Path) -> None:
    config = replace(SMALL, data=str(toy_folder), out=tmp_path / "run", steps=2, eval_size=(128, 128))
    Run.create(tmp_path / "run", config)
    run = resume(tmp_path / "run")
    assert len(run.history.read_text().splitlines()) == 2
    assert resume(run.root).root == run.root  # one that is finished has nothing left to do
    assert len(run.history.read_text().splitlines()) == 2


@pytest.mark.usefixtures("quick")
def test_resume_needs_a_run_and_the_data_of_its_start(toy_folder: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run folder: it holds no config\.json"):
        resume(tmp_path / "none")
    run = Run(shutil.copytree(trained, tmp_path / "run"))
    saved = json.loads((run.root / "config.json").read_text())
    fewer = shutil.copytree(toy_folder, tmp_path / "fewer")
    for kind in ("images", "masks"):
        (fewer / "train" / kind / "0.png").unlink()
    write_json(run.root / "config.json", {**saved, "data": fewer})
    kept = [(run.root / f"{name}.json").read_text() for name in ("config", "environment")]
    with pytest.raises(InputError, match="began with 6 training samples, the data has 5"):
        resume(run.root, changes={"steps": 8})
    assert [(run.root / f"{name}.json").read_text() for name in ("config", "environment")] == kept
    odd = {"steps": "10", "crop": [64], "seed": None, "scale": 1, "class_weights": "no", "data": 5, "batch_size": 2.5}
    cases = [(json.dumps({**saved, name: value}), f"{name} cannot be") for name, value in odd.items()]
    for text, message in (("{", "not a run's configuration"), (json.dumps({**saved, "stepz": 3}), "stepz"), *cases):
        (run.root / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            resume(run.root)
