from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import VARIANTS, Labels, SegFormer, build_segformer
from segformer_tf.errors import InputError
from segformer_tf.keras_file import load_segformer
from segformer_tf.model import shapes_alone
from tests.helpers import noise, perturb, plain_decoder, within

# Trainable parameters at 150 and 19 classes: the paper's sizes, counted from the authors' shapes. `tiny` is ours.
PARAMETERS = {
    "b0": (3_752_694, 3_719_027),
    "b1": (13_715_798, 13_682_131),
    "b2": (27_461_974, 27_361_235),
    "b3": (47_337_814, 47_237_075),
    "b4": (64_108_374, 64_007_635),
    "b5": (84_708_694, 84_607_955),
    "tiny": (65_418, 61_095),
}


def count(layer: keras.Layer) -> int:
    return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)


def test_every_variant_is_pinned() -> None:
    assert PARAMETERS.keys() == VARIANTS.keys()


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_counts(variant: str) -> None:
    for classes, expected in zip((150, 19), PARAMETERS[variant], strict=True):
        with shapes_alone():
            model = build_segformer(variant, num_classes=classes)
        assert count(model) == expected


def test_what_has_shapes_alone_is_not_filled_later() -> None:
    with shapes_alone():
        model = build_segformer("tiny", num_classes=2)
    with keras.StatelessScope():  # as in `fit`, which fills at its end what waits for values
        pass
    assert all(v._value is None for v in model.weights)


