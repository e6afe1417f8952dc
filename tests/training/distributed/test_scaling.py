"""Accumulation, clipping, averaging, precision, throughput: alone and under a strategy."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import MeanIoU, SegmentationLoss, build_segformer, load_segformer
from segformer_tf.distributed_fit import MultiWorkerFit
from segformer_tf.losses.table import make_loss
from tests.helpers import noise
from tests.training.small import SMALL
from training.distributed.strategy import make_strategy
from training.optim.accumulate import accumulate
from training.optim.optimizer import SegFormerAdamW, SharedLossScale, averaged
from training.runs.callbacks import Throughput
from training.train import train

IMAGES = noise(24, 64, 64, 3)
MASKS = np.random.default_rng(1).choice([0, 1, 2, 255], (24, 64, 64), p=[0.3, 0.2, 0.1, 0.4]).astype(np.uint8)
MASKS[::3, :40] = 255  # the parts of a step have unlike numbers of valid pixels


class TwoLayers(MultiWorkerFit, keras.Model):
    """A patch embedding and a classifier: what a step does with parts and replicas is the same for any network."""

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype)
        self.embed = keras.layers.Conv2D(8, 7, 4, "same", activation="gelu", dtype=dtype)
        self.classify = keras.layers.Conv2D(3, 1, dtype=dtype)
        self.embed.build((None, 64, 64, 3))
        self.classify.build((None, 16, 16, 8))
        self.built = True

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.classify(self.embed(images))


@cache
def curve(
    parts: int,
    *,
    devices: int = 1,
    dtype: str = "float32",
    batch_size: int = 8,
    loss: str = "ce",
    **options: float,
) -> list[float]:
    """Losses of six steps."""
    keras.utils.set_random_seed(3)
    strategy = make_strategy(devices)
    with strategy.scope():
        model = TwoLayers(dtype)
        optimizer = SegFormerAdamW(2e-2, head_multiplier=1.0, **options)
        model.compile(
            optimizer=SharedLossScale(optimizer) if dtype == "mixed_float16" else optimizer,
            loss=make_loss(loss, class_weights=[1.0, 2.0, 3.0]),
            metrics=[MeanIoU(3)],
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
        if parts > 1:
            accumulate(model, parts)
    losses: list[float] = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    data = tf.data.Dataset.from_tensor_slices((IMAGES, MASKS)).batch(batch_size, drop_remainder=True).repeat()
    model.fit(data, steps_per_epoch=1, epochs=6, verbose=0, shuffle=False, callbacks=[callback])
    return losses


@pytest.mark.parametrize("devices", [1, 2])
def test_accumulation_has_the_loss_curve_of_the_whole_batch(devices: int) -> None:
    whole = curve(1)
    np.testing.assert_allclose(curve(2, devices=devices), whole, rtol=1e-4)
    assert not np.allclose(curve(1, batch_size=4), whole, rtol=1e-3)  # half the batch is another curve


@pytest.mark.parametrize("loss", ["ohem", "ce+dice"])
def test_losses_of_images_have_one_curve_on_two_devices_and_in_parts(loss: str) -> None:
    whole = curve(1, loss=loss)
    np.testing.assert_allclose(curve(2, devices=2, loss=loss), whole, rtol=1e-4)
    assert not np.allclose(curve(1), whole, rtol=1e-3)


def test_clipping_is_of_the_whole_gradient_whatever_the_replicas() -> None:
    clipped = curve(1, clip_norm=0.05, epsilon=1.0)  # with a large epsilon the size of a gradient is felt
    np.testing.assert_allclose(curve(1, devices=2, clip_norm=0.05, epsilon=1.0), clipped, rtol=1e-5)
    assert not np.allclose(curve(1, epsilon=1.0), clipped, rtol=1e-4)


@pytest.mark.parametrize("broken", [0, 1])
def test_an_overflow_on_any_replica_skips_the_step_on_all(broken: int) -> None:
    strategy = make_strategy(2)
    with strategy.scope():
        layer = keras.layers.Dense(1)
        layer.build((None, 3))
        optimizer = SharedLossScale(SegFormerAdamW(1e-2, use_ema=True, ema_momentum=0.5))
        optimizer.build(layer.trainable_variables)
    before = [v.numpy() for v in layer.trainable_variables]

    @tf.function
    def step(where: int) -> None:
        def own() -> None:
            here = tf.distribute.get_replica_context().replica_id_in_sync_group == where
            gradients = [tf.where(here, np.inf, 1.0) * tf.ones_like(v) for v in layer.trainable_variables]
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

        strategy.run(own)

    step(tf.constant(broken))
    assert int(optimizer.iterations.numpy()) == 0
    for old, variable in zip(before, layer.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    step(tf.constant(-1))  # nobody overflows
    assert int(optimizer.iterations.numpy()) == 1
    assert np.isfinite(layer.kernel.numpy()).all()
    assert not np.array_equal(layer.kernel.numpy(), before[0])


def test_mixed_float16_learns_as_float32() -> None:
    half, whole = curve(2, dtype="mixed_float16"), curve(1)
    assert np.isfinite(half).all()
    assert half[0] == pytest.approx(whole[0], rel=0.01)
    assert half[-1] < half[0] - 0.05  # a first step or two may be lost while the loss scale is found


def test_every_option_of_a_step_is_traced_together_on_two_devices() -> None:
    half = curve(2, devices=2, dtype="mixed_float16", loss="ce+dice", clip_norm=1.0, use_ema=True, ema_momentum=0.9)
    whole = curve(1, loss="ce+dice")
    assert np.isfinite(half).all()
    assert half[0] == pytest.approx(whole[0], rel=0.01)
    assert half[-1] < half[0] - 0.05


@pytest.mark.parametrize("devices", [1, 2])
def test_average_follows_the_weights_and_is_swapped_in_and_out(devices: int) -> None:
    with make_strategy(devices).scope():
        model = TwoLayers()
        model.compile(optimizer=SegFormerAdamW(1e-2, use_ema=True, ema_momentum=0.5), loss=SegmentationLoss())
        model.optimizer.build(model.trainable_variables)
    seen: list[np.ndarray] = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: seen.append(model.weights[0].numpy()))
    # `fit` itself puts the average into the model when it is through: leave it before that.
    watch.on_epoch_end = lambda *_, **__: _check(model, seen)
    model.fit(IMAGES[:8], MASKS[:8], batch_size=2, epochs=1, verbose=0, shuffle=False, callbacks=[watch])
    assert len(seen) == 4


def _check(model: keras.Model, seen: list[np.ndarray]) -> None:
    expected = seen[0]
    for value in seen[1:]:
        expected = 0.5 * expected + 0.5 * value
    with averaged(model):
        np.testing.assert_allclose(model.weights[0].numpy(), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(model.weights[0].numpy(), seen[-1])


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_keeps_the_average_and_goes_on_from_the_weights(toy_folder: Path, tmp_path: Path) -> None:
    config = replace(SMALL, data=str(toy_folder), steps=2, deterministic=True)
    plain = load_segformer(train(replace(config, out=tmp_path / "plain")).last)
    run = train(replace(config, out=tmp_path / "ema", ema=0.9))
    with np.load(next(run.backup.glob("*epoch1.npz"))) as kept:
        of_kernel = {name: kept[name] for name in kept.files if kept[name].shape == plain.weights[0].shape}
    assert any(np.array_equal(value, plain.weights[0]) for value in of_kernel.values())  # training is as without it
    mean = load_segformer(run.last).weights[0]
    assert any(np.array_equal(value, mean) for value in of_kernel.values())
    assert not np.array_equal(mean, plain.weights[0])


@pytest.mark.usefixtures("quick", "light")
def test_every_option_at_once_trains_on_two_devices(toy_folder: Path, tmp_path: Path) -> None:
    """Op by op; the test of every option of a step traces them."""
    start = build_segformer("tiny", num_classes=6)
    start.save(tmp_path / "start.keras")
    run = train(
        replace(
            SMALL,
            data=str(toy_folder),
            out=tmp_path / "run",
            batch_size=4,
            steps=2,
            eval_size=(64, 64),
            devices=2,
            accumulate=2,
            precision="mixed_float16",
            ema=0.9,
            clip_norm=1.0,
            class_weights=0.5,
            base=(160, 96),
            weights=tmp_path / "start.keras",
            freeze="2",
            layer_decay=0.9,
            balance=0.5,
            patience=2,
            teacher=str(tmp_path / "start.keras"),
        )
    )
    with run.history.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert np.isfinite(float(row["loss"]))
        assert float(row["images_per_second"]) > 0
        assert 0 <= float(row["data_wait"]) <= 1
        assert float(row["skipped_steps"]) in (0, 1, 2)  # of the loss scale
    model = load_segformer(run.root)
    assert model.dtype_policy.name == "mixed_float16"
    for stage, (ours, theirs) in enumerate(zip(model.encoder.stages, start.encoder.stages, strict=True)):
        same = [np.array_equal(a, b) for a, b in zip(ours.weights, theirs.weights, strict=True)]
        assert all(same) if stage < 2 else not any(same)


def test_throughput_tells_slow_data_from_fast(toy_folder: Path) -> None:
    def measure(delay: float) -> dict[str, float]:
        model = TwoLayers()
        model.compile(optimizer="sgd", loss=SegmentationLoss())
        data = tf.data.Dataset.from_tensors((IMAGES[:2], MASKS[:2])).repeat()

        def slow(image: np.ndarray) -> np.ndarray:
            time.sleep(delay)
            return image

        if delay:
            data = data.map(lambda x, y: (tf.ensure_shape(tf.numpy_function(slow, [x], tf.float32), x.shape), y))
        throughput = Throughput(2)
        model.fit(data, steps_per_epoch=5, verbose=0, shuffle=False, callbacks=[throughput])
        return throughput.values()

    slow, fast = measure(0.3), measure(0.0)
    assert slow["data_wait"] > fast["data_wait"] + 0.3
    assert slow["images_per_second"] < 3 / 0.3  # a batch is fetched ahead
