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
from benchmarks.on_jax.network import _correlate, _product, decode, features, fresh, shapes  # noqa: E402
from benchmarks.on_jax.pack import pack  # noqa: E402
from benchmarks.on_jax.train import Recipe, Training, _fitting, read, read_recipe, train  # noqa: E402

jnp = jax.numpy
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
    (run / "recipe.json").write_text(json.dumps(recipe))
    assert read_model(run, data).config.license == "trained on own: CC0"
    for others in ({"start": "t"}, {"teachers": ["t"]}, {"teacher": "t"}):
        (run / "recipe.json").write_text(json.dumps(recipe | others))
        assert read_model(run, data, "X").config.license == "X; trained on own: CC0"
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [(2, 16, 32), (1, 7, 9), (3, 1, 1)])
def test_gradients_by_hand_are_those_of_the_plain_form(size, dtype):
    random = np.random.default_rng(4)
    x, direction = (random.normal(size=(*size, 8)).astype("float32") for _ in range(2))
    x, exact = jnp.asarray(x, dtype), 1e-5 if dtype == "float32" else 1e-2

    def plain(x, kernel):
        padded = jnp.pad(x.astype("float32"), ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = x.shape[1:3]
        return sum(padded[:, i : i + rows, j : j + columns] * kernel[i, j] for i in range(3) for j in range(3))

    for ours, theirs, shape in (
        (_product, lambda x, kernel: x.astype("float32") @ kernel, (8, 8)),
        (_correlate, plain, (3, 3, 8)),
    ):
        kernel = random.normal(size=shape).astype("float32")
        found, expected = (
            jax.jit(jax.grad(lambda *each, form=form: (form(*each).astype("float32") * direction).sum(), (0, 1)))(
                x, kernel
            )
            for form in (ours, theirs)
        )
        assert (found[0].dtype, found[1].dtype) == (x.dtype, "float32")
        for one, other in zip(found, expected, strict=True):
            one, other = np.asarray(one, "float32"), np.asarray(other, "float32")
            assert np.abs(one - other).max() <= exact * np.abs(other).max()


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_every_second_pixel_counts_in_its_turn(size):
    recipe = Recipe(variant="tiny", crop=size, class_weights=0.0)
    random = np.random.default_rng(3)
    masks = random.integers(0, 4, (2, *size)).astype("uint8")
    images = np.zeros((2, *size, 3), "uint8")
    training = Training(recipe, variant_config("tiny", num_classes=4), images, masks, np.array([size] * 2, "int32"))
    logits = random.normal(size=(2, 9, 12, 4)).astype("float32")
    loss = jax.jit(training._pixels)
    parts = {float(loss(logits, masks, jax.random.key(i))) for i in range(30)}
    full = np.asarray(jax.nn.log_softmax(jax.image.resize(logits, (2, *size, 4), "bilinear")))
    losses = -np.take_along_axis(full, masks[..., None].astype(int), -1)
    expected = {float(losses[:, i::2, j::2].mean()) for i in range(2) for j in range(2)}
    assert len(parts) == 4  # from the first or second row, and the first or second column
    np.testing.assert_allclose(sorted(parts), sorted(expected), rtol=1e-5)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A file of `pack` with two small images of three classes."""
    folder = tmp_path_factory.mktemp("packed")
    random = np.random.default_rng(5)
    for kind in ("images", "masks"):
        (folder / "data" / "train" / kind).mkdir(parents=True)
    for name in "ab":
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "data" / "train" / "images" / f"{name}.png")
        Image.fromarray(pixels[..., 0] % 3).save(folder / "data" / "train" / "masks" / f"{name}.png")
    names = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate("abc")]
    (folder / "data" / "dataset.json").write_text(json.dumps({"name": "own", "classes": names}))
    pack(folder / "data", folder / "data.npz", ["train"])
    return folder / "data.npz"


def test_a_run_and_a_student_of_two(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.on_jax.train.BLOCK", 2)
    short = {"variant": "tiny", "teacher_variant": "tiny", "steps": 2, "batch_size": 2, "crop": (32, 32)}
    short |= {"evaluations": 1, "class_weights": 0.0, "balance": 0.0}
    first, second = tmp_path / "first", tmp_path / "second"
    lines = list(train(Recipe(**short), packed, first))
    assert lines[0] == "compiled"
    assert json.loads((first / "result.json").read_text())["steps"] == 2
    with pytest.raises(InputError, match="has a run"):
        list(train(Recipe(**short), packed, first))
    config = variant_config("tiny", num_classes=3)
    second.mkdir()
    np.savez(second / "weights.npz", **fresh(config, seed=9))
    student = Training(
        Recipe(**short, start=str(first), teachers=(str(first), str(second))), config, *read(packed, ("train",))
    )
    with np.load(first / "weights.npz") as file:
        for name, value in student.begin()["weights"].items():
            np.testing.assert_array_equal(value, file[name])
    images = np.random.default_rng(6).normal(size=(1, 32, 32, 3)).astype("float32")
    student.dtype = jnp.float32
    logits, each = jax.jit(lambda w, x: decode(w, features(w, x, config), config)[0]), []
    for run in (first, second):
        with np.load(run / "weights.npz") as file:
            weights = {name: file[name] for name in file.files}
        each.append(jax.nn.softmax(logits(weights, images)))
    np.testing.assert_allclose(jax.jit(student._target)(student.teachers, images), np.mean(each, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("end", "says"), [({"error": "the loss is nan"}, "failed: the loss is nan"), ({}, "weights of another network")]
)
def test_a_teacher_that_cannot_teach(end, says, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "compile", lambda self: None)
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    np.savez(teacher / "weights.npz", **fresh(variant_config("tiny", num_classes=5), seed=1))
    recipe = Recipe(variant="tiny", teacher_variant="tiny", crop=(32, 32), teachers=(str(teacher),))
    lines = train(recipe, packed, tmp_path / "student")
    assert [next(lines), next(lines)] == ["compiled", f"waiting for the end of {teacher}"]
    (teacher / "result.json").write_text(json.dumps(end))
    with pytest.raises(InputError, match=says):
        next(lines)


def test_a_teacher_is_the_folder_of_another_run(packed, tmp_path):
    for start in (packed, tmp_path / "own"):
        with pytest.raises(InputError, match="expected the folder of another run"):
            next(train(Recipe(start=str(start)), packed, tmp_path / "own"))
    with pytest.raises(InputError, match="teachers is a list of folders"):
        read_recipe('{"teachers": "runs/a"}')