def test_encoder_parameters_of_b0() -> None:
    assert count(build_segformer("b0", num_classes=2).encoder) == 3_319_392


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 161), (29, 29), (33, 200), (360, 480)])
def test_shapes_of_features_and_logits(tiny: SegFormer, height: int, width: int) -> None:
    image = noise(2, height, width, 3)
    grids = [(-(-height // n), -(-width // n)) for n in (4, 8, 16, 32)]
    features = tiny.encoder(image)
    assert [tuple(features[c].shape[1:3]) for c in ("c1", "c2", "c3", "c4")] == grids
    assert tiny(image).shape == (2, *grids[0], 6)


@pytest.mark.parametrize("size", [(64, 96), (None, 96), (None, None)])
def test_fixed_and_free_sizes_give_the_same(tiny: SegFormer, size: tuple) -> None:
    model = build_segformer("tiny", num_classes=6, image_size=size)
    model.set_weights(tiny.get_weights())
    assert model.output_shape[1:3] == tuple(n and n // 4 for n in size)
    image = noise(1, 64, 96, 3)
    np.testing.assert_array_equal(model(image), tiny(image))


@pytest.mark.parametrize("size", [(29, 29), (32, 32), (32, 64)])
def test_one_small_image_runs_in_a_graph(tiny: SegFormer, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    fresh = build_segformer("tiny", num_classes=6)  # a graph traced for this size first
    fresh.set_weights(tiny.get_weights())
    normalized = (pixels - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(fresh.logits(pixels), tiny(normalized.astype(np.float32)), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(28, 64), (64, 28), (1, 1)])
def test_images_below_29_pixels_are_refused(tiny: SegFormer, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"at least 29 pixels. Received: {height}x{width}"):
        build_segformer("tiny", num_classes=2, image_size=(height, width))
    with pytest.raises(ValueError, match=f"at least 29 pixels. Received: {height}x{width}"):
        tiny(noise(1, height, width, 3))


def test_every_parameter_gets_a_gradient() -> None:
    model = perturb(build_segformer("tiny", num_classes=6, drop_path_rate=0.0))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(noise(2, 64, 96, 3), training=True) * noise(2, 16, 24, 6, seed=1))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    silent = [
        v.path
        for v, g in zip(variables, gradients, strict=True)
        if g is None or not np.abs(g).max() > 0 or not np.isfinite(g).all()
    ]
    assert silent == []


@pytest.mark.parametrize("variant", ["tiny", "b0"])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (360, 480), (97, 161)])
def test_commuted_decoder_is_the_papers(variant: str, height: int, width: int) -> None:
    model = perturb(build_segformer(variant, num_classes=11))
    image = noise(1, height, width, 3)
    expected = plain_decoder(model, model.encoder(image))
    assert within(np.asarray(model(image)), expected)
    kernel = model.decoder.linear_c[2].kernel
    kernel.assign(kernel.numpy() * 1.05)
    assert not within(np.asarray(model(image)), expected)


@pytest.mark.torch
@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 161), (29, 31)])
def test_every_stage_agrees_with_the_torch_reference(tiny: SegFormer, height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    from tests.model import reference

    image = noise(2, height, width, 3)
    theirs = reference.segformer(reference.weights_of(tiny), tiny.config, torch.from_numpy(image))
    features = tiny.encoder(image)
    ours = {**features, "fused": tiny.decoder.fuse(features), "logits": tiny(image)}
    assert {k for k in ours if not within(np.asarray(ours[k]), theirs[k].numpy(), 2e-5)} == set()


@pytest.mark.torch
def test_torch_parity_notices_one_weight() -> None:
    torch = pytest.importorskip("torch")
    from tests.model import reference

    model = perturb(build_segformer("tiny", num_classes=6))
    weights = reference.weights_of(model)
    image = noise(1, 64, 96, 3)
    for path in (
        "encoder/stage2/block0/attn/sr/kernel",
        "encoder/stage3/block1/mlp/dwconv/kernel",
        "decoder/bn/moving_mean",
    ):
        changed = {**weights, path: weights[path] * 1.01}
        theirs = reference.segformer(changed, model.config, torch.from_numpy(image))["logits"].numpy()
        assert not within(np.asarray(model(image)), theirs, 2e-5), path


def test_keras_file_brings_everything_back(tmp_path: Path) -> None:
    labels = Labels.named(["road", "sky"])
    model = perturb(build_segformer("tiny", num_classes=2, image_size=(None, 64), labels=labels, norm_epsilon=1e-5))
    model.save(tmp_path / "model.keras")
    image = noise(1, 50, 64, 3)
    for loaded in (keras.models.load_model(tmp_path / "model.keras"), load_segformer(tmp_path / "model.keras")):
        assert loaded.config == model.config
        assert loaded.image_size == (None, 64)
        np.testing.assert_array_equal(loaded(image), model(image))


def test_mixed_precision_computes_in_half_and_keeps_float_variables(tmp_path: Path) -> None:
    model = perturb(build_segformer("tiny", num_classes=6, dtype="mixed_float16"))
    full = build_segformer("tiny", num_classes=6)
    full.set_weights(model.get_weights())
    image = noise(1, 64, 96, 3)
    assert model(image).dtype == tf.float16
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    np.testing.assert_allclose(model(image), full(image), atol=0.1)
    model.save(tmp_path / "half.keras")
    np.testing.assert_array_equal(load_segformer(tmp_path / "half.keras")(image), model(image))


def test_logits_normalises_by_the_contract(tiny: SegFormer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    by_hand = (pixels - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(tiny.logits(pixels), tiny(by_hand.astype(np.float32)), atol=1e-5)


def test_unreadable_checkpoints_give_one_line(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    (tmp_path / "junk.keras").write_bytes(b"PK junk")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("other.keras", "holds a Sequential; expected a SegFormer"),
        ("junk.keras", "not a readable SegFormer"),
        ("missing.keras", "no such model file"),
        ("folder", "expected a run folder"),
    ):
        with pytest.raises(InputError, match=message):
            load_segformer(tmp_path / name)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("size", [(64, 64), (67, 98)])
def test_a_prediction_by_a_graph_is_the_one_op_by_op(size: tuple[int, int]) -> None:
    """Other tests compute predictions op by op."""
    model = perturb(build_segformer("tiny", num_classes=6, preprocess=True))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    logits = model.logits(pixels)
    assert isinstance(model.predict_function, tf.types.experimental.PolymorphicFunction)
    assert within(logits, np.asarray(model(pixels.astype(np.float32), training=False)), 1e-5)
    model.run_eagerly = True
    model.make_predict_function(force=True)
    assert not isinstance(model.predict_function, tf.types.experimental.PolymorphicFunction)
    assert within(model.logits(pixels), logits, 1e-5)
