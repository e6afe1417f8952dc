"""Frozen stages, layer-wise rates and class-balanced samples in whole runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from segformer_tf import SegFormer, build_segformer, load_segformer
from segformer_tf.config import variant_config
from segformer_tf.errors import InputError
from tests.helpers import noise, perturb, refused
from tests.training.runs.test_resume import assert_same_end
from tests.training.small import EXACT, SMALL
from training.runs.folder import Run
from training.tasks.segmentation import Segmentation
from training.train import resume, train


def test_a_frozen_stage_is_in_inference_mode() -> None:
    config = variant_config("tiny", num_classes=3, drop_path_rate=0.9, dropout_rate=0.0)
    model = perturb(SegFormer(config, frozen=["stage1", "stage2"]))
    image = noise(2, 64, 96, 3)
    inference, training = model.encoder(image, training=False), model.encoder(image, training=True)
    for name, same in (("c1", True), ("c2", True), ("c3", False), ("c4", False)):
        assert np.array_equal(inference[name], training[name]) == same
    thawed = perturb(SegFormer(config))
    assert not np.array_equal(thawed.encoder(image, training=True)["c2"], inference["c2"])
    by_hand = perturb(SegFormer(config))
    by_hand.encoder.trainable = False
    np.testing.assert_array_equal(by_hand.encoder(image, training=True)["c4"], inference["c4"])
    assert by_hand.get_config()["frozen"] == ["stage1", "stage2", "stage3", "stage4"]
    with pytest.raises(InputError, match=r"frozen parts must be among stage1, .*, decoder\. Received: stage5"):
        SegFormer(config, frozen=["stage5"])


def test_all_of_the_encoder_can_be_frozen(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    start = tmp_path / "start.keras"
    build_segformer("tiny", num_classes=6).save(start)
    task = Segmentation(replace(SMALL, data=str(toy_folder), weights=start, freeze="encoder"))
    task.open(None)
    model = task.model()
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"decoder"}
    encoder = model.config.encoder_parameter_count
    line = f"--freeze encoder: {model.config.parameter_count - encoder:,} parameters are trained, {encoder:,} frozen\n"
    assert line in capsys.readouterr().out


@pytest.mark.usefixtures("quick", "light")
def test_what_is_frozen_stays_as_it_was_and_a_kill_changes_no_bit(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    start = tmp_path / "start.keras"
    perturb(build_segformer("tiny", num_classes=6)).save(start)
    config = replace(EXACT, data=str(toy_folder), weights=start, crop=(48, 48), eval_size=(48, 48), epoch_steps=1)
    config = replace(config, steps=2, freeze="2", layer_decay=0.7, balance=0.5, patience=5, accumulate=2, clip_norm=1.0)
    config = replace(config, mix=0.5, color=1.6, stretch=1.25)
    alone = train(replace(config, out=tmp_path / "alone"))

    frozen = ("encoder/stage1/", "encoder/stage2/")
    before, after = load_segformer(start), load_segformer(alone.last)
    for ours, theirs in zip(after.trainable_variables, before.trainable_variables, strict=True):
        assert np.array_equal(ours, theirs) == ours.path.startswith(frozen), ours.path
    saved = keras.models.load_model(alone.last)
    trained = [v.path for v in after.trainable_variables if not v.path.startswith(frozen)]
    assert [v.path for v in saved.trainable_variables] == trained
    assert len(saved.optimizer.variables) == 3 * len(trained) + 1  # two moments, the average; the number of updates
    assert int(saved.optimizer.iterations) == 2

    killed = Run(shutil.copytree(alone.root, tmp_path / "killed"))
    for path in (*killed.backup.glob("worker0-epoch2.*"), killed.history):
        path.unlink()
    assert "starting from weights" in capsys.readouterr().out
    resume(killed.root)
    assert "starting from" not in capsys.readouterr().out  # it goes on with its own
    assert_same_end(alone.root, killed.root, epochs=2)


def test_values_that_cannot_be_are_refused(capsys: pytest.CaptureFixture) -> None:
    for words, message in (
        (["--freeze", "5", "--weights", "w.keras"], "--freeze must be one of 1, 2, 3, encoder. Received: '5'"),
        (["--freeze", "encoder"], "--freeze leaves pretrained weights as they are, and needs --weights"),
        (["--layer-decay", "0"], "--layer-decay must be positive. Received: 0.0"),
        (["--layer-decay", "1.1"], "--layer-decay must be at most 1. Received: 1.1"),
        (["--balance", "-0.5"], "--balance must not be negative. Received: -0.5"),
        (["--balance", "2"], "--balance must be at most 1. Received: 2.0"),
        (["--patience", "0"], "--patience must be positive. Received: 0"),
    ):
        assert message in refused(capsys, "train", "--data", "data", *words)
