"""`benchmarks.on_jax`: the network in JAX is the Keras network, and augmented images still lie under their masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from segformer_tf.config import IMAGE_MEAN, IMAGE_STD, variant_config
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from segformer_tf.model import build_segformer
from training.data.folder.source import FolderSource

jax = pytest.importorskip("jax", reason="jax is not installed: pip install '.[on_jax]'")

from benchmarks.on_jax.augment import Augmentation, augment_batch  # noqa: E402
from benchmarks.on_jax.keras_file import fill, read_model  # noqa: E402
from benchmarks.on_jax.network import decode, features, fresh, shapes  # noqa: E402
from benchmarks.on_jax.pack import pack  # noqa: E402
from benchmarks.on_jax.train import Recipe, Training, _fitting, read, read_recipe  # noqa: E402

augment = jax.jit(augment_batch, static_argnums=5)


@pytest.fixture(autouse=True, scope="module")
def _compile_once_and_quickly():
    """What is computed once is not worth optimizing; op by op, each would be compiled by itself."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A Keras model, and the perturbed weights by path that it was filled with."""
    random = np.random.default_rng(0)
    weights = fresh(variant_config("tiny", num_classes=4), seed=1)
    for value in weights.values():
        value += random.uniform(0.0, 0.3, value.shape)  # statistics stay positive
    file = tmp_path_factory.mktemp("on_jax") / "weights.npz"
    np.savez(file, **weights)
    model = build_segformer("tiny", num_classes=4)
    fill(model, file)
    return model, weights


def test_same_logits(pair):
    model, weights = pair
    images = np.random.default_rng(1).normal(size=(1, 77, 130, 3)).astype("float32")
    config = variant_config("tiny", num_classes=4)
    logits, _ = jax.jit(lambda w, x: decode(w, features(w, x, config), config))(weights, images)
    expected = np.asarray(model(images))
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_same_variables(pair):
    model, _ = pair
    theirs = {v.path: tuple(v.shape) for v in model.weights if "seed_generator" not in v.path}
    assert shapes(variant_config("tiny", num_classes=4)) == theirs


