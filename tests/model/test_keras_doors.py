"""Keras' own doors lead to the right numbers or to a line, never to wrong numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import (
    Labels,
    MeanIoU,
    SegFormer,
    SegmentationLoss,
    build_classifier,
    build_segformer,
    keras_settings,
    load_segformer,
)
from segformer_tf.errors import InputError
from segformer_tf.model import upsample
from tests.helpers import noise, perturb

IMPORT = "import segformer_tf.{}"
COMMAND = "import sys; from segformer_tf.cli import script; sys.argv[1:] = ['info', 'no.keras']; script()"


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("model", mode) for mode in ("int8", "int4", "float8")),
        ("model", keras.quantizers.GPTQConfig(dataset=["a"], tokenizer=list)),
        *((kind, "int8") for kind in ("classifier", "wrapped", "layer")),
    ],
)
def test_quantize_is_refused_and_changes_nothing(kind: str, mode: object, tiny: SegFormer) -> None:
    asked = {
        "model": tiny,
        "classifier": build_classifier("tiny", labels=["a", "b"]),
        "wrapped": wrapped(tiny),
        "layer": tiny.encoder.stages[0].blocks[0].attn.q,
    }[kind]
    image, before = noise(1, 64, 64, 3), [np.array(weight) for weight in tiny.weights]
    logits = np.asarray(tiny(image))
    with pytest.raises(InputError, match="`segformer export --recipe int8` makes a quantized file"):
        asked.quantize(**({"mode": mode} if isinstance(mode, str) else {"config": mode}))
    for now, then in zip(tiny.weights, before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(tiny(image), logits)


def wrapped(model: SegFormer) -> keras.Model:
    """A model of a user's own around ours, of which Keras quantizes every layer by itself."""
    image = keras.Input((64, 64, 3))
    return keras.Model(image, model(image))


@pytest.mark.parametrize("policy", ["int8_from_float32", "float8_from_float32"])
def test_policies_that_quantize_are_refused(policy: str) -> None:
    for build in (lambda: build_segformer("tiny", num_classes=2, dtype=policy),
                  lambda: build_classifier("tiny", labels=["a", "b"], dtype=policy)):  # fmt: skip
        with pytest.raises(InputError, match=rf"dtype must be of floats\. Received: {policy}"):
            build()


def test_weights_of_before_are_read() -> None:
    model = load_segformer(Path(__file__).parents[2] / "models" / "camvid_b0.keras")
    assert np.abs(np.asarray(model.decoder.linear_c[0].kernel)).max() > 0.1
    assert model.config.image_mean == (123.675, 116.28, 103.53)


@pytest.mark.parametrize("code", [*(IMPORT.format(name) for name in ("model", "classifier", "layers")), COMMAND])
@pytest.mark.parametrize(
    ("variable", "settings", "line"),
    [
        (
            "torch",
            {},
            "Keras' backend must be tensorflow. Received: torch (KERAS_BACKEND); set KERAS_BACKEND=tensorflow",
        ),
        ("nothing", {}, "Received: nothing (KERAS_BACKEND)"),
        (None, {"backend": "jax"}, "Received: jax (HOME/keras.json); set KERAS_BACKEND=tensorflow"),
        (None, {"image_data_format": "channels_first"}, "image_data_format must be channels_last"),
    ],
)
def test_another_backend_is_one_line(
    code: str, variable: str | None, settings: dict, line: str, tmp_path: Path
) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(tmp_path), **({"KERAS_BACKEND": variable} if variable else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert line.replace("HOME", str(tmp_path)) in last
    if code == COMMAND:
        assert done.stderr == f"{last}\n"
        assert last.startswith("segformer: Keras' ")


def test_the_variable_comes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "tensorflow"}
    code = "from segformer_tf import keras_settings; import sys; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_user_without_a_home_has_kerass_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that has no name."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert keras_settings._file() == Path("/tmp/.keras/keras.json")


