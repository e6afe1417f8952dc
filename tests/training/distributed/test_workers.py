"""The same on one device, on two replicas, on two workers; what happens when a worker is lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import build_segformer
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from tests.forked import Forked
from tests.helpers import perturb
from tests.training.small import COMMAND, QUICK, SMALL, held, shrink_networks
from training.data.open import open_source
from training.data.pipeline import train_batches
from training.distributed.strategy import Place, _answers, _meet, make_strategy, this_place
from training.train import train

# A small rate: of biases before batch normalization Adam makes a step as large as the rate from rounding alone.
WHOLE = replace(
    SMALL,
    batch_size=4,
    steps=6,
    eval_size=(64, 64),
    learning_rate=5e-4,
    head_multiplier=1.0,
    drop_path=0.0,
    dropout=0.0,
)


# Of a network of three layers, whose curve would be a line at the rate above.
RATE = 5e-3


def cluster(index: int, ports: list[int]) -> str:
    workers = [f"localhost:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start_workers(*words: object, commands: Sequence[list[str]] = (QUICK, QUICK)) -> list[Forked]:
    ports = free_ports(2)
    return [Forked([*commands[i], *words], {**os.environ, "TF_CONFIG": cluster(i, ports)}) for i in range(2)]


def options(data: Path, out: Path, *, steps: int) -> list[object]:
    return [
        *("--data", data, "--out", out, "--variant", "tiny", "--steps", steps, "--epoch-steps", 2),
        *("--batch-size", 4, "--crop", 64, 64, "--eval-size", 64, 64, "--warmup-steps", 1, "--learning-rate", RATE),
        *("--head-multiplier", 1, "--drop-path", 0, "--dropout", 0),
    ]


def curve(run: Path) -> np.ndarray:
    """Rows of (loss, mean IoU, validation loss, validation mean IoU)."""
    with (run / "history.csv").open(newline="") as file:
        names = ("loss", "mean_iou", "val_loss", "val_mean_iou")
        return np.array([[float(row[name]) for name in names] for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def three_layers(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory, train_quickly: Callable) -> np.ndarray:
    """The same of a network as `start_workers` trains."""
    config = replace(WHOLE, data=str(toy_folder), out=tmp_path_factory.mktemp("three") / "run", learning_rate=RATE)
    with pytest.MonkeyPatch.context() as patch:
        shrink_networks(patch.setattr)
        return curve(train_quickly(config).root)


def assert_same_curve(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape == (3, 4)
    assert np.abs(np.diff(expected[:, 0])).min() > 0.01  # a curve, not a line
    difference = np.abs(actual - expected)
    assert difference[:, 0].max() < 1e-4
    assert difference[:, 1].max() < 1e-3
    assert difference[:, 3].max() < 1e-3
    # Biases before batch normalization have no gradient but rounding, which Adam makes a step of: the running
    # mean follows late, and only the validation loss sees it.
    assert difference[:, 2].max() < 1e-3


@pytest.mark.usefixtures("no_plots", "light")
def test_two_replicas_give_the_curve_of_one_device(toy_folder: Path, tmp_path: Path) -> None:
    """Without attention and MLPs, which know no other sample; the decoder's statistics are of both replicas."""
    start = tmp_path / "start.keras"
    perturb(build_segformer("tiny", num_classes=6)).save(start)
    config = replace(WHOLE, data=str(toy_folder), weights=start)
    one, two = (train(replace(config, out=tmp_path / str(devices), devices=devices)) for devices in (1, 2))
    assert_same_curve(curve(two.root), curve(one.root))