def test_the_terms_of_other_weights_are_asked_for(pair, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    for folder, pixels in (("images", np.zeros((40, 50, 3), "uint8")), ("masks", np.zeros((40, 50), "uint8"))):
        (data / "train" / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(data / "train" / folder / "a.png")
    names = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate("abcd")]
    (data / "dataset.json").write_text(json.dumps({"name": "own", "license": "CC0", "classes": names}))
    run.mkdir()
    np.savez(run / "weights.npz", **pair[1])
    recipe = {"variant": "tiny", "drop_path": 0.0, "dropout": 0.0, "start": None}
    for teachers, inherited, terms in (([], None, "trained on own: CC0"), (["t"], "X", "X; trained on own: CC0")):
        (run / "recipe.json").write_text(json.dumps({**recipe, "teachers": teachers}))
        assert read_model(run, data, inherited).config.license == terms
    with pytest.raises(InputError, match="was trained with t: state the terms"):
        read_model(run, data)


def test_a_picture_is_packed_as_training_reads_it(tmp_path):
    split = tmp_path / "data" / "train"
    (split / "images").mkdir(parents=True)
    (split / "masks").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down, in the size of its mask
    Image.fromarray(pixels).save(split / "images" / "a.png", exif=turned)
    Image.fromarray(pixels).save(split / "images" / "b.png")
    for name in "ab":
        Image.fromarray(pixels[..., 0] // 64).save(split / "masks" / f"{name}.png")
    names = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate("abcd")]
    manifest = {"name": "own", "classes": names, "exif": "apply"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(manifest))
    pack(tmp_path / "data", tmp_path / "data.npz", ["train"])
    images, masks, _ = read(tmp_path / "data.npz", ("train",))
    source = FolderSource(tmp_path / "data", "train")
    for i in range(2):
        np.testing.assert_array_equal(images[i], source[i][0])
        np.testing.assert_array_equal(masks[i], source[i][1])


def test_weights_of_another_network_are_refused():
    here, other = (fresh(variant_config(name, num_classes=4), seed=1) for name in ("tiny", "b0"))
    with pytest.raises(InputError, match=r"b0\.npz: weights of another network"):
        _fitting(other, here, "b0.npz")
    fewer = fresh(variant_config("tiny", num_classes=3), seed=2)
    assert set(here) - set(_fitting(fewer, here, "x")) == {"decoder/linear_pred/kernel", "decoder/linear_pred/bias"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [('{"crops": 3}', "no field 'crops'"), ("no.json", "no.json: not a recipe"), ('{"crop": [1', "not a recipe")],
)
def test_a_recipe_that_cannot_be_read_is_refused(spec, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        read_recipe(spec)


def test_a_recipe():
    assert read_recipe('{"crop": [64, 96], "mix": 0.5}').crop == (64, 96)


def test_images_stay_under_their_masks():
    masks = np.kron(np.random.default_rng(0).integers(0, 5, (3, 3, 4)), np.ones((30, 30), int)).astype("uint8")
    images = np.repeat(masks[..., None] * 50, 3, axis=-1).astype("uint8")
    sizes = np.array([[90, 120], [90, 120], [60, 90]], "int32")  # the last is filled up
    points = np.full((3, 2), -1, "int32")
    how = Augmentation((64, 80), (0.5, 2.5), classes=5, stretch=1.4, color=0.0, mix=1.0)
    crops, seen = map(np.asarray, augment(images, masks, sizes, points, jax.random.key(2), how))  # two are mirrored
    gray = (crops * np.array(IMAGE_STD) + np.array(IMAGE_MEAN))[..., 0]
    flat = np.abs(gray / 50 - np.round(gray / 50)) < 1e-3  # not between two cells
    valid = (seen != IGNORE_ID) & flat
    # Between cells 0 and 2 the pixel halfway has the color of 1.
    assert (np.round(gray / 50) == seen)[valid].mean() > 0.98
    assert valid.mean() > 0.5


def test_a_crop_shows_its_point():
    masks = np.zeros((16, 90, 120), "uint8")
    masks[:, 70, 100] = 1
    points = np.full((16, 2), (70, 100), "int32")
    sizes = np.full((16, 2), (90, 120), "int32")
    how = Augmentation((40, 40), (1.0, 2.0), classes=2)
    images = np.zeros((16, 90, 120, 3), "uint8")
    _, seen = augment(images, masks, sizes, points, jax.random.key(1), how)
    assert (np.asarray(seen) == 1).any((1, 2)).all()


def test_same_gradients(pair):
    """The gradients that are written by hand are those that TensorFlow finds."""
    import tensorflow as tf

    model, weights = pair
    random = np.random.default_rng(2)
    images = random.normal(size=(2, 96, 128, 3)).astype("float32")
    config = variant_config("tiny", num_classes=4)
    with tf.GradientTape() as tape:
        logits = model(images)
        direction = random.normal(size=logits.shape).astype("float32")
        total = tf.reduce_sum(logits * direction)
    theirs = dict(
        zip(
            [v.path for v in model.trainable_variables],
            tape.gradient(total, [v.value for v in model.trainable_variables]),
            strict=True,
        )
    )
    ours = jax.jit(jax.grad(lambda w: (decode(w, features(w, images, config), config)[0] * direction).sum()))(weights)
    for path, gradient in theirs.items():
        scale = np.abs(gradient).max()
        assert np.abs(ours[path] - gradient).max() <= 2e-4 * scale, path


def test_every_second_pixel_counts_in_its_turn():
    recipe = Recipe(variant="tiny", crop=(32, 48), class_weights=0.0)
    random = np.random.default_rng(3)
    masks = random.integers(0, 4, (2, 32, 48)).astype("uint8")
    images = np.zeros((2, 32, 48, 3), "uint8")
    config = variant_config("tiny", num_classes=4)
    training = Training(recipe, config, images, masks, np.array([[32, 48]] * 2, "int32"))
    logits = random.normal(size=(2, 8, 12, 4)).astype("float32")
    loss = jax.jit(training._pixels)
    parts = {float(loss(logits, masks, jax.random.key(i))) for i in range(30)}
    full = np.asarray(jax.nn.log_softmax(jax.image.resize(logits, (2, 32, 48, 4), "bilinear")))
    expected = -np.take_along_axis(full, masks[..., None].astype(int), -1).mean()
    assert len(parts) == 4  # from the first or second row, and the first or second column
    assert abs(np.mean(list(parts)) - expected) < 1e-5
