"""Feature maps and attention of a pixel are those that the network computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keras import ops
from PIL import Image

from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.layers import EfficientSelfAttention
from tests.helpers import noise, perturb, refused
from training.analysis.features.inside import Attention, attention_of, feature_maps, principal_components
from training.analysis.features.picture import draw_attention, draw_features
from training.analysis.network import open_network, stage_outputs


@pytest.fixture(scope="module")
def tiny_file(tiny: SegFormer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "tiny.keras"
    tiny.save(path)
    return path


@pytest.mark.parametrize("sr_ratio", [1, 2])
def test_attention_gives_the_layer_s_output(sr_ratio: int) -> None:
    layer, x = EfficientSelfAttention(12, num_heads=3, sr_ratio=sr_ratio, epsilon=1e-5), noise(2, 7, 11, 12)
    layer.build(x.shape)
    perturb(layer)
    weights = np.asarray(layer.attention(x, 6, 3))
    assert weights.shape == (2, 3, 7 // sr_ratio, 11 // sr_ratio)
    reduced = layer.norm(layer.sr(x)) if sr_ratio > 1 else x
    values = np.asarray(ops.split(layer.kv(reduced), 2, axis=-1)[1]).reshape(*weights[:, 0].shape, 3, 4)
    taken = np.einsum("bnhw,bhwnd->bnd", weights, values).reshape(2, 12)
    np.testing.assert_allclose(layer.proj(taken), layer(x)[:, 6, 3], atol=1e-5)


def test_the_last_blocks_are_looked_at(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = open_network(tiny_file), np.random.default_rng(0).integers(0, 256, (75, 141, 3), np.uint8)
    found = attention_of(model, image, (140, 10))
    seen, weights = {}, EfficientSelfAttention._weights

    def kept(self: EfficientSelfAttention, x: object, keys: object) -> object:
        seen[self] = np.asarray(weights(self, x, keys))[0]
        return seen[self]

    monkeypatch.setattr(EfficientSelfAttention, "_weights", kept)
    outputs = stage_outputs(model, image[None].astype(np.float32))
    for (name, each), stage in zip(found.items(), model.encoder.stages, strict=True):
        height, width = outputs[name].shape[1:3]
        assert (each.row, each.column) == (int(10.5 * height / 75), width - 1)
        whole = seen[stage.blocks[-1].attn]  # (heads, H·W, keys)
        flat = each.weights.reshape(len(whole), -1)
        np.testing.assert_allclose(flat, whole[:, each.row * width + each.column], atol=1e-6)
        np.testing.assert_allclose(flat.sum(1), 1, rtol=1e-5)
        assert each.key_side == 32


def test_components_are_those_of_a_singular_value_decomposition(tiny_file: Path) -> None:
    features = noise(9, 14, 6) * np.float32([5, 4, 3, 2, 1, 0.5]) + np.float32(7)
    ours = principal_components(features, 3)
    left, scale, _ = np.linalg.svd((features - features.mean((0, 1))).reshape(-1, 6), full_matrices=False)
    np.testing.assert_allclose(ours.shares, (scale**2 / (scale**2).sum())[:3], rtol=1e-4)
    np.testing.assert_allclose(np.abs(ours.maps.reshape(3, -1)), np.abs((left * scale).T[:3]), atol=1e-3)
    assert (ours.maps.max((1, 2)) > -ours.maps.min((1, 2))).all()
    flat = principal_components(np.ones((4, 4, 5), np.float32), 3)
    assert not flat.maps.any()
    assert not flat.shares.any()
    maps = feature_maps(open_network(tiny_file), np.zeros((45, 61, 3), np.uint8), count=2)
    assert {name: each.maps.shape for name, each in maps.items()} == {
        "stage 1": (2, 12, 16),
        "stage 2": (2, 6, 8),
        "stage 3": (2, 3, 4),
        "stage 4": (2, 2, 2),
        "decoder": (2, 12, 16),
    }


def test_pictures_show_the_keys_where_they_are(tmp_path: Path) -> None:
    image = np.zeros((70, 110, 3), np.uint8)
    weights = np.zeros((2, 2, 3), np.float32)
    weights[:, 1, 2] = 1
    draw_attention(image, (5, 60), {"stage $1$": Attention(weights, 32, 0, 0)}, tmp_path / "a.png", title="$")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    bright = (pixels[..., 1] > 120) & (pixels[..., 2] < 90) & (pixels[..., 0] > 130)  # the yellow end, over black
    panels = bright[: len(bright) * 3 // 4]  # without the color bar
    assert panels.any()
    rows, columns = np.nonzero(panels)
    heads = np.split(np.unique(columns), np.flatnonzero(np.diff(np.unique(columns)) > 5) + 1)
    side = rows.max() - rows.min() + 1
    assert [len(head) for head in heads] == pytest.approx([side, side], abs=2)  # two squares, in the two heads' panels
    components = principal_components(noise(9, 14, 6), 3)
    draw_features(image, {"stage $1$": components}, tmp_path / "f.png", title="$")
    with Image.open(tmp_path / "f.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10


@pytest.mark.usefixtures("no_plots")
def test_the_verb(tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "seen"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)).save(photo)
    command = ("features", tiny_file, photo, "--out", out)
    main([*map(str, command), "--pixel", "100", "74"])
    assert capsys.readouterr().out.split() == [str(out / "features.png"), str(out / "attention.png")]
    assert sorted(path.name for path in out.iterdir()) == ["attention.png", "features.png"]
    assert "exists already" in refused(capsys, *command)
    again = (*command, "--overwrite")
    assert "--pixel must be inside" in refused(capsys, *again, "--pixel", 101, 0)
    assert "--pixel must be inside" in refused(capsys, *again, "--pixel", 0, -1)
    assert "--size height must be at least 29" in refused(capsys, *again, "--size", 28, 64)
    assert "expected the .keras file or the run folder" in refused(
        capsys, "features", "int8.tflite", photo, "--out", out / "x"
    )
    Image.new("RGB", (20, 40)).save(photo)
    assert "width must be at least 29" in refused(capsys, *again)
    assert not (out / "x").exists()
