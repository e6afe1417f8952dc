from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf.config import IMAGE_MEAN, IMAGE_STD, variant_config
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from training.data import augment as aug
from training.data.open import open_source
from training.data.pipeline import eval_batches, plain_input_errors, train_batches

SEED = (3, 7)
MASK = np.random.default_rng(0).integers(0, 5, (40, 60)).astype(np.uint8)
# The image shows its own mask, so both must move alike.
IMAGE = np.repeat(MASK[..., None] * 50, 3, -1).astype(np.uint8)


def seeds(count: int) -> list[tuple[int, int]]:
    return [(11, i) for i in range(count)]


def shows_its_mask(image: np.ndarray, mask: np.ndarray) -> bool:
    return np.array_equal(np.round(np.asarray(image)[..., 0] / 50), mask)


def test_crop_and_flip_move_image_and_mask_together() -> None:
    for seed in seeds(20):
        image, mask = aug.random_crop(IMAGE, MASK, seed, crop=(29, 31))
        image, mask = aug.random_flip(image, mask, seed)
        assert mask.shape == (29, 31)
        assert shows_its_mask(image, mask)


def test_crop_reaches_every_corner_and_never_leaves() -> None:
    mask = np.arange(40 * 60).reshape(40, 60)
    corners = {int(aug.random_crop(IMAGE, mask, s, crop=(39, 59))[1][0, 0]) for s in seeds(60)}
    assert corners == {0, 1, 60, 61}


def test_flip_happens_half_of_the_time_and_mirrors() -> None:
    flipped = [not np.array_equal(aug.random_flip(IMAGE, MASK, s)[1], MASK) for s in seeds(200)]
    assert 0.4 < np.mean(flipped) < 0.6
    first = seeds(200)[int(np.argmax(flipped))]
    np.testing.assert_array_equal(aug.random_flip(IMAGE, MASK, first)[1], MASK[:, ::-1])


def test_scale_jitter_keeps_the_ratio_and_never_mixes_labels() -> None:
    sizes = []
    for seed in seeds(60):
        image, mask = aug.scale_jitter(IMAGE.astype(np.float32), MASK * 60, seed, scale=(0.5, 2.0))
        assert image.shape[:2] == mask.shape
        assert set(np.unique(mask)) <= {0, 60, 120, 180, 240}
        sizes.append(mask.shape)
    factors = np.array(sizes) / MASK.shape
    assert np.abs(factors[:, 0] - factors[:, 1]).max() < 0.03
    assert factors.min() < 0.6
    assert factors.max() > 1.8
    assert factors.min() + 0.02 >= 0.5
    assert factors.max() <= 2.0 + 0.02


def test_padding_is_the_mean_color_and_ignored() -> None:
    image, mask = aug.pad(np.ones((5, 6, 3), np.float32), np.ones((5, 6), np.uint8), crop=(8, 9))
    assert (image.numpy()[:5, :6] == 1).all()
    assert (image.numpy()[5:] == 0).all()
    assert (mask.numpy()[5:] == IGNORE_ID).all()
    assert (mask.numpy()[:, 6:] == IGNORE_ID).all()


def test_photometric_distortion_stays_in_range_and_does_each_of_its_things() -> None:
    gray = np.full((4, 4, 3), 100, np.float32)
    outs = np.stack([aug.photometric_distortion(gray, s) for s in seeds(300)])
    assert outs.min() >= 0
    assert outs.max() <= 255
    np.testing.assert_allclose(outs[..., :1].repeat(3, -1), outs, atol=0.1)  # gray has no hue and no saturation
    values = outs[:, 0, 0, 0]
    unchanged = np.isclose(values, 100, atol=0.01).mean()
    assert 0.15 < unchanged < 0.35  # neither brightness nor contrast: 1 in 4
    # (100 + 32) * 1.5 and (100 - 32) * 0.5 bound what both together can do.
    assert 34 <= values.min() < 60
    assert 160 < values.max() <= 198
    red = np.tile(np.array([200, 60, 60], np.float32), (4, 4, 1))
    outs = np.stack([aug.photometric_distortion(red, s)[0, 0] for s in seeds(300)])
    assert (np.abs(outs[:, 1] - outs[:, 2]) > 2).mean() == pytest.approx(0.5, abs=0.1)  # hue moved: 1 in 2


