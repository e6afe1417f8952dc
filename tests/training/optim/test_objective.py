from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import DiceLoss, MeanIoU, SegFormer, SegmentationLoss, build_segformer
from segformer_tf.config import variant_config
from segformer_tf.errors import InputError
from segformer_tf.metrics import confusion_matrix, mean_iou
from tests.helpers import noise
from tests.training.small import SMALL
from training.config import TrainConfig
from training.data.check_masks import sampled_pixels
from training.data.open import open_source
from training.distributed.strategy import make_strategy
from training.optim.losses import rare_class_weights
from training.optim.optimizer import SegFormerAdamW, WarmupPoly, layer_number, parameter_group
from training.tasks.segmentation import Segmentation

LOGITS = 3 * noise(2, 8, 12, 5)
MASK = np.random.default_rng(1).choice([0, 1, 2, 3, 4, 255], (2, 32, 48)).astype(np.uint8)


def test_loss_is_the_mean_over_valid_pixels() -> None:
    up = tf.image.resize(LOGITS, (32, 48)).numpy().astype(np.float64)
    log_p = up - np.log(np.exp(up).sum(-1, keepdims=True))
    valid = MASK != 255
    expected = -log_p[valid, MASK[valid]].mean()
    assert float(SegmentationLoss()(MASK, LOGITS)) == pytest.approx(expected, rel=1e-5)
    assert float(SegmentationLoss()(np.full_like(MASK, 255), LOGITS)) == 0.0


def test_class_weights_weigh_pixels() -> None:
    weights = [1.0, 2.0, 0.5, 4.0, 1.5]
    up = tf.image.resize(LOGITS, (32, 48)).numpy().astype(np.float64)
    log_p = up - np.log(np.exp(up).sum(-1, keepdims=True))
    truth = MASK[MASK != 255]
    w = np.array(weights)[truth]
    expected = -(w * log_p[MASK != 255, truth]).sum() / w.sum()
    loss = SegmentationLoss.from_config(SegmentationLoss(weights).get_config())
    assert float(loss(MASK, LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_a_runs_loss_is_one_of_the_table_and_old_runs_have_cross_entropy(toy_folder: Path, tmp_path: Path) -> None:
    config = replace(SMALL, data=str(toy_folder), loss="ce+dice", class_weights=1.0, eval_size=(64, 64), out=tmp_path)
    config.check()
    task = Segmentation(config)
    task.open(None)
    loss = task.loss()
    assert isinstance(loss, DiceLoss)
    assert (loss.cross_entropy, len(loss.class_weights)) == (1.0, 6)
    with pytest.raises(InputError, match=r"--loss must be one of ce, focal, .*\. Received: hinge"):
        replace(config, loss="hinge").check()
    saved = json.loads(json.dumps(task.config.to_dict(), default=str))
    assert saved["loss"] == "ce+dice"
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in saved.items() if k != "loss"}))
    assert TrainConfig.read(tmp_path).loss == "ce"
    assert isinstance(Segmentation(replace(config, loss="ce", class_weights=0.0)).loss(), SegmentationLoss)


def test_rare_classes_weigh_more_by_enets_formula(toy_folder: Path) -> None:
    source = open_source(str(toy_folder), "train")
    weights = rare_class_weights(sampled_pixels(source), 1.0)
    masks = np.concatenate([source[i][1].ravel() for i in range(len(source))])
    shares = np.bincount(masks[masks != 255], minlength=6) / (masks != 255).sum()
    np.testing.assert_allclose(weights, 1 / np.log(1.02 + shares))
    assert np.argmin(weights) == np.argmax(shares)


def test_metric_is_numpys_over_all_batches() -> None:
    metric = MeanIoU(5)
    total = np.zeros((5, 5), np.int64)
    for seed in range(3):
        logits = noise(2, 8, 12, 5, seed=seed)
        metric.update_state(MASK, logits)
        prediction = tf.image.resize(logits, (32, 48)).numpy().argmax(-1)
        total += confusion_matrix(MASK, prediction, num_classes=5)
    np.testing.assert_array_equal(metric.total_cm.numpy(), total)
    assert float(metric.result()) == pytest.approx(mean_iou(total), rel=1e-6)


def test_schedule_warms_up_and_decays_to_zero() -> None:
    schedule = WarmupPoly(6e-5, total_steps=1000, warmup_steps=100)
    rates = [float(schedule(s)) for s in (0, 50, 100, 550, 1000, 2000)]
    half = 6e-5 * 0.95 * (1 - 0.5 * (1 - 1e-6))
    np.testing.assert_allclose(rates, [6e-11, half, 5.4e-5, 2.7e-5, 0, 0], rtol=1e-4, atol=1e-12)
    assert WarmupPoly.from_config(schedule.get_config()).get_config() == schedule.get_config()
    with pytest.raises(ValueError, match="Received: 5 and 5"):
        WarmupPoly(1.0, total_steps=5, warmup_steps=5)


