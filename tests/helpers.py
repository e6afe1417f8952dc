"""What several tests need: weights off their defaults, noise, windows, the paper's decoder, parity, a refusal."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.slide import spans


def perturb(model: SegFormer, seed: int = 0) -> SegFormer:
    """Move every weight off its default, running statistics too: defaults hide mistakes."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name, value = variable.path.split("/")[-1], np.asarray(variable.value)
        if name in ("gamma", "moving_variance"):
            value = value * rng.uniform(0.6, 1.5, value.shape)
        elif name in ("beta", "bias", "moving_mean"):
            value = value + rng.normal(0, 0.2, value.shape)
        else:  # fan-in scaled, so that no block is a whisper
            fan_in = np.prod(value.shape[:2]) if "dwconv" in variable.path else np.prod(value.shape[:-1])
            value = rng.normal(0, 1 / np.sqrt(fan_in), value.shape)
        variable.assign(value)
    return model


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def windows(size: tuple[int, int], window: tuple[int, int], stride: int) -> list[tuple[slice, slice]]:
    """All windows of `segformer_tf.slide` over a picture, row by row."""
    rows, columns = (spans(*axis, stride) for axis in zip(size, window, strict=True))
    return [(r, c) for r in rows for c in columns]


def plain_decoder(model: SegFormer, features: dict) -> np.ndarray:
    """The paper's decoder as it is written: linear, upsample, concatenate, fuse, BN, ReLU, classify."""
    decoder = model.decoder
    size = features["c1"].shape[1:3]
    branches = [
        tf.image.resize(
            tf.matmul(features[f"c{i}"], decoder.linear_c[i - 1].kernel) + decoder.linear_c[i - 1].bias, size
        )
        for i in (4, 3, 2, 1)
    ]
    fused = tf.nn.conv2d(tf.concat(branches, -1), decoder.linear_fuse.kernel, 1, "VALID")
    bn = decoder.bn
    scaled = (fused - bn.moving_mean) / tf.sqrt(bn.moving_variance + bn.epsilon) * bn.gamma + bn.beta
    return np.asarray(
        tf.nn.conv2d(tf.nn.relu(scaled), decoder.linear_pred.kernel, 1, "VALID") + decoder.linear_pred.bias
    )


def within(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-4) -> bool:
    """The parity every form of the model is held to."""
    return bool(np.abs(ours - theirs).max() <= tolerance * max(1.0, np.abs(theirs).max()))


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line on standard error of a command that must fail."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line
