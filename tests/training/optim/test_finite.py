"""A step that diverges ends a training; what is not finite is neither applied, kept nor read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import build_segformer, load_segformer
from segformer_tf.checkpoints.importer import checkpoint_of, to_keras
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from tests.training.small import SMALL
from training.distributed.strategy import make_strategy
from training.optim.optimizer import SegFormerAdamW, SharedLossScale
from training.runs.backup import Progress
from training.runs.callbacks import SaveRun, StopAtDivergence
from training.runs.folder import Run
from training.train import train


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_no_update_is_made_of_a_gradient_that_is_not_finite(
    devices: int, clip_norm: float | None, scaled: bool
) -> None:
    strategy = make_strategy(devices)
    with strategy.scope():
        layer = keras.layers.Dense(1)
        layer.build((None, 3))
        optimizer = SegFormerAdamW(1e-2, clip_norm=clip_norm)
        optimizer = SharedLossScale(optimizer) if scaled else optimizer
        optimizer.build(layer.trainable_variables)

    @tf.function(autograph=False)
    def step(factor: float) -> None:
        def own() -> None:
            here = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            gradients = [tf.where(here, factor, 1.0) * tf.ones_like(v) for v in layer.trainable_variables]
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

        strategy.run(own)

    for broken in (np.nan, np.inf):
        step(tf.constant(1.0))
        before = [v.numpy() for v in [*layer.trainable_variables, *optimizer.variables] if "scale" not in v.name]
        step(tf.constant(broken))
        after = [v.numpy() for v in [*layer.trainable_variables, *optimizer.variables] if "scale" not in v.name]
        for old, new in zip(before, after, strict=True):
            if not (scaled and old.ndim == 0):  # the scale's own counter
                np.testing.assert_array_equal(new, old)
    step(tf.constant(1.0))
    assert int(optimizer.iterations.numpy()) == 3
    assert np.isfinite(layer.kernel.numpy()).all()


@pytest.mark.usefixtures("quick", "shrunk")
def test_the_step_that_diverges_ends_the_run_and_nothing_of_it_is_kept(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    poison = keras.callbacks.LambdaCallback()
    count = []

    def break_weights(batch: int, logs: object = None) -> None:
        count.append(batch)
        if len(count) == 4:  # before step 4, the last of the second epoch
            variable = poison.model.decoder.linear_pred.kernel
            variable.assign(np.full(variable.shape, 1e38, np.float32))

    poison.on_train_batch_begin = break_weights
    monkeypatch.setattr("training.train.StopBetweenSteps", lambda: _Entered(poison))
    with pytest.raises(InputError) as error:
        train(replace(SMALL, data=str(toy_folder), out=run.root, steps=6))
    line = str(error.value)
    assert line.startswith("step 4, at rate 0.0005: the ")
    assert "is no finite number" in line
    assert f"{run.root} keeps what it was after step 2" in line
    assert "--learning-rate" in line
    assert "\n" not in line
    assert len(run.history.read_text().splitlines()) == 2  # the names and epoch 1
    assert sorted(p.name for p in run.backup.iterdir() if p.name != ".lock") == [
        "worker0-epoch1.json",
        "worker0-epoch1.npz",
    ]
    for path in (run.last, run.best):
        assert all(np.isfinite(w).all() for w in load_segformer(path).get_weights())


class _Entered:
    """In the place of `StopBetweenSteps`, which is entered."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self.callback = callback

    def __enter__(self) -> keras.callbacks.Callback:
        return self.callback

    def __exit__(self, *_: object) -> None:
        pass


class _Model:
    """As much of a model as `StopAtDivergence` looks at."""

    def __init__(self, scaled: bool) -> None:
        inner = SegFormerAdamW(1e-3)
        self.optimizer = SharedLossScale(inner) if scaled else inner
        self.optimizer.build([keras.Variable(np.zeros(2, np.float32))])

    def step(self) -> None:
        self.optimizer.iterations.assign_add(1)


