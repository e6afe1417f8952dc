"""DeepLabv3+ under this project's training: its logits at 1/4 are those of keras-hub."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.rivals import camvid
from benchmarks.rivals.deeplab_task import DeepLabConfig, deeplab_quarter, inner_outputs
from benchmarks.rivals.keras_networks import batch_norms, deeplab_mobilenet
from segformer_tf.errors import InputError
from tests.helpers import noise, within
from training.config import TrainConfig
from training.runs.folder import write_json
from training.train import TASKS

SIZE = (64, 96)


def test_the_classifier_may_come_before_the_resize(tmp_path: Path) -> None:
    whole, quarter = deeplab_mobilenet(5, SIZE), deeplab_quarter(5, SIZE)
    for source, target in zip(whole.backbone.weights, quarter.weights, strict=False):
        assert source.shape == target.shape
        target.assign(source)
    classify = quarter.get_layer("classify")
    classify.kernel.assign(whole.output_conv.kernel)
    image = noise(1, *SIZE, 3)
    expected = np.asarray(whole(image, training=False))
    logits = quarter(image, training=False)
    assert logits.shape == (1, 16, 24, 5)
    assert within(np.asarray(tf.image.resize(logits, SIZE)), expected)
    assert all(norm.momentum == 0.9 for norm in batch_norms(quarter))
    quarter.save(tmp_path / "model.keras")
    classify.kernel.assign(classify.kernel * 2)
    quarter.load_weights(tmp_path / "model.keras")
    assert np.array_equal(np.asarray(quarter(image, training=False)), np.asarray(logits))
    shapes = {name: tuple(value.shape[1:3]) for name, value in inner_outputs(quarter)(image).items()}
    assert shapes == {"encoder, 1/4": (16, 24), "encoder, 1/16": (4, 6), "decoder": (16, 24)}


def test_a_file_is_written_once_for_its_weights(tmp_path: Path) -> None:
    file, weights = tmp_path / "model.tflite", tmp_path / "best.keras"
    weights.touch()
    assert camvid.is_older(file, weights)
    file.touch()
    os.utime(weights, (1, 1))
    assert not camvid.is_older(file, weights)
    os.utime(file, (0, 0))
    assert camvid.is_older(file, weights)


def test_settings(tmp_path: Path) -> None:
    assert TASKS[DeepLabConfig.task].__name__ == "DeepLab"
    config = DeepLabConfig(data="data", out=tmp_path, steps=20)
    assert config.resume_command(tmp_path) == "the same command"
    write_json(tmp_path / "config.json", config.to_dict())
    assert DeepLabConfig.read(tmp_path) == config
    with pytest.raises(InputError, match="a run of segformer rivals"):
        TrainConfig.read(tmp_path)
    with pytest.raises(InputError, match="multiples of 32"):
        camvid.main(data=tmp_path, size=(100, 128))