def test_augment_is_a_function_of_its_seed() -> None:
    def run(seed: tuple) -> list:
        return [np.asarray(x) for x in aug.augment(IMAGE, MASK, seed, crop=(32, 48), scale=(0.5, 2.0))]

    for a, b in zip(run(SEED), run(SEED), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(run(SEED)[0], run((3, 8))[0])
    assert run(SEED)[0].shape == (32, 48, 3)


def batches(folder: Path, *, start: int, count: int) -> list:
    source = open_source(str(folder), "train")
    data = train_batches(source, crop=(32, 48), scale=(0.5, 2.0), batch_size=2, seed=5, start=start)
    return [tuple(np.asarray(x) for x in batch) for batch in data.take(count)]


def test_reading_is_not_tuned(toy_folder: Path) -> None:
    """The end of tuning would be waited for; in these tests no data set is tuned anyway."""
    source = open_source(str(toy_folder), "train")
    train = train_batches(source, crop=(32, 48), scale=(0.5, 2.0), batch_size=2, seed=5)
    assert train.options().autotune.enabled is False
    assert eval_batches(source, size=(64, 96), batch_size=1).options().autotune.enabled is False


def test_a_stream_goes_on_where_it_was_left(toy_folder: Path) -> None:
    whole, rest = batches(toy_folder, start=0, count=5), batches(toy_folder, start=6, count=2)
    for a, b in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    # Sample i is wholly of class i, so a batch's masks tell what was seen, in order.
    samples = [(np.zeros((32, 32, 3), np.uint8), np.full((32, 32), i, np.uint8)) for i in range(6)]
    data = train_batches(samples, crop=(32, 32), scale=(1.0, 1.0), batch_size=6, seed=0)
    epochs = [tuple(int(m[0, 0]) for m in np.asarray(masks)) for _, masks in data.take(4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(epochs)) > 1


def test_batches_are_normalized_as_the_network_wants(toy_folder: Path) -> None:
    source = open_source(str(toy_folder), "val")
    doubled = variant_config("tiny", num_classes=2, image_mean=(0.0, 0.0, 0.0), image_std=(0.5, 0.5, 0.5)).normalize
    images, _ = next(iter(eval_batches(source, size=(128, 128), batch_size=1, normalize=doubled)))
    np.testing.assert_array_equal(images[0], source[0][0] * np.float32(2))
    options = {"crop": (32, 48), "scale": (0.5, 2.0), "batch_size": 2, "seed": 5}
    (ours, _), (theirs, _) = (
        next(iter(train_batches(source, **options, **other))) for other in ({"normalize": doubled}, {})
    )
    inside = np.any(np.asarray(ours) != 0, axis=-1)
    np.testing.assert_allclose((theirs * IMAGE_STD + IMAGE_MEAN)[inside], (ours / 2)[inside], atol=1e-3)


def test_evaluation_is_the_image_contract_in_order(toy_folder: Path) -> None:
    source = open_source(str(toy_folder), "val")
    (images, masks), (last, filled) = eval_batches(source, size=(128, 128), batch_size=2)
    assert images.shape == last.shape == (2, 128, 128, 3)
    np.testing.assert_array_equal(filled[0], source[2][1])
    assert (filled[1].numpy() == IGNORE_ID).all()
    np.testing.assert_array_equal(masks[1], source[1][1])
    np.testing.assert_allclose(images[1] * IMAGE_STD + IMAGE_MEAN, source[1][0], atol=1e-3)
    images, masks = next(iter(eval_batches(source, size=(64, 96), batch_size=1)))
    assert (images.shape, masks.shape) == ((1, 64, 96, 3), (1, 64, 96))
    assert set(np.unique(masks)) <= set(np.unique(source[0][1]))  # nearest: no new label


def test_too_little_memory_gives_one_line() -> None:
    message = "Graph execution error:\n\nnode x\nOOM when allocating tensor with shape[2,9] on CPU by allocator cpu"
    with pytest.raises(InputError) as refused, plain_input_errors(lambda: "try less"):
        raise tf.errors.ResourceExhaustedError(None, None, message)
    assert str(refused.value) == "out of memory (OOM when allocating tensor with shape[2,9] on CPU); try less"
    with pytest.raises(InputError, match=r"^out of memory \(Unable to allocate 1\.00 TiB"), plain_input_errors():
        raise MemoryError("Unable to allocate 1.00 TiB for an array")