def test_kerass_own_loss_on_the_quarter_grid_is_a_line_and_with_a_resize_it_works() -> None:
    model, (images, masks) = build_segformer("tiny", num_classes=3, preprocess=True), batch(67, 93)
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for loss in (own, "sparse_categorical_crossentropy"):
        model.compile("sgd", loss=loss, run_eagerly=True)
        with pytest.raises(InputError, match=r"masks of 67x93, logits of 17x24: .*loss=segformer_tf.SegmentationLoss"):
            model.fit(images, masks, verbose=0)
    full = keras.Sequential([model, keras.layers.Resizing(67, 93)])
    full.compile("sgd", loss=own, run_eagerly=True)
    model.compile("sgd", loss=SegmentationLoss(), run_eagerly=True)
    resized, ours = (each.evaluate(images, masks, verbose=0, return_dict=True)["loss"] for each in (full, model))
    assert resized == pytest.approx(ours, rel=1e-5)


def test_another_failure_of_a_loss_is_kerass_own() -> None:
    model, (images, masks) = build_segformer("tiny", num_classes=3), batch(67, 93)
    model.compile("sgd", loss=lambda truth, logits: 1 / 0, run_eagerly=True)
    with pytest.raises(ZeroDivisionError):
        model.fit(images, masks, verbose=0)


def test_sample_weights_are_refused() -> None:
    model, (images, masks) = build_segformer("tiny", num_classes=3), batch(40, 61)
    model.compile("sgd", loss=SegmentationLoss(), run_eagerly=True)
    with pytest.raises(InputError, match="takes no sample weights, nor fit's class_weight"):
        model.fit(images, masks, sample_weight=np.ones(2), verbose=0)


@pytest.mark.parametrize("decoder", ["all_mlp", "mmseg"])
def test_xla_which_resizes_otherwise_is_never_used(decoder: str) -> None:
    """Where there is a GPU, Keras would take it by itself."""
    model = build_segformer("tiny", num_classes=3, decoder=decoder)
    for each in (model, wrapped(model)):
        with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
            each.compile("sgd", "mse", jit_compile=True)
        assert each.jit_compile is False
    x = tf.constant(noise(1, 9, 9, 3))
    plain, xla = (tf.function(lambda x: upsample(x, (17, 17)), jit_compile=jit)(x) for jit in (False, True))
    assert np.abs(plain - xla).max() > 0.1  # the day this fails, XLA can be allowed


def test_masks_of_one_channel_are_masks() -> None:
    """Before and after `fit` has seen both forms, when masks have no known rank."""
    model, (images, masks) = build_segformer("tiny", num_classes=3), batch(40, 61)
    model.compile(keras.optimizers.SGD(0.0), loss=SegmentationLoss(), metrics=[MeanIoU(3)])
    scores = [
        model.evaluate(images, each, verbose=0, return_dict=True)
        for each in (masks[..., None], masks, masks[..., None], masks)
    ]
    assert all(each == scores[0] for each in scores)
    assert 0 < scores[0]["mean_iou"] < 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="masks must be class ids"):
        model.evaluate(images, np.stack([masks, masks], -1), verbose=0)


@pytest.mark.usefixtures("traced")
def test_images_that_the_model_cannot_take_are_a_line_in_every_call() -> None:
    """Also once a step is compiled for any size, which knows neither height nor channels."""
    model, (images, masks) = build_segformer("tiny", num_classes=3, preprocess=True), batch(64, 64)
    model.compile(keras.optimizers.SGD(0.0), loss=SegmentationLoss())
    pairs = tf.data.Dataset.from_tensor_slices((images, masks)).batch(2)
    model.fit(pairs, validation_data=pairs, shuffle=False, verbose=0)
    small, gray = (images[:, :20, :20], masks[:, :20, :20]), (images[..., :1], masks)
    for (x, y), line in ((small, r"at least 29 pixels\. Received: 20x20"), (gray, r"must be RGB .*\(2, 64, 64, 1\)")):
        data = tf.data.Dataset.from_tensors((x, y))
        for call in (
            lambda x=x, y=y: model.fit(x, y, verbose=0),
            lambda data=data: model.fit(data, shuffle=False, verbose=0),
            lambda data=data: model.fit(pairs, validation_data=data, shuffle=False, verbose=0),
            lambda x=x, y=y: model.evaluate(x, y, verbose=0),
            lambda x=x: model.predict(x, verbose=0),
            lambda x=x: model(x),
        ):
            with pytest.raises(InputError, match=line):
                call()
    with pytest.raises(InputError, match="give the loss its class_weights"):
        model.fit(images, masks, class_weight={0: 1.0, 1: 2.0}, verbose=0)