def test_groups_by_path() -> None:
    model = build_segformer("tiny", num_classes=3)
    groups = {v.path: parameter_group(v.path, 0.01, 10.0) for v in model.trainable_variables}
    undecayed = {path for path, (_, decay) in groups.items() if decay == 0.0}
    assert undecayed == {p for p in groups if "/norm" in p}
    # per block norm1, norm2 and, in three stages, the reduction's; per stage patch_embed and stage norm
    assert len(undecayed) == 2 * (5 * 2 + 4 + 4 * 2)
    assert groups["decoder/bn/gamma"] == (10.0, 0.01)  # as the authors': its name holds no "norm"
    assert groups["encoder/stage1/block0/attn/q/bias"] == (1.0, 0.01)  # biases are decayed
    assert {rate for path, (rate, _) in groups.items() if path.startswith("decoder/")} == {10.0}


def test_rates_fall_from_block_to_block_toward_the_image() -> None:
    """Adam's first step without decay is the rate itself, whatever the gradient."""
    config = variant_config("tiny", num_classes=3, depths=(1, 3, 2, 1))
    model = SegFormer(config, frozen=["stage1"])
    rate, warmup = 0.1, WarmupPoly(0.1, total_steps=10, warmup_steps=4)
    options = {"decay": 0.0, "head_multiplier": 10.0, "layer_decay": 0.8, "depths": config.depths}
    optimizer = SegFormerAdamW(warmup, **options)
    optimizer.build(model.trainable_variables)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    for step in range(2):  # two, for the first one's rate is about 0
        if step == 1:
            before = {v.path: v.numpy().copy() for v in model.trainable_variables}
        optimizer.apply_gradients([(tf.ones(v.shape), v) for v in model.trainable_variables])
    rate = rate * 0.9 * 0.25  # of step 1, by the schedule
    # 7 blocks: the embedding is layer 0, the blocks 1 to 7, the decoder 8
    layers = {
        "stage2/patch_embed/": 1,
        "stage2/block0/": 2,
        "stage2/block1/": 3,
        "stage2/block2/": 4,
        "stage2/norm/": 4,
        "stage3/patch_embed/": 4,
        "stage3/block0/": 5,
        "stage3/block1/": 6,
        "stage3/norm/": 6,
        "stage4/patch_embed/": 6,
        "stage4/block0/": 7,
        "stage4/norm/": 7,
    }
    expected = {f"encoder/{name}": rate * 0.8 ** (8 - layer) for name, layer in layers.items()}
    expected["decoder/"] = 10 * rate
    seen = set()
    for variable in model.trainable_variables:
        (name,) = (name for name in expected if variable.path.startswith(name))
        moved = before[variable.path] - variable.numpy()
        np.testing.assert_allclose(moved, expected[name], rtol=1e-3, atol=1e-6, err_msg=variable.path)
        seen.add(name)
    assert seen == set(expected)
    assert layer_number("encoder/stage1/patch_embed/norm/beta", config.depths) == 0
    assert layer_number("encoder/stage1/block0/attn/norm/beta", config.depths) == 1  # the reduction's
    assert SegFormerAdamW.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match="below 1 it needs depths"):
        SegFormerAdamW(1e-3, layer_decay=0.9)


def adamw(w: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float, epsilon: float) -> np.ndarray:
    """Loshchilov and Hutter's update as torch computes it: epsilon is added to the root of the corrected mean."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - rate * decay * w
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
    return w


class _Vector(keras.layers.Layer):
    """One variable of four."""

    def build(self, shape: tuple) -> None:
        self.kernel = self.add_weight(shape=(4,), initializer="random_normal", name="kernel")


class _Groups(keras.layers.Layer):
    """Three variables, one for each group."""

    def __init__(self) -> None:
        super().__init__(name="model")
        self.vectors = [_Vector(name=name) for name in ("encoder", "norm1", "decoder")]

    def build(self, shape: tuple) -> None:
        for vector in self.vectors:
            vector.build(shape)
        self.parts = [vector.kernel for vector in self.vectors]


@pytest.mark.parametrize("mirrored", [False, True])
def test_optimizer_steps_as_adamw_in_each_group(mirrored: bool) -> None:
    strategy = make_strategy(2) if mirrored else tf.distribute.get_strategy()
    with strategy.scope():
        layer = _Groups()
        layer.build((None,))
        optimizer = SegFormerAdamW(1e-2, decay=0.1, head_multiplier=10.0, epsilon=0.1)  # large, to be felt
        optimizer.build(layer.trainable_variables)
    before = [v.numpy().copy() for v in layer.parts]
    gradients = [[noise(4, seed=10 * t + i) for i in range(3)] for t in range(5)]

    @tf.function
    def step(g: list) -> None:
        # Replicas' gradients are summed: each gives its share.
        strategy.run(
            lambda: optimizer.apply_gradients(
                [(x / strategy.num_replicas_in_sync, v) for x, v in zip(g, layer.parts, strict=True)]
            )
        )

    for g in gradients:
        step([tf.constant(x) for x in g])
    for i, (rate, decay) in enumerate([(1e-2, 0.1), (1e-2, 0.0), (1e-1, 0.1)]):
        expected = adamw(before[i].astype(np.float64), [g[i] for g in gradients], rate, decay, 0.1)
        np.testing.assert_allclose(layer.parts[i].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert SegFormerAdamW(1e-2).epsilon == 1e-8  # torch's; Keras' is 1e-7
    assert SegFormerAdamW.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
