from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import Labels, SegFormerConfig, variant_config
from segformer_tf.labels import bit_reversed_color


def test_config_survives_plain_types() -> None:
    labels = Labels.named(["a", "b", "c"])
    config = variant_config("b2", num_classes=3, labels=labels, norm_epsilon=1e-5, image_mean=(0, 1.5, 2))
    assert SegFormerConfig.from_dict(config.to_dict()) == config
    assert SegFormerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_configuration_of_before_is_normalized_by_imagenet() -> None:
    saved = variant_config("b0", num_classes=2).to_dict()
    del saved["image_mean"], saved["image_std"]
    assert SegFormerConfig.from_dict(saved) == variant_config("b0", num_classes=2)


@pytest.mark.parametrize("values", [{}, {"image_mean": (127.5, 0.0, 1.0), "image_std": (127.5, 1.0, 2.0)}])
def test_normalization_is_one_formula_in_numpy_and_tensorflow(values: dict) -> None:
    config = variant_config("b0", num_classes=2, **values)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    mean = np.asarray(values.get("image_mean", (123.675, 116.28, 103.53)))
    std = np.asarray(values.get("image_std", (58.395, 57.12, 57.375)))
    single = (pixels.astype(np.float32) - mean.astype(np.float32)) / std.astype(np.float32)
    for given in (pixels, pixels.astype(np.float32), tf.cast(pixels, tf.float32)):
        normalized = config.normalize(given)
        assert normalized.dtype == np.float32
        np.testing.assert_array_equal(normalized, single)
    np.testing.assert_array_equal(config.normalize(pixels.astype(np.float64)), (pixels - mean) / std)


def test_drop_path_and_epsilons_are_the_authors() -> None:
    config = variant_config("b0", num_classes=19)
    assert (config.norm_epsilon, config.patch_norm_epsilon, config.batch_norm_epsilon) == (1e-6, 1e-5, 1e-5)
    assert (config.drop_path_rate, config.dropout_rate, config.mlp_ratio) == (0.1, 0.1, 4)
    assert (config.num_heads, config.sr_ratios) == ((1, 2, 5, 8), (8, 4, 2, 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 0),
        ("embed_dims", (32, 64, 160)),
        ("embed_dims", (32, 64, 161, 256)),
        ("depths", (2, 0, 2, 2)),
        ("drop_path_rate", 1.0),
        ("labels", Labels.named(["only one"])),
        ("image_mean", (127.5, 127.5)),
        ("image_mean", 127.5),
        ("image_mean", (10**400, 0, 0)),
        ("image_bits", 7),
        ("image_mean", (127.5, 127.5, float("nan"))),
        ("image_std", (127.5, 127.5, 0.0)),
        ("image_std", (127.5, 127.5, -1.0)),
        ("image_std", ("a", "b", "c")),
    ],
)
def test_bad_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"Received: "):
        variant_config("b0", **{"num_classes": 19, field: value})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"b0, b1.*Received: variant='b6'"):
        variant_config("b6", num_classes=2)
    with pytest.raises(ValueError, match=r"unknown SegFormerConfig fields: \['extra'\]"):
        SegFormerConfig.from_dict({**variant_config("b0", num_classes=2).to_dict(), "extra": 1})


@pytest.mark.parametrize(
    ("names", "colors"),
    [
        ((), ()),
        (("a",), ()),
        (("a",), ((0, 0, 256),)),
        (("a\nb",), ((0, 0, 0),)),
        (("",), ((0, 0, 0),)),
        (("car", "Car"), ((0, 0, 0), (1, 1, 1))),
    ],
)
def test_bad_labels_are_refused(names: tuple, colors: tuple) -> None:
    with pytest.raises(ValueError, match="Received: "):
        Labels(names, colors)


def test_files_of_before_may_name_a_class_twice() -> None:
    read = Labels.from_dict({"names": ["a", "a", "b", "A", "a (2)"], "colors": [[i, 0, 0] for i in range(5)]})
    assert read.names == ("a", "a (2)", "b", "A (3)", "a (2) (2)")
    assert Labels.from_dict(read.to_dict()) == read


def test_default_colors_are_pascal_voc() -> None:
    # The colour map of the VOC development kit: aeroplane, bicycle, bird, ... tv monitor.
    assert [bit_reversed_color(i) for i in (1, 2, 3, 20)] == [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 64, 128)]
    assert len(set(Labels.numbered(255).colors)) == 255


@pytest.mark.parametrize(
    ("variant", "classes", "changes", "count"),
    [
        ("b0", 150, {}, 3_752_694),
        ("b1", 19, {}, 13_682_131),
        ("b2", 150, {}, 27_461_974),
        ("b3", 19, {}, 47_237_075),
        ("b4", 150, {}, 64_108_374),
        ("b5", 19, {}, 84_607_955),
        # mmsegmentation's network is 256 wide in every variant
        ("b0", 150, {"decoder": "mmseg", "decoder_width": 256}, 3_753_718),
        ("b2", 150, {"decoder": "mmseg", "decoder_width": 256}, 24_761_686),
        ("b5", 150, {"decoder": "mmseg", "decoder_width": 256}, 82_008_406),
    ],
)
def test_parameters_are_counted_without_building(variant: str, classes: int, changes: dict, count: int) -> None:
    assert variant_config(variant, num_classes=classes, **changes).parameter_count == count
