from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from segformer_tf import mask as mask_module
from segformer_tf.confidence import scores_to_confidence
from segformer_tf.mask import logits_to_mask
from tests.helpers import noise
from tests.model.test_mask import CASES, upsample_float64


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


@pytest.mark.parametrize(("grid", "size"), CASES)
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_it_is_the_softmax_of_the_resized_logits(
    grid: tuple[int, int], size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_module, "_PLANE_BYTES", block)  # of one row, or of all
    logits = 5 * noise(*grid, 7)
    expected = softmax(upsample_float64(logits, size))
    confidence = scores_to_confidence(logits, size)
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, expected.max(-1), atol=1e-5)
    of_mask = np.take_along_axis(expected, logits_to_mask(logits, size)[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(confidence, of_mask, atol=1e-5)  # the probability of the class in the mask


def test_softmax_before_the_resize_would_be_another_value() -> None:
    logits = 5 * noise(6, 9, 4)
    early = upsample_float64(softmax(logits), (24, 36)).max(-1)
    assert np.abs(scores_to_confidence(logits, (24, 36)) - early).max() > 0.1


def test_probabilities_and_one_channel_are_taken_as_such() -> None:
    shares = softmax(3 * noise(5, 8, 4)).astype(np.float32)
    full = upsample_float64(shares, (15, 17))
    np.testing.assert_allclose(scores_to_confidence(shares, (15, 17), probabilities=True), full.max(-1), atol=1e-6)
    value = 4 * noise(5, 8)
    p = 1 / (1 + np.exp(-upsample_float64(value[..., None], (15, 17))[..., 0]))
    for threshold in (0.0, 1.5):
        scores = np.stack([0 * value, value - np.float32(threshold)], -1)
        foreground = logits_to_mask(scores, (15, 17)) == 1
        confidence = scores_to_confidence(scores, (15, 17), threshold=threshold)
        np.testing.assert_allclose(confidence, np.where(foreground, p, 1 - p), atol=1e-5)


def test_numbers_that_are_not_finite_are_no_confidence() -> None:
    logits = np.zeros((2, 2, 3), np.float32)
    logits[0, 0, 1], logits[0, 1, 2], logits[1, 0] = np.nan, np.inf, 1e38
    confidence = scores_to_confidence(logits, (2, 2))
    np.testing.assert_allclose(confidence, [[0, 0], [1 / 3, 1 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(scores_to_confidence(np.full((1, 1, 1), -5, np.float32), (3, 2)), 1)


def test_memory_is_a_strip_of_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_module, "_PLANE_BYTES", 1 << 20)
    logits = noise(32, 32, 64)
    tracemalloc.start()
    scores_to_confidence(logits, (512, 512))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 512 * 512 * 4 * 2 + 6 * (1 << 20)  # all the classes at full size would be 67 MB