def test_no_masks_are_not_masks_of_another_size() -> None:
    model, (images, _) = build_segformer("tiny", num_classes=3), batch(32, 32)
    model.compile("adam", SegmentationLoss())
    with pytest.raises(ValueError, match="None values"):
        model.fit(images, verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_preprocess_is_the_models_own_normalization(dtype: str, tmp_path: Path) -> None:
    sizes = {"image_mean": (10.0, 20.0, 30.0), "image_std": (50.0, 60.0, 70.0)}
    model = perturb(build_segformer("tiny", labels=["a", "b"], preprocess=True, dtype=dtype, **sizes))
    images = batch(67, 93)[0]
    normalized = model.config.normalize(images.astype(np.float32))
    plain = SegFormer(model.config, dtype=dtype)
    plain.set_weights(model.get_weights())
    tolerance = {"atol": 1e-5 if dtype == "float32" else 0.05}
    np.testing.assert_allclose(np.float32(model(images)), np.float32(plain(normalized)), **tolerance)  # uint8
    np.testing.assert_allclose(model.logits(images), plain.logits(images), **tolerance)
    assert model.get_layer("normalization").compute_dtype == "float32"
    model.save(tmp_path / "m.keras")
    loaded = load_segformer(tmp_path / "m.keras")
    assert loaded.preprocess
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded(images), model(images))
    other = load_segformer(tmp_path / "m.keras", preprocess=False, dtype="float32")
    assert not other.preprocess
    np.testing.assert_allclose(other(normalized), plain.logits(images), atol=1e-5 if dtype == "float32" else 0.2)


def test_names_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs num_classes, or labels"):
        build_segformer("tiny")
    with pytest.raises(InputError, match=r"expected 3 names\. Received: 2"):
        build_segformer("tiny", num_classes=3, labels=["a", "b"])
    for bad in ("ab", [1, 2]):
        with pytest.raises(InputError, match="labels must be a list of class names"):
            build_segformer("tiny", labels=bad)
    path = tmp_path / "m.keras"
    model = perturb(build_segformer("tiny", num_classes=2))
    model.save(path)
    named = load_segformer(path, labels=["a", "b"])
    assert named.config.labels == Labels.named(["a", "b"])
    kernel = np.array(model.decoder.linear_pred.kernel)
    np.testing.assert_array_equal(named.decoder.linear_pred.kernel, kernel)  # they had none
    named.save(path)
    assert load_segformer(path, num_classes=2).config.labels.names == ("a", "b")
    for other, count in (({"labels": ["b", "a"]}, 2), ({"num_classes": 5}, 5), ({"labels": Labels.numbered(4)}, 4)):
        loaded = load_segformer(path, **other)
        fresh = loaded.decoder.linear_pred.kernel
        assert fresh.shape[-1] == count
        assert count != 2 or not np.array_equal(fresh, kernel)
        np.testing.assert_array_equal(loaded.decoder.bn.moving_mean, model.decoder.bn.moving_mean)
    with pytest.raises(InputError, match=r"expected 3 names\. Received: 2"):
        load_segformer(path, num_classes=3, labels=["a", "b"])


def batch(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images, and masks of three classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, height, width, 3), np.uint8), rng.integers(0, 3, (2, height, width), np.uint8)
