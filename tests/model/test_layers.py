from __future__ import annotations

import keras
import numpy as np
import pytest

from segformer_tf.layers import DropPath, EfficientSelfAttention, MixFFN, OverlapPatchMerging, TransformerBlock
from tests.helpers import noise

LAYERS = [
    (OverlapPatchMerging(16, patch_size=7, stride=4, epsilon=1e-5), (2, 13, 18, 3), (2, 4, 5, 16)),
    (OverlapPatchMerging(16, patch_size=3, stride=2, epsilon=1e-5), (2, 13, 18, 8), (2, 7, 9, 16)),
    (EfficientSelfAttention(16, num_heads=2, sr_ratio=4, epsilon=1e-5), (2, 9, 14, 16), (2, 9, 14, 16)),
    (EfficientSelfAttention(16, num_heads=1, sr_ratio=1, epsilon=1e-5), (2, 3, 5, 16), (2, 3, 5, 16)),
    (MixFFN(8, hidden_dim=32), (2, 5, 7, 8), (2, 5, 7, 8)),
    (DropPath(0.3, seed=1), (2, 5, 7, 8), (2, 5, 7, 8)),
    (
        TransformerBlock(16, num_heads=2, sr_ratio=2, mlp_ratio=4, drop_path=0.1, epsilon=1e-6, patch_epsilon=1e-5),
        (2, 5, 7, 16),
        (2, 5, 7, 16),
    ),
]


@pytest.mark.parametrize(("layer", "given", "expected"), LAYERS, ids=lambda x: getattr(x, "name", None))
def test_contract_of_every_layer(layer: keras.Layer, given: tuple, expected: tuple) -> None:
    assert layer(noise(*given)).shape == expected
    assert layer.compute_output_shape(given) == expected
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again(noise(*given))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(noise(*given)), layer(noise(*given)))


def test_reduction_merges_blocks_and_drops_the_remainder() -> None:
    layer = EfficientSelfAttention(4, num_heads=1, sr_ratio=4, epsilon=1e-5)
    x = noise(1, 11, 10, 4)
    out = np.asarray(layer(x))
    changed = x.copy()
    changed[:, 8:] += 1.0  # rows beyond two blocks of four: they ask, but are never looked at
    np.testing.assert_allclose(np.asarray(layer(changed))[:, :8], out[:, :8], atol=1e-6)
    changed[:, 7] += 1.0
    assert np.abs(np.asarray(layer(changed))[:, 0] - out[:, 0]).max() > 1e-6


def test_drop_path_drops_samples_and_keeps_the_mean() -> None:
    layer = DropPath(0.25, seed=3)
    x = np.ones((4000, 1, 2, 3), np.float32)
    out = np.asarray(layer(x, training=True))
    assert set(np.unique(out.round(5))) == {0.0, np.float32(1.33333)}
    assert (out == out[:, :1, :1, :1]).all()
    assert out.mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(layer(x, training=False), x)


def test_drop_path_rises_linearly_over_all_blocks() -> None:
    from segformer_tf import build_segformer

    model = build_segformer("b0", num_classes=2, drop_path_rate=0.7)
    rates = [block.drop_path.rate for stage in model.encoder.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.7, 8))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Received: rate=1.0"):
        DropPath(1.0)
    with pytest.raises(ValueError, match="Received: dim=10, num_heads=3"):
        EfficientSelfAttention(10, num_heads=3, sr_ratio=1, epsilon=1e-5)
