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
from tests.training.small import EXACT
from training.runs.folder import Run
from training.train import resume, train


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.keras"
    perturb(build_segformer("tiny", num_classes=6)).save(path)
    return path


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


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("freeze", "count"), [("2", 2), ("encoder", 4)])
def test_what_is_frozen_stays_as_it_was_and_has_no_slots(
    freeze: str, count: int, start: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = replace(EXACT, data=str(toy_folder), weights=start, freeze=freeze, steps=2, eval_size=(64, 64))
    run = train(replace(config, layer_decay=0.9, out=tmp_path / "run"))
    frozen = tuple(f"encoder/stage{i + 1}/" for i in range(count))
    before, after = load_segformer(start), load_segformer(run.last)
    for ours, theirs in zip(after.trainable_variables, before.trainable_variables, strict=True):
        assert np.array_equal(ours, theirs) == ours.path.startswith(frozen), ours.path
    saved = keras.models.load_model(run.last)
    trained = [v for v in after.trainable_variables if not v.path.startswith(frozen)]
    assert [v.path for v in saved.trainable_variables] == [v.path for v in trained]
    assert len(saved.optimizer.variables) == 3 * len(trained) + 1  # two moments, the average; the number of updates
    assert int(saved.optimizer.iterations) == 2
    parameters = sum(int(np.size(v)) for v in trained)
    line = f"--freeze {freeze}: {parameters:,} parameters are trained, {after.config.parameter_count - parameters:,}"
    assert f"{line} frozen" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_run_with_all_of_it_goes_on_with_the_same_bits(start: Path, toy_folder: Path, tmp_path: Path) -> None:
    config = replace(EXACT, data=str(toy_folder), weights=start, freeze="1", layer_decay=0.7, eval_size=(64, 64))
    config = replace(config, balance=0.5, patience=5, accumulate=2, clip_norm=1.0)
    alone = train(replace(config, out=tmp_path / "alone"))
    killed = Run(shutil.copytree(alone.root, tmp_path / "killed"))
    for path in (*killed.backup.glob("worker0-epoch2.*"), killed.history):
        path.unlink()
    resume(killed.root)
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