def test_skipped_steps_are_counted_until_they_are_too_many() -> None:
    stop, model = StopAtDivergence(10, rate=lambda n: 0.1 * n, advice=lambda: "kept"), _Model(scaled=True)
    stop.set_model(model)
    stop.on_train_begin()
    stop.on_epoch_begin(2)
    model.step()
    stop.on_train_batch_end(0, {"loss": 1.0})
    for batch in range(1, 32):
        stop.on_train_batch_end(batch, {"loss": 1.0})
    assert stop.values() == {"skipped_steps": 31}
    with pytest.raises(InputError, match=r"^step 53, at rate 0.1: the gradient was no .* 32 times in a row.*; kept$"):
        stop.on_train_batch_end(32, {"loss": 1.0})
    stop.on_epoch_begin(3)
    with pytest.raises(InputError, match=r"^step 31, .*the loss is no finite number"):
        stop.on_train_batch_end(0, {"loss": np.array([1.0, np.nan])})  # of two workers


def test_without_a_loss_scale_no_step_is_skipped() -> None:
    stop, model = StopAtDivergence(10, rate=lambda n: 0.1, advice=lambda: "kept"), _Model(scaled=False)
    stop.set_model(model)
    stop.on_train_begin()
    stop.on_epoch_begin(0)
    model.step()
    stop.on_train_batch_end(0, {"loss": 1.0})
    assert stop.values() == {}
    with pytest.raises(InputError, match=r"^step 2, at rate 0.1: the gradient is no finite number; kept$"):
        stop.on_train_batch_end(1, {"loss": 1.0})


def test_a_validation_without_numbers_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    monkeypatch.setattr(SaveRun, "save_weights", staticmethod(lambda model, path: saved.append(path)))
    model = build_segformer("tiny", num_classes=3)
    model.compile(optimizer=SegFormerAdamW(1e-3))
    keep = SaveRun(Run(tmp_path), Progress(epoch=1), score="mean_iou")
    keep.set_model(model)
    for loss, score in ((np.nan, 0.9), (1.0, np.nan), (np.inf, 0.8)):
        keep.on_epoch_end(0, {"val_loss": loss, "val_mean_iou": score})
    assert (keep.progress.best, saved) == (-1.0, [])
    keep.on_epoch_end(0, {"val_loss": 1.0, "val_mean_iou": 0.1})
    assert (keep.progress.best, saved) == (0.1, [Run(tmp_path).best])


def test_weights_that_are_not_finite_are_neither_kept_nor_read(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = build_segformer("tiny", num_classes=6)
    model.compile(optimizer=SegFormerAdamW(1e-3))
    bias = model.decoder.linear_pred.bias
    bias.assign(np.array([0, 0, np.inf, 0, 0, 0], np.float32))
    keep = SaveRun(Run(tmp_path / "run"), Progress(), score="mean_iou")
    keep.set_model(model)
    keep.on_epoch_begin(0)
    with pytest.raises(InputError, match=r"epoch 1 left decoder/linear_pred/bias without finite numbers"):
        keep.on_test_begin()
    assert not (tmp_path / "run").exists()
    model.save(tmp_path / "nan.keras")
    for words in (
        ["evaluate", "--data", str(toy_folder)],
        ["export", "--out", str(tmp_path / "x.tflite"), "--size", "64", "64"],
    ):
        with pytest.raises(SystemExit):
            main([words[0], str(tmp_path / "nan.keras"), *words[1:]])
        (line,) = capsys.readouterr().err.splitlines()
        assert "nan.keras: decoder/linear_pred/bias holds values that are not finite numbers" in line


def test_a_checkpoint_that_is_not_finite_is_not_imported(tmp_path: Path) -> None:
    model = build_segformer("tiny", num_classes=2)
    model.encoder.weights[3].assign(np.full(model.encoder.weights[3].shape, np.nan, np.float32))
    with pytest.raises(InputError, match=rf"x\.pth: {model.encoder.weights[3].path} holds values"):
        to_keras(checkpoint_of(model, tmp_path / "x.pth"))
