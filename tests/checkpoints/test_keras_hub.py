"""keras-hub's files: the same logits as its own network, and whatever is no such file refused in a line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from segformer_tf import load_segformer
from segformer_tf.checkpoints.h5_file import read_arrays
from segformer_tf.checkpoints.importer import Checkpoint, checkpoint_of, read_checkpoint, to_keras
from segformer_tf.checkpoints.opened import open_checkpoint
from segformer_tf.cli import main
from segformer_tf.config import VARIANTS
from segformer_tf.errors import InputError
from segformer_tf.model import upsample
from tests.checkpoints.make_keras_hub import GOLDEN, SIDE, image, logits, segmenter
from tests.helpers import refused, within

BACKBONE = "layers/seg_former_backbone/"
Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    """The golden file's, by path."""
    with np.load(GOLDEN / "keras_hub.npz") as held:
        return {name: value for name, value in held.items() if name != "logits"}


@pytest.fixture
def configurations() -> dict[str, Any]:
    return json.loads((GOLDEN / "keras_hub.json").read_text("utf-8"))


def h5_file(arrays: Arrays) -> bytes:
    content = BytesIO()
    with h5py.File(content, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return content.getvalue()


def write_keras(path: Path, arrays: Arrays, configuration: dict[str, Any], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(configuration))
        archive.writestr("model.weights.h5", h5_file(arrays), **options)
    return path


def write_preset(folder: Path, arrays: Arrays, configurations: dict[str, Any], *names: str) -> Path:
    """The files `names` of configurations, the backbone's weights, and the task's where there is a task."""
    folder.mkdir()
    inner = {k.removeprefix(BACKBONE): v for k, v in arrays.items() if k.startswith(BACKBONE)}
    (folder / "model.weights.h5").write_bytes(h5_file(inner))
    if "task.json" in names:
        (folder / "task.weights.h5").write_bytes(
            h5_file({k: v for k, v in arrays.items() if k not in inner and "backbone" not in k})
        )
    for name in names:
        (folder / name).write_text(json.dumps(configurations[name]))
    return folder


def full_size(checkpoint: Checkpoint, side: int) -> np.ndarray:
    return np.asarray(upsample(to_keras(checkpoint)(image(side)), (side, side)))


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    return a.weights.keys() == b.weights.keys() and all(np.array_equal(a.weights[k], b.weights[k]) for k in a.weights)


def test_a_keras_file_gives_its_logits(arrays: Arrays, configurations: dict, tmp_path: Path) -> None:
    state = {"optimizer/vars/0": np.array(7, np.int64), "layers/dropout/seed_generator/vars/0": np.zeros(2, np.uint32)}
    path = write_keras(tmp_path / "x.keras", {**arrays, **state}, configurations["model.keras"])
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    assert (config.embed_dims, config.depths, config.decoder_width, config.num_classes) == (
        (8, 6, 10, 16),
        (1, 1, 2, 1),
        8,
        3,
    )
    assert (config.gelu, config.norm_epsilon, config.stage_norm_epsilon) == ("tanh", 1e-6, 1e-5)
    # pixels * scale + offset
    np.testing.assert_allclose(config.normalize(np.array([[0.0, 100, 255]])), [[-2.25, -0.25, 2.585]], atol=1e-6)
    assert checkpoint.notes == (
        f"{path}: crop_to_aspect_ratio: keras-hub crops images to the size's ratio of sides; they are stretched whole "
        "here",
    )
    with np.load(GOLDEN / "keras_hub.npz") as held:
        theirs = held["logits"]
    assert within(full_size(checkpoint, SIDE), theirs, 3e-6)
    for changes in ({"gelu": "erf"}, {"stage_norm_epsilon": None}):  # what is particular to it shows
        other = replace(checkpoint, config=replace(config, **changes))
        assert not within(full_size(other, SIDE), theirs, 3e-6)


def test_every_form_gives_the_same_weights(arrays: Arrays, configurations: dict, tmp_path: Path) -> None:
    whole = read_checkpoint(write_keras(tmp_path / "x.keras", arrays, configurations["model.keras"]))
    names = ("config.json", "task.json", "preprocessor.json", "image_converter.json")
    preset = write_preset(tmp_path / "preset", arrays, configurations, *names)
    bare = write_preset(tmp_path / "bare", arrays, configurations, "config.json", "task.json")
    for path in (preset, preset / "model.weights.h5", bare):
        read = read_checkpoint(path)
        assert same_weights(read, whole)
        assert read.config == whole.config  # the task names its preprocessor, too
    backbone = configurations["model.keras"]["config"]["backbone"]
    encoder, prefix = backbone["config"]["image_encoder"], BACKBONE + "layers/functional/"
    own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    classifier = {"module": "keras_hub.x", "class_name": "MiTImageClassifier", "config": {"backbone": encoder}}
    dense = {"layers/dense/vars/0": np.zeros((16, 7)), "layers/dense/vars/1": np.zeros(7)}
    for path in (
        write_preset(tmp_path / "backbone", arrays, configurations, "config.json"),
        write_keras(tmp_path / "mit.keras", own, encoder),
        write_keras(tmp_path / "c.keras", {f"layers/mi_t_backbone/{k}": v for k, v in own.items()} | dense, classifier),
    ):
        read = read_checkpoint(path, encoder_only=True)
        assert all(np.array_equal(read.weights[k], v) for k, v in whole.weights.items() if k.startswith("encoder/"))
        assert not read.has_decoder
        assert f"{open_checkpoint(path).keras_hub.preprocessor.notes[0]}".endswith("of ImageNet are assumed")
    with pytest.raises(InputError, match=r"missing: output_segmentation_head.weight"):
        read_checkpoint(tmp_path / "backbone")
    assert "the encoder alone is taken" in read_checkpoint(tmp_path / "backbone", encoder_only=None).notes[0]


def test_verify_finds_a_changed_weight(arrays: Arrays, configurations: dict, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from convert.compare.steps import compare_with_checkpoint

    checkpoint = read_checkpoint(write_keras(tmp_path / "x.keras", arrays, configurations["model.keras"]))
    model = to_keras(checkpoint)
    pixels = [np.random.default_rng(0).integers(0, 256, (33, 50, 3), np.uint8)]
    weight = model.encoder.stages[2].blocks[1].mlp.fc1.kernel
    weight.assign(np.asarray(weight) * 1.01)
    names = [row.name for row in compare_with_checkpoint(model, checkpoint, pixels).rows if not row.passes]
    assert [name for name in names if not name.startswith("all: ")] == ["weights", "stage3/block1"]


@pytest.mark.parametrize(
    ("reason", "edit"),
    [
        ("missing: image_encoder.hierarchical_encoder_2_1.attn.k.weight", lambda a, c: a.pop(KEY)),
        (
            "of another shape: linear_c4.weight",
            lambda a, c: a.update({BACKBONE + "layers/dense/vars/0": np.zeros((6, 8))}),
        ),
        ("unexpected: layers/extra/vars/0", lambda a, c: a.update({"layers/extra/vars/0": np.zeros(2)})),
        ("attn/k/vars/0 is no plain array of floats", lambda a, c: a.update({KEY: np.zeros((10, 10), np.int8)})),
        ("holds values that are no finite numbers", lambda a, c: a.update({KEY: np.full((10, 10), np.nan)})),
        ("which its 145 arrays cannot fill", lambda a, c: encoder_of(c).update(layerwise_depths=[1, 1, 10**9, 1])),
        ("layerwise_depths must be four positive", lambda a, c: encoder_of(c).update(layerwise_depths="1121")),
        (
            r"sr_ratios is \[8, 4, 2, 1\], expected",
            lambda a, c: encoder_of(c).update(layerwise_depths=[1, 1, 1, 2]),
        ),
        (r"sr_ratios is \[4, 4, 2, 1\], expected", lambda a, c: encoder_of(c).update(layerwise_sr_ratios=[4, 4, 2, 1])),
        ("num_attention_heads must be four", lambda a, c: encoder_of(c).update(layerwise_num_heads=[1, 2])),
        (
            "its image_encoder is a ResNetBackbone, expected a MiT",
            lambda a, c: encoder_of(c, 0).update(class_name="ResNetBackbone"),
        ),
        ("its backbone is a nothing, expected a SegFormerB", lambda a, c: c["config"].pop("backbone")),
        (
            "holds a DeepLabV3ImageSegmenter of keras_hub; exp",
            lambda a, c: c.update(class_name="DeepLabV3ImageSegmenter"),
        ),
        ("holds a SegFormerImageSegmenter of keras; expected", lambda a, c: c.update(module="keras")),
        ("scale of its image converter must be a number", lambda a, c: converter_of(c).update(scale=[1, 2])),
        ("expected positive factors", lambda a, c: converter_of(c).update(scale=-1)),
        ("expected positive factors", lambda a, c: converter_of(c).update(scale=float("nan"))),
        ("expected positive factors", lambda a, c: converter_of(c).update(scale=10**400)),
        ("values beyond 256", lambda a, c: converter_of(c).update(offset=300)),
        ("variance of its image converter must be", lambda a, c: converter_of(c).update(mean=0, variance=[0, 1, 1])),
    ],
)
def test_what_is_no_such_file_is_refused(
    reason: str, edit: Callable, arrays: Arrays, configurations: dict, tmp_path: Path
) -> None:
    edit(arrays, configurations["model.keras"])
    with pytest.raises(InputError, match=reason) as error:
        read_checkpoint(write_keras(tmp_path / "x.keras", arrays, configurations["model.keras"]))
    assert str(error.value).startswith(f"{tmp_path / 'x.keras'}: ")


KEY = BACKBONE + "layers/functional/layers/hierarchical_transformer_encoder_3/attn/k/vars/0"


def encoder_of(configuration: dict, level: int = 1) -> dict:
    encoder = configuration["config"]["backbone"]["config"]["image_encoder"]
    return encoder["config"] if level else encoder


def converter_of(configuration: dict) -> dict:
    return configuration["config"]["preprocessor"]["config"]["image_converter"]["config"]


def test_pixel_values_of_every_kind(arrays: Arrays, configurations: dict, tmp_path: Path) -> None:
    saved = configurations["model.keras"]
    kept = dict(converter_of(saved))

    def read(**settings: Any) -> tuple[list[float], tuple[str, ...]]:
        converter_of(saved).clear()
        converter_of(saved).update(settings)
        checkpoint = read_checkpoint(write_keras(tmp_path / "x.keras", arrays, saved))
        return checkpoint.config.normalize(np.array([0.0, 128, 255])).round(4).tolist(), checkpoint.notes

    assert read() == ([0.0, 128.0, 255.0], ())
    assert read(scale=1 / 127.5, offset=-1.0)[0] == [-1.0, 0.0039, 1.0]
    old = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "variance": [0.25, 0.25, 0.25], "height": 64, "width": 64}
    values, notes = read(**old, crop_to_aspect_ratio=False, interpolation="nearest")
    assert values == [-1.0, 0.2039, 1.4]
    assert [note.partition(": ")[2].split()[0] for note in notes] == ["interpolation", "antialias"]
    assert "pads" in read(**kept | {"pad_to_aspect_ratio": True})[1][-1]


def test_bfloat16_is_read(arrays: Arrays, tmp_path: Path) -> None:
    halves = (arrays[KEY].view(np.uint32) >> 16).astype(np.uint16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = halves.view("V2")
        file["x"].attrs["dtype"] = "bfloat16"
    read = read_arrays(tmp_path / "x.h5", tmp_path / "x.h5")["x"]
    np.testing.assert_allclose(read, arrays[KEY], rtol=2**-7)
    assert np.array_equal(read.view(np.uint32) >> 16, halves)


def test_broken_files_are_refused(arrays: Arrays, configurations: dict, tmp_path: Path) -> None:
    saved, path = configurations["model.keras"], tmp_path / "x.keras"
    write_keras(path, arrays, saved, compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="its weights are compressed"):
        read_checkpoint(path)
    write_keras(path, arrays, {**saved, "pad": "x" * (1 << 20)})
    with pytest.raises(InputError, match="its configuration is larger"):
        read_checkpoint(path)
    path.write_bytes(write_keras(path, arrays, saved).read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"not a readable \.keras file"):
        read_checkpoint(path)
    preset = write_preset(tmp_path / "preset", arrays, configurations, "config.json", "task.json")
    (preset / "task.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"task.json: not a configuration"):
        read_checkpoint(preset)


def test_other_verbs_take_it_or_say_what_does(
    arrays: Arrays, configurations: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from training.tasks.warm_start import read_start

    path = write_keras(tmp_path / "x.keras", arrays, configurations["model.keras"])
    with pytest.raises(
        InputError, match=r"x.keras: holds a SegFormerImageSegmenter of keras-hub, which `segformer imp"
    ):
        load_segformer(path)
    # `train --weights` gets as far as the sizes, which are no variant's
    with pytest.raises(InputError, match=r"x.keras: a network of embed_dims \(8, 6, 10, 16\) and depths"):
        read_start(path, None)
    out = tmp_path / "ours.keras"
    main(["import", str(path), "--out", str(out)])
    printed = capsys.readouterr()
    assert "keras-hub: everything taken" in printed.out
    assert "crop_to_aspect_ratio" in printed.err
    ours = load_segformer(out)
    assert (ours.config.gelu, ours.encoder.stages[0].blocks[0].mlp.gelu) == ("tanh", "tanh")
    assert same_weights(checkpoint_of(ours, out), read_checkpoint(path))
    line = refused(capsys, "import", out, "--out", tmp_path / "again.keras")
    assert line.endswith("SegFormer of segformer_tf, which needs no import")


@pytest.mark.slow
@pytest.mark.parametrize("variant", [f"b{i}" for i in range(6)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_keras_hubs_own_network(variant: str, tmp_path: Path) -> None:
    pytest.importorskip("keras_hub")
    sizes, side = VARIANTS[variant], 224 if variant == "b0" else 96
    theirs = segmenter(
        {
            "hidden_dims": list(sizes["embed_dims"]),
            "layerwise_depths": list(sizes["depths"]),
            "layerwise_num_heads": [1, 2, 5, 8],
            "layerwise_sr_ratios": [8, 4, 2, 1],
            "layerwise_patch_sizes": [7, 3, 3, 3],
        },
        width=sizes["decoder_width"],
        classes=5,
        side=side,
    )
    theirs.save(tmp_path / "x.keras")
    theirs.save_to_preset(tmp_path / "preset")
    checkpoint = read_checkpoint(tmp_path / "x.keras")
    assert same_weights(read_checkpoint(tmp_path / "preset"), checkpoint)
    expected = logits(theirs, image(side))
    assert np.abs(full_size(checkpoint, side) - expected).max() < 1e-5 * np.abs(expected).max()