@pytest.mark.parametrize(("victim", "kind"), [(1, "npz"), pytest.param(0, "json", marks=pytest.mark.slow)])
def test_when_a_worker_is_lost_the_other_says_so_and_both_go_on_to_the_curve_of_one_device(
    victim: int, kind: str, three_layers: np.ndarray, toy_folder: Path, tmp_path: Path
) -> None:
    """In a validation, or after it. The network has three layers: any will do, and tracing takes most of the time."""
    run = tmp_path / "run"
    commands = [QUICK, QUICK]
    commands[victim] = held(QUICK, {"npz": "save", "json": "note"}[kind], 2)
    workers = start_workers(*options(toy_folder, run, steps=6), commands=commands)
    while not (run / "backup" / f"worker{victim}-epoch2.{kind}").exists():
        assert workers[0].poll() is None, workers[0].communicate()[1]
        time.sleep(0.05)
    workers[victim].kill()
    workers[victim].communicate()
    other = 1 - victim
    error = workers[other].communicate(timeout=120)[1]
    assert workers[other].returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith(f"segformer: worker {other} of 2 stopped, for another one did")
    assert f"--resume {run}" in last
    assert "Traceback" not in error
    before = curve(run)
    again = start_workers("--resume", run)
    for worker in again:
        error = worker.communicate(timeout=300)[1]
        assert worker.returncode == 0, error
    assert_same_curve(curve(run), three_layers)
    assert len(before) >= 1
    np.testing.assert_array_equal(curve(run)[: len(before)], before)  # it went on, not back
    # The chief alone wrote; each worker kept its own backup.
    writers = {int(path.name.split(".")[-3]) for path in (run / "tensorboard" / "train").iterdir()}
    assert writers == {workers[0].pid, again[0].pid}
    assert {p.name for p in (run / "backup").iterdir() if p.name != ".lock"} == {
        f"worker{i}-epoch{epoch}.{kind}" for i in (0, 1) for epoch in (2, 3) for kind in ("npz", "json")
    }


def test_a_worker_waits_for_the_others_by_name_and_can_be_stopped(toy_folder: Path, tmp_path: Path) -> None:
    ports = free_ports(2)
    command = [*COMMAND, *options(toy_folder, tmp_path / "run", steps=6)]
    process = Forked(command, {**os.environ, "TF_CONFIG": cluster(0, ports)})
    process.wait_for(f"worker 0 of 2: waiting for localhost:{ports[1]}")
    process.send_signal(signal.SIGTERM)  # Ctrl-C ends it too, but is ignored by what a shell put in the background
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    with (
        socket.create_server(("", ports[0])),
        pytest.raises(InputError, match=f"port {ports[0]} cannot be listened on"),
    ):
        _meet(Place(0, 2, tuple(f"localhost:{port}" for port in ports)))
    assert not _answers("nowhere.invalid:1")  # waited for: a pod has no name before it starts


def test_every_worker_reads_its_own_part_of_each_batch(toy_folder: Path) -> None:
    def some(context: tf.distribute.InputContext | None) -> list[np.ndarray]:
        source = open_source(str(toy_folder), "train")
        data = train_batches(source, crop=(64, 64), scale=(0.9, 1.1), batch_size=4, seed=3, start=8, context=context)
        return [mask for _, mask in data.take(3).as_numpy_iterator()]

    whole = np.concatenate(some(None)).reshape(3, 2, 2, 64, 64)  # step, worker, sample of the worker
    for worker in (0, 1):
        context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=worker, num_replicas_in_sync=2)
        np.testing.assert_array_equal(some(context), whole[:, worker])


def test_tf_config_tells_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert this_place() == Place(0, 1)
    monkeypatch.setenv("TF_CONFIG", cluster(1, [1, 2, 3]))
    assert this_place() == Place(1, 3, ("localhost:1", "localhost:2", "localhost:3"))
    with_chief = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(with_chief))
    assert this_place() == Place(2, 3, ("a:1", "b:1", "c:1"))


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"cluster": {"worker": ["a:1", "b:1"]}}', cluster(5, [1, 2])])
def test_a_tf_config_that_cannot_be_used_is_one_line(
    text: str, toy_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(SystemExit):
        main(["train", "--data", str(toy_folder)])
    assert capsys.readouterr().err.startswith("segformer: TF_CONFIG: ")


def test_several_workers_need_one_name_for_the_run(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", cluster(0, [1, 2]))
    with pytest.raises(InputError, match="--devices: with TF_CONFIG every worker uses all its devices"):
        make_strategy(7)
    with pytest.raises(InputError, match="--out is needed with several workers"):
        train(replace(SMALL, data=str(toy_folder)))
