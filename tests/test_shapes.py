"""The shapes and dtypes that signatures state, checked on calls at odd sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from convert.graph import fold
from segformer_tf.losses import base, images
from training.data import augment, class_augment
from training.optim.losses import rare_class_weights

RNG = np.random.default_rng(0)
IMAGE = tf.constant(RNG.integers(0, 256, (61, 97, 3), np.uint8))
FLOATS = tf.cast(IMAGE, tf.float32)
MASK = tf.constant(RNG.integers(0, 3, (61, 97), np.uint8))
SEED = tf.constant([3, 4])
CROP = (48, 70)
CONV, MAP, BIAS = RNG.normal(size=(3, 3, 4, 6)), RNG.normal(size=(6, 5)), RNG.normal(size=6)
GAMMA = RNG.normal(size=4)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    return jaxtyped(function, typechecker=beartype)


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (augment.augment, (IMAGE, MASK, SEED), {"crop": CROP, "scale": (0.5, 2.0)}),
        (augment.scale_jitter, (FLOATS, MASK, SEED), {"scale": (0.5, 2.0), "base": (80, 40)}),
        (augment.random_crop, (FLOATS, MASK, SEED), {"crop": CROP}),
        (augment.random_flip, (FLOATS, MASK, SEED), {}),
        (augment.photometric_distortion, (FLOATS, SEED), {}),
        (augment.pad, (FLOATS, MASK), {"crop": (99, 98)}),
        (augment.mix_classes, (FLOATS[None], MASK[None], SEED[None]), {"share": 0.5}),
        (augment.coin, (SEED,), {}),
        (class_augment.training_view, (IMAGE, SEED), {"size": CROP}),
        (class_augment.evaluation_view, (IMAGE,), {"size": CROP}),
        (class_augment.crop_window, (tf.constant([61, 97]), SEED), {}),
        (base.upsample_logits, (tf.zeros((1, 16, 25, 3), tf.float16), MASK[None]), {}),
        (images.jaccard_extension, (tf.cast(MASK[0] == 1, tf.float32), FLOATS[0, :, 0] / 255.0), {}),
        (rare_class_weights, (np.arange(3), 0.4), {}),
        (fold.array, (tf.Variable(np.float32(GAMMA)),), {}),
        (fold.scale_in, (CONV, GAMMA), {}),
        (fold.affine_in, (CONV, BIAS, (GAMMA, GAMMA)), {}),
        (fold.centered, (CONV, BIAS), {}),
        (fold.then, ((CONV[0, 0], BIAS), MAP, BIAS[:5]), {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_hold(function: Callable[..., Any], arguments: tuple, options: dict[str, Any]) -> None:
    checked(function)(*arguments, **options)


def test_a_wrong_shape_is_seen() -> None:
    with pytest.raises(TypeCheckError):
        checked(augment.random_flip)(FLOATS, MASK[1:], SEED)
    with pytest.raises(TypeCheckError):
        checked(fold.centered)(CONV, BIAS[1:])
