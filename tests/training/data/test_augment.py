"""Each step of the authors' augmentation against its meaning, written plainly."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.labels import IGNORE_ID
from training.data import augment as aug

RNG = np.random.default_rng(4)


def seeds(count: int) -> list[tuple[int, int]]:
    return [(17, i) for i in range(count)]


@pytest.mark.parametrize(
    ("size", "base", "factor", "expected"),
    [
        ((512, 683), (2048, 512), 1.0, (512, 683)),  # the short side decides
        ((683, 512), (2048, 512), 1.0, (683, 512)),
        ((480, 640), (2048, 512), 0.5, (256, 341)),  # 640 · 256 / 480 = 341.3
        ((100, 1000), (2048, 512), 1.0, (205, 2048)),  # the long side
        ((1024, 2048), (2048, 1024), 1.5, (1536, 3072)),
        ((300, 401), (2048, 512), 0.7501, (384, 513)),  # int(512 · 0.7501) = 384, then 401 · 384 / 300 = 513.28
        ((101, 51), None, 0.5, (51, 26)),  # 50.5 and 25.5, rounded up as mmcv does
    ],
)
def test_base_size_and_ratio_are_mmcvs(
    size: tuple[int, int], base: tuple[int, int] | None, factor: float, expected: tuple[int, int]
) -> None:
    image, mask = np.zeros((*size, 3), np.float32), np.zeros(size, np.uint8)
    image, mask = aug.scale_jitter(image, mask, (1, 2), scale=(factor, factor), base=base)
    assert tuple(mask.shape) == tuple(image.shape[:2]) == expected


def test_ratio_is_uniform_over_its_range() -> None:
    image, mask = np.zeros((100, 100, 3), np.float32), np.zeros((100, 100), np.uint8)
    sides = [aug.scale_jitter(image, mask, s, scale=(0.5, 2.0), base=(400, 200))[1].shape[0] for s in seeds(200)]
    assert min(sides) >= 100
    assert max(sides) <= 400
    np.testing.assert_allclose(np.quantile(sides, [0.1, 0.5, 0.9]), [130, 250, 370], atol=30)


def test_shrinking_does_not_antialias() -> None:
    stripes = np.tile(np.array([0.0, 255.0], np.float32)[None, :, None], (8, 32, 3))
    image, _ = aug.scale_jitter(stripes, np.zeros((8, 64), np.uint8), (0, 0), scale=(0.33, 0.33))
    assert np.std(image) > 60


def test_stretching_keeps_the_area_and_is_log_uniform_either_way() -> None:
    image, mask = np.zeros((300, 401, 3), np.float32), np.zeros((300, 401), np.uint8)

    def ratio(seed: tuple[int, int], **options: float) -> float:
        height, width = aug.scale_jitter(image, mask, seed, scale=(1.0, 1.0), **options)[1].shape
        assert height * width == pytest.approx(mask.size, rel=0.005)
        return width / 401 / (height / 300)

    logs = np.log([ratio(seed, stretch=1.8) for seed in seeds(150)]) / np.log(1.8)
    assert np.abs(logs).max() <= 1.01
    np.testing.assert_allclose(np.quantile(logs, [0.1, 0.5, 0.9]), [-0.8, 0.0, 0.8], atol=0.2)
    assert {ratio(seed) for seed in seeds(5)} == {1.0}


def test_stretching_moves_image_and_mask_together_and_draws_the_same_scale() -> None:
    mask = np.kron(RNG.integers(0, 5, (6, 9)), np.ones((20, 20))).astype(np.uint8)
    image = np.repeat(mask[..., None] * 50.0, 3, -1).astype(np.float32)
    for seed in seeds(10):
        _, plain = aug.scale_jitter(image, mask, seed, scale=(0.5, 2.0), base=(200, 100))
        stretched, moved = aug.scale_jitter(image, mask, seed, scale=(0.5, 2.0), base=(200, 100), stretch=1.5)
        assert (np.round(stretched[..., 0] / 50) == moved).numpy().mean() > 0.9  # all but borders of blocks
        assert moved.shape != plain.shape
        assert np.prod(moved.shape) == pytest.approx(np.prod(plain.shape), rel=0.03)


def share_of_largest(mask: np.ndarray) -> float:
    counts = np.bincount(np.ravel(mask), minlength=256)[:IGNORE_ID]
    return counts.max() / max(counts.sum(), 1)


def test_a_crop_of_one_class_is_drawn_again_ten_times() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 80:] = 1  # of 81 places of a 20 wide crop, those from 66 to 75 have both classes below 75 %
    image = np.repeat(mask[..., None], 3, -1).astype(np.float32)
    good = np.mean([65 < x < 76 for x in range(81)])
    mixed = [share_of_largest(aug.random_crop(image, mask, s, crop=(100, 20))[1]) < 0.75 for s in seeds(300)]
    assert np.mean(mixed) == pytest.approx(1 - (1 - good) ** 11, abs=0.08)  # the first draw and ten more
    assert abs(np.mean(mixed) - good) > 0.4  # and not one draw alone


def test_ignored_pixels_do_not_count_and_a_hopeless_mask_ends() -> None:
    mask = np.full((40, 40), IGNORE_ID, np.uint8)
    mask[:, 10:20], mask[:, 20:30] = 3, 4
    masks = [aug.random_crop(np.zeros((40, 40, 3)), mask, s, crop=(40, 20))[1].numpy() for s in seeds(40)]
    assert np.mean([share_of_largest(m) < 0.75 for m in masks]) > 0.95
    for alone in (np.full((40, 40), 7, np.uint8), np.full((40, 40), IGNORE_ID, np.uint8)):
        assert aug.random_crop(np.zeros((40, 40, 3)), alone, (1, 1), crop=(20, 20))[1].shape == (20, 20)


def distorted(image: np.ndarray, seed: tuple[int, int], color: float = 1.0) -> np.ndarray:
    """Photometric distortion pixel by pixel, by the standard library's HSV, with the draws of `seed`."""
    coins, values = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    do = (tf.random.stateless_uniform((5,), coins) < 0.5).numpy()
    draws = color * tf.random.stateless_uniform((4,), values, -1.0, 1.0).numpy()
    brightness, contrast, saturation, hue = np.maximum(draws, [-np.inf, -1.8, -1.8, -np.inf]).tolist()

    def more_contrast(x: np.ndarray) -> np.ndarray:
        return np.clip(x * (1 + 0.5 * contrast), 0, 255) if do[1] else x

    x = np.clip(image + (32 * brightness if do[0] else 0), 0, 255)
    x = more_contrast(x) if do[4] else x
    pixels = [colorsys.rgb_to_hsv(*(p / 255)) for p in x.reshape(-1, 3)]
    pixels = [
        (h + hue * 18 / 180 if do[3] else h, np.clip(s * (1 + 0.5 * saturation), 0, 1) if do[2] else s, v)
        for h, s, v in pixels
    ]
    x = np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in pixels]).reshape(x.shape) * 255
    return x if do[4] else more_contrast(x)


