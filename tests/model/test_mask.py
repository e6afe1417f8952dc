from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from segformer_tf import load_segformer
from segformer_tf import mask as mask_module
from segformer_tf.edge import fit_image, list_images, load_image, logits_to_mask
from segformer_tf.mask import resized_rows
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


def assert_is_argmax(logits: np.ndarray, size: tuple[int, int], *, clear_share: float = 0.0) -> None:
    """The mask is the reference's arg-max wherever its two best classes are 1e-5 or more apart."""
    full = upsample_float64(logits, size)
    clear = np.ones(size, bool)
    if logits.shape[2] > 1:
        best = np.partition(full, -2, axis=-1)
        clear = best[..., -1] - best[..., -2] >= 1e-5
    mask = logits_to_mask(logits, size)
    assert mask.dtype == np.uint8
    assert mask.shape == size
    np.testing.assert_array_equal(mask[clear], full.argmax(-1)[clear])
    assert clear.mean() >= clear_share


CASES = [
    ((16, 24), (64, 96)),
    ((25, 41), (97, 161)),
    ((23, 30), (90, 120)),
    ((7, 9), (200, 31)),
    ((24, 24), (5, 7)),
    ((24, 24), (24, 24)),
    ((24, 24), (47, 25)),
    ((24, 5), (9, 50)),
    ((1, 3), (1, 50)),
    ((1, 1), (7, 5)),
    ((9, 1), (64, 1)),
    ((2, 2), (101, 200)),
]


@pytest.mark.parametrize(("grid", "size"), CASES)
@pytest.mark.parametrize("classes", [1, 2, 11, 150, 255])
def test_mask_is_the_argmax_of_one_float64_resize(grid: tuple, size: tuple, classes: int) -> None:
    assert_is_argmax(10 * noise(*grid, classes), size, clear_share=0.99)


def test_small_differences_of_large_logits_count() -> None:
    assert_is_argmax(1e4 + noise(25, 41, 11), (97, 161), clear_share=0.99)  # float32 knows thousandths there


@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    classes=st.sampled_from([1, 2, 3, 11, 60, 255]),
    patch=st.integers(1, 6),
    steps=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_size_any_ties(grid: tuple, size: tuple, classes: int, patch: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, steps, (*grid, classes)) / (steps / 10)  # few steps: many equals
    logits = np.kron(patches, np.ones((patch, patch, 1)))[: grid[0], : grid[1]]
    assert_is_argmax(logits.astype(np.float32), size)


def test_a_class_that_is_first_at_no_corner_wins_in_the_middle() -> None:
    corners = np.array([[[4, -4, 1], [-4, 4, 1]], [[4, -4, 1], [-4, 4, 1]]], np.float32)
    logits = np.tile(corners, (3, 5, 1))
    mask = logits_to_mask(logits, (48, 80))
    assert 2 not in logits.argmax(-1)
    assert 0.1 < (mask == 2).mean() < 0.5
    assert_is_argmax(logits, (48, 80))


def test_of_equal_classes_the_first_is_taken() -> None:
    logits = np.zeros((6, 8, 5), np.float32)
    np.testing.assert_array_equal(logits_to_mask(logits, (24, 31)), 0)
    logits[..., 2:] = 1
    np.testing.assert_array_equal(logits_to_mask(logits, (24, 31)), 2)
    logits[:, :4, 1] = 2  # mixed cells, where 2, 3 and 4 stay equal
    assert set(np.unique(logits_to_mask(logits, (24, 31)))) == {1, 2}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
def test_logits_that_are_not_finite_do_no_harm_elsewhere(value: float) -> None:
    logits = noise(12, 16, 5)
    sound = logits_to_mask(logits, (48, 64))
    logits[3:5, 3, 1] = value
    logits[9, 9] = value
    mask = logits_to_mask(logits, (48, 64))
    assert mask.max() < 5
    np.testing.assert_array_equal(mask[:, 44:], sound[:, 44:])
    np.testing.assert_array_equal(logits_to_mask(np.full((3, 4, 5), value, np.float32), (9, 9)), 0)


def test_float64_reference_is_tensorflows_resize() -> None:
    logits = noise(25, 41, 3)
    np.testing.assert_allclose(
        tf.image.resize(logits, (97, 161)).numpy(),
        upsample_float64(logits, (97, 161)),
        atol=5e-5,  # TensorFlow rounds positions to float32
    )


def test_block_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = noise(25, 41, 5)
    whole, rows = logits_to_mask(logits, (97, 161)), list(resized_rows(logits, (97, 161)))
    assert len(rows) == 1
    monkeypatch.setattr(mask_module, "_CORNER_VALUES", 5 * 33)
    monkeypatch.setattr(mask_module, "_PIXEL_VALUES", 5 * 7)
    monkeypatch.setattr(mask_module, "_BLOCK_BYTES", 5 * 161 * 4 * 3)
    np.testing.assert_array_equal(logits_to_mask(logits, (97, 161)), whole)
    blocks = list(resized_rows(logits, (97, 161)))
    assert len(blocks) == 33
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), rows[0][1])


def test_rows_are_the_float64_resize() -> None:
    logits = noise(25, 41, 3)
    for rows, block in resized_rows(logits, (97, 161)):
        np.testing.assert_allclose(block, upsample_float64(logits, (97, 161))[rows], atol=1e-6)


def test_memory_is_bound_by_the_logits() -> None:
    logits = noise(128, 128, 150)  # all cells mixed; at full size 157 MB
    tracemalloc.start()
    try:
        logits_to_mask(logits, (512, 512))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * logits.nbytes


@pytest.mark.parametrize("images", [3, pytest.param(233, marks=pytest.mark.slow)])
def test_masks_of_camvid(images: int, camvid: Path) -> None:
    model = load_segformer(Path(__file__).parents[2] / "models" / "camvid_b0.keras")
    paths = list_images([camvid / "test" / "images"])
    for path in paths[:: len(paths) // images]:
        pixels = load_image(path)
        logits = model.logits(fit_image(pixels, (512, 512))[None])[0]
        assert_is_argmax(logits, (pixels.shape[0], pixels.shape[1]), clear_share=0.999)


def test_argmax_before_the_resize_is_another_mask() -> None:
    logits = noise(16, 16, 4)
    early = np.kron(logits.argmax(-1), np.ones((4, 4), int))
    assert (logits_to_mask(logits, (64, 64)) != early).mean() > 0.05


@pytest.mark.parametrize(
    ("shape", "size"), [((4, 4), (8, 8)), ((4, 4, 256), (8, 8)), ((4, 0, 2), (8, 8)), ((4, 4, 2), (0, 8))]
)
def test_bad_arguments_are_refused(shape: tuple, size: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        logits_to_mask(np.zeros(shape, np.float32), size)
