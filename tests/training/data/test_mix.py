"""Classes of one sample pasted over another (ClassMix)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from tests.training.small import SMALL
from training.data.augment import mix_classes
from training.data.pipeline import train_batches
from training.tasks.segmentation import Segmentation

RNG = np.random.default_rng(2)
# Sample n shows classes 7 n to 7 n + 6, no class twice, and ignored pixels; its image is its number and its mask.
BATCH = 5
MASKS = np.stack([RNG.integers(7 * n, 7 * n + 7, (33, 47)) for n in range(BATCH)]).astype(np.uint8)
MASKS[RNG.random(MASKS.shape) < 0.1] = IGNORE_ID
OWNER = np.broadcast_to(np.arange(BATCH)[:, None, None], MASKS.shape)
IMAGES = np.stack([OWNER, MASKS, MASKS], -1).astype(np.float32)


in_graph = tf.function(mix_classes, reduce_retracing=True)


def mixed(share: float, first: int = 0, masks: np.ndarray = MASKS) -> tuple[np.ndarray, np.ndarray]:
    seeds = [(9, first + n) for n in range(len(masks))]
    pixels = IMAGES[tuple(map(slice, masks.shape))]
    images, masks = in_graph(pixels, tf.constant(masks), tf.constant(seeds, tf.int64), share=tf.constant(share))
    return images.numpy(), masks.numpy()


def test_half_of_the_classes_of_the_sample_before_are_pasted_whole() -> None:
    images, masks = mixed(1.0)
    for n in range(BATCH):
        before = (n - 1) % BATCH
        pasted = images[n, ..., 0] == before
        np.testing.assert_array_equal(images[n, ..., 0], np.where(pasted, before, n))
        chosen = set(MASKS[before][pasted])
        assert len(chosen) == 4  # of 7
        np.testing.assert_array_equal(pasted, np.isin(MASKS[before], list(chosen)))  # all of their pixels, no other
        np.testing.assert_array_equal(masks[n], np.where(pasted, MASKS[before], MASKS[n]))
    np.testing.assert_array_equal(images[..., 1], masks)  # ignored pixels stay or are covered, and never cover


def test_the_share_is_that_of_mixed_samples_and_the_choice_that_of_the_seed() -> None:
    for share, expected in ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0)):
        changed = [(mixed(share, BATCH * i)[1] != MASKS).any((1, 2)) for i in range(40)]
        assert np.mean(changed) == pytest.approx(expected, abs=0.1 if 0 < share < 1 else 0)
    chosen = {tuple(np.unique(mixed(1.0, i)[1][1])) for i in range(30)}
    assert len(chosen) > 15  # of 35
    # A choice takes no other sample's seed, however many there are.
    np.testing.assert_array_equal(mixed(1.0, 4, MASKS[[0, 1, 2]])[1][1], mixed(1.0, 4)[1][1])


def test_one_class_is_pasted_and_ignored_masks_give_nothing() -> None:
    alone = np.full((2, 4, 6), IGNORE_ID, np.uint8)
    alone[0, 1, 2:5] = 254
    images, masks = mixed(1.0, masks=alone)
    np.testing.assert_array_equal(masks, alone[[0, 0]])
    np.testing.assert_array_equal(images[..., 0], [np.zeros((4, 6)), alone[0] == IGNORE_ID])


SAMPLES = [
    (
        RNG.integers(0, 256, (40 + 7 * n, 61 + 3 * n, 3)).astype(np.uint8),
        np.kron(RNG.integers(0, 5, (10, 10)), np.ones((8, 8)))[: 40 + 7 * n, : 61 + 3 * n].astype(np.uint8),
    )
    for n in range(5)
]


def drawn(count: int, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    sizes: dict[str, Any] = {"crop": (33, 48), "scale": (0.5, 2.0), "batch_size": 4, "seed": 9}
    data = train_batches(SAMPLES, **sizes | options).take(count)
    return [(np.asarray(images), np.asarray(masks)) for images, masks in data]


def test_without_options_the_draws_stay_those_of_earlier_versions() -> None:
    """Means of the first 8 samples, so that a run which was begun before goes on with the same samples."""
    images, masks = map(np.concatenate, zip(*drawn(2), strict=True))
    means = [0.263, -0.089, 0.676, -0.279, -0.139, 0.119, 0.358, 0.363]
    np.testing.assert_allclose(images.mean((1, 2, 3)), means, atol=2e-3)
    means = [1.648, 1.656, 1.972, 1.777, 2.455, 1.66, 1.799, 1.877]
    np.testing.assert_allclose(masks.mean((1, 2)), means, atol=2e-3)


def test_a_mixed_stream_goes_on_where_it_was_left() -> None:
    whole, rest = drawn(4, mix=0.7), drawn(2, mix=0.7, start=8)
    for one, other in zip(whole[2:], rest, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert whole[0][0].shape == (4, 33, 48, 3)
    assert whole[0][1].dtype == np.uint8


def test_a_batch_is_mixed_after_each_sample_is_augmented() -> None:
    numbers = iter(range(1000))
    for (images, masks), (plain_images, plain_masks) in zip(drawn(3, mix=0.5), drawn(3), strict=True):
        seeds = tf.constant([(9, next(numbers)) for _ in range(4)], tf.int64)
        expected = mix_classes(plain_images, tf.constant(plain_masks), seeds, share=0.5)
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(masks, expected[1])
        assert (masks != plain_masks).any()


def test_replicas_mix_within_their_own_batches() -> None:
    context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=2)
    ((images, _),) = drawn(1, mix=1.0, context=context)
    ((plain, masks),) = drawn(1)
    seeds = tf.constant([(9, 2), (9, 3)], tf.int64)
    np.testing.assert_array_equal(images, mix_classes(plain[2:], tf.constant(masks[2:]), seeds, share=1.0)[0])


def test_a_replica_needs_two_samples_to_mix() -> None:
    config = replace(SMALL, mix=0.5, batch_size=4)
    config.check_replicas(2)
    with pytest.raises(InputError, match=r"--mix .* --batch-size must be at least 8\. Received: 4"):
        config.check_replicas(4)
    replace(config, mix=0.0).check_replicas(4)


def test_the_options_reach_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segmentation, "source", SAMPLES, raising=False)
    monkeypatch.setattr("training.tasks.segmentation.train_batches", lambda _, **options: options)
    options: dict[str, Any] = {"mix": 0.5, "color": 1.6, "stretch": 1.25}
    passed: Any = Segmentation(replace(SMALL, **options)).train_batches(0, tf.distribute.InputContext())
    assert {name: passed[name] for name in options} == options
    for name in ("color", "stretch"):
        assert not np.array_equal(drawn(1, **{name: options[name]})[0][0], drawn(1)[0][0])