def test_photometric_distortion_is_brightness_contrast_saturation_hue_in_order() -> None:
    image = RNG.uniform(0, 255, (3, 4, 3)).astype(np.float32)
    for seed in seeds(60):
        np.testing.assert_allclose(aug.photometric_distortion(image, seed), distorted(image, seed), atol=0.05)


@pytest.mark.parametrize("color", [0.5, 2.0])
def test_color_is_a_factor_on_every_range(color: float) -> None:
    image = RNG.uniform(0, 255, (3, 4, 3)).astype(np.float32)
    for seed in seeds(40):
        changed = aug.photometric_distortion(image, seed, color=color)
        np.testing.assert_allclose(changed, distorted(image, seed, color), atol=0.05)


def test_without_color_no_bit_changes() -> None:
    image = RNG.uniform(0, 255, (3, 4, 3)).astype(np.float32)
    for seed in seeds(20):
        np.testing.assert_array_equal(aug.photometric_distortion(image, seed, color=0.0), image)


def test_twice_the_color_leaves_a_trace_of_contrast_and_saturation() -> None:
    image = np.tile(np.array([220, 60, 90], np.float32), (2, 2, 1))
    for seed in seeds(150):
        red, green, blue = aug.photometric_distortion(image, seed, color=2.0)[0, 0].numpy()
        assert max(red, green, blue) > 0
        assert not red == green == blue


def test_padding_comes_after_normalization() -> None:
    image = RNG.integers(0, 256, (40, 44, 3)).astype(np.uint8)
    padded, mask = aug.augment(image, np.ones((40, 44), np.uint8), (3, 4), crop=(64, 64), scale=(1.0, 1.0))
    assert (np.asarray(padded)[40:] == 0).all()
    assert (np.asarray(padded)[:, 44:] == 0).all()
    assert (np.asarray(mask)[40:] == IGNORE_ID).all()
    pixels = np.asarray(padded)[:40, :44] * IMAGE_STD + IMAGE_MEAN
    assert pixels.min() >= -0.01
    assert pixels.max() <= 255.01
