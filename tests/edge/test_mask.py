from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf.edge import logits_to_mask
from segformer_tf.edge import mask as mask_module
from tests.helpers import noise


def upsample_float64(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The half-pixel bilinear resize as two matrices, in float64."""

    def matrix(n_in: int, n_out: int) -> np.ndarray:
        m = np.zeros((n_out, n_in))
        for i in range(n_out):
            position = (i + 0.5) * n_in / n_out - 0.5
            low = int(np.floor(position))
            for index, weight in ((low, 1 - (position - low)), (low + 1, position - low)):
                m[i, min(max(index, 0), n_in - 1)] += weight
        return m

    down, across = matrix(logits.shape[0], size[0]), matrix(logits.shape[1], size[1])
    return np.einsum("ih,hwc,jw->ijc", down, logits.astype(np.float64), across, optimize=True)


CASES = [
    ((16, 24), (64, 96)),
    ((25, 41), (97, 161)),
    ((90, 120), (360, 480)),
    ((7, 9), (200, 31)),
    ((24, 24), (5, 7)),
    ((1, 3), (1, 50)),
]


@pytest.mark.parametrize(("grid", "size"), CASES)
@pytest.mark.parametrize("classes", [1, 2, 11])
def test_mask_is_the_argmax_of_one_float64_resize(grid: tuple, size: tuple, classes: int) -> None:
    logits = 10 * noise(*grid, classes)
    full = upsample_float64(logits, size)
    clear = np.ones(size, bool)
    if classes > 1:
        best = np.sort(full, -1)
        clear = best[..., -1] - best[..., -2] >= 1e-5
    mask = logits_to_mask(logits, size)
    assert mask.dtype == np.uint8
    assert mask.shape == size
    np.testing.assert_array_equal(mask[clear], full.argmax(-1)[clear])
    assert clear.mean() > 0.99


def test_float64_reference_is_tensorflows_resize() -> None:
    logits = noise(25, 41, 3)
    np.testing.assert_allclose(
        tf.image.resize(logits, (97, 161)).numpy(),
        upsample_float64(logits, (97, 161)),
        atol=5e-5,  # TensorFlow rounds positions to float32
    )


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = noise(25, 41, 5)
    whole = logits_to_mask(logits, (97, 161))
    monkeypatch.setattr(mask_module, "_BLOCK_BYTES", 5 * 161 * 4 * 3)
    np.testing.assert_array_equal(logits_to_mask(logits, (97, 161)), whole)


def test_argmax_before_the_resize_is_another_mask() -> None:
    logits = noise(16, 16, 4)
    early = np.kron(logits.argmax(-1), np.ones((4, 4), int))
    assert (logits_to_mask(logits, (64, 64)) != early).mean() > 0.05


@pytest.mark.parametrize(("shape", "size"), [((4, 4), (8, 8)), ((4, 4, 256), (8, 8)), ((4, 4, 2), (0, 8))])
def test_bad_arguments_are_refused(shape: tuple, size: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        logits_to_mask(np.zeros(shape, np.float32), size)
