"""Checkpoints of four code bases: strictly read, and the same network as theirs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.interchange.to_transformers import transformers_config
from segformer_tf import build_segformer, load_segformer
from segformer_tf.checkpoints.dialects import DIALECTS, TORCH_NAMES
from segformer_tf.checkpoints.importer import read_checkpoint, to_keras
from segformer_tf.checkpoints.placing import to_keras_layout, to_torch_layout
from segformer_tf.checkpoints.state_dict import read_state_dict
from segformer_tf.cli import main
from segformer_tf.config import VARIANTS, variant_config
from segformer_tf.errors import InputError
from segformer_tf.label_sets import find_labels
from tests.forked import Forked
from tests.helpers import noise, within

GOLDEN = Path(__file__).parent / "golden"
CODE_BASES = {
    "nvlabs": ("NVlabs", 1e-6, 1e-5),
    "smp": ("segmentation_models.pytorch", 1e-6, 1e-5),
    "transformers": ("transformers", 1e-5, 1e-5),
    "mmseg": ("mmseg", 1e-6, 1e-6),
}
# A key of each whose shape is not square.
UNEVEN = {
    "nvlabs": "backbone.block2.0.mlp.fc1.weight",
    "smp": "encoder.block2.0.mlp.fc1.weight",
    "transformers": "segformer.encoder.block.1.0.mlp.dense1.weight",
    "mmseg": "backbone.layers.1.1.0.ffn.layers.0.weight",
}


def golden_logits() -> dict[str, np.ndarray]:
    """An image, and the logits of each code base."""
    with np.load(GOLDEN / "logits.npz") as held:
        return dict(held)


@pytest.fixture(params=list(CODE_BASES))
def code_base(request: pytest.FixtureRequest) -> str:
    return request.param


def tensors_of(code_base: str) -> dict[str, np.ndarray]:
    return load_file(GOLDEN / f"{code_base}.safetensors")


def test_golden_checkpoints_give_their_logits(code_base: str) -> None:
    golden = golden_logits()
    checkpoint = read_checkpoint(GOLDEN / f"{code_base}.safetensors")
    name, norm, patch_norm = CODE_BASES[code_base]
    config = checkpoint.config
    assert (checkpoint.dialect.name, config.norm_epsilon, config.patch_norm_epsilon) == (name, norm, patch_norm)
    assert (config.embed_dims, config.depths, config.decoder_width) == ((8, 8, 10, 16), (1, 1, 2, 1), 8)
    assert (config.num_classes, config.sr_ratios, config.patch_sizes) == (3, (8, 4, 2, 1), (7, 3, 3, 3))
    model = to_keras(checkpoint)
    logits = np.asarray(model(golden["image"]))
    assert np.abs(logits - golden[code_base]).max() < 3e-6
    assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == config.parameter_count
    # The measure is fine enough to tell the code bases' epsilons apart.
    assert np.abs(golden["nvlabs"] - golden["transformers"]).max() > 6e-6


def test_a_changed_weight_changes_the_logits(code_base: str) -> None:
    golden = golden_logits()
    checkpoint = read_checkpoint(GOLDEN / f"{code_base}.safetensors")
    checkpoint.weights["encoder/stage3/block1/attn/kv/weight"][...] *= 1.01
    assert np.abs(np.asarray(to_keras(checkpoint)(golden["image"])) - golden[code_base]).max() > 1e-4


def change(code_base: str, edit: Callable[[dict], None], tmp_path: Path) -> Path:
    tensors = tensors_of(code_base)
    edit(tensors)
    path = tmp_path / "changed.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return path


def test_every_key_has_its_place_or_the_error_names_it(code_base: str, tmp_path: Path) -> None:
    key = UNEVEN[code_base]

    def rename(tensors: dict) -> None:
        tensors[key + "_"] = tensors.pop(key.replace("weight", "bias"))

    def swap(tensors: dict) -> None:
        tensors[key] = tensors[key].swapaxes(0, 1)

    cases: list[tuple[Callable[[dict], object], str]] = [
        (lambda tensors: tensors.pop(key.replace("weight", "bias")), f"missing: {key.replace('weight', 'bias')}"),
        (lambda tensors: tensors.update(extra=np.zeros(2, np.float32)), "unexpected: extra"),
        (rename, f"unexpected: {key}_"),
        (rename, f"missing: {key.replace('weight', 'bias')}"),
        (swap, f"of another shape: {key}"),
        (lambda tensors: tensors.update({key: np.float32(3)[None]}), key),
    ]
    for edit, reason in cases:
        with pytest.raises(InputError) as error:
            read_checkpoint(change(code_base, edit, tmp_path))
        assert reason in str(error.value)


def test_wrappers_and_prefixes_are_taken_off(code_base: str, tmp_path: Path) -> None:
    path = tmp_path / "wrapped.safetensors"
    save_file({f"module.model.{key}": value for key, value in tensors_of(code_base).items()}, path)
    plain = read_checkpoint(GOLDEN / f"{code_base}.safetensors")
    wrapped = read_checkpoint(path)
    assert wrapped.config == plain.config
    for name, tensor in plain.weights.items():
        np.testing.assert_array_equal(wrapped.weights[name], tensor)


def one_logit(code_base: str, tmp_path: Path) -> Path:
    """A golden checkpoint with the head of its second class alone."""
    head = next(dialect for dialect in DIALECTS if dialect.name == CODE_BASES[code_base][0]).decoder["linear_pred"]

    def cut(tensors: dict) -> None:
        tensors.update({f"{head}{name}": tensors[f"{head}{name}"][1:2] for name in ("weight", "bias")})

    return change(code_base, cut, tmp_path)


def test_a_head_of_one_logit_is_two_classes(code_base: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    golden = golden_logits()
    path = one_logit(code_base, tmp_path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.one_logit
    assert checkpoint.config.labels is not None
    assert checkpoint.config.labels.names == ("background", "foreground")
    logits = np.asarray(to_keras(checkpoint)(golden["image"]))
    assert (logits[..., 0] == 0).all()
    assert np.abs(logits[..., 1] - golden[code_base][..., 1]).max() < 3e-6
    (tmp_path / "names.txt").write_text("crack\n")
    main(["import", str(path), "--labels", str(tmp_path / "names.txt"), "--out", str(tmp_path / "x.keras")])
    assert "one logit, a sigmoid: two classes, background and crack" in capsys.readouterr().out
    assert load_segformer(tmp_path / "x.keras").config.labels.names == ("background", "crack")
    # a fresh classifier is of as many classes as it is asked to be
    assert to_keras(checkpoint, num_classes=5).config.num_classes == 5
    with pytest.raises(InputError, match=r"has 2 classes. Received: 21 labels"):
        read_checkpoint(path, labels=find_labels("voc"))


@pytest.mark.parametrize(
    ("name", "names"), [("crack", ("background", "crack")), ("Background", ("background", "foreground"))]
)
def test_the_one_name_of_a_config_json_is_the_foregrounds(name: str, names: tuple, tmp_path: Path) -> None:
    one_logit("transformers", tmp_path).rename(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer", "id2label": {"0": name}}))
    labels = read_checkpoint(tmp_path).config.labels
    assert labels is not None
    assert labels.names == names


def nvlabs_shapes() -> dict[str, tuple[int, ...]]:
    """Every key of the authors' b0 for ADE20K, from the paper's sizes and their names alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    dims, ratios = (32, 64, 160, 256), (8, 4, 2, 1)

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    for s, (c, sr) in enumerate(zip(dims, ratios, strict=True), 1):
        layer(f"backbone.patch_embed{s}.proj", c, (3, *dims)[s - 1], *((7, 7) if s == 1 else (3, 3)))
        layer(f"backbone.patch_embed{s}.norm", c)
        for b in range(2):
            root = f"backbone.block{s}.{b}"
            for name in ("norm1", "norm2", *(("attn.norm",) if sr > 1 else ())):
                layer(f"{root}.{name}", c)
            for name, rows in (("attn.q", c), ("attn.kv", 2 * c), ("attn.proj", c), ("mlp.fc1", 4 * c)):
                layer(f"{root}.{name}", rows, c)
            if sr > 1:
                layer(f"{root}.attn.sr", c, c, sr, sr)
            layer(f"{root}.mlp.dwconv.dwconv", 4 * c, 1, 3, 3)
            layer(f"{root}.mlp.fc2", c, 4 * c)
        layer(f"backbone.norm{s}", c)
        layer(f"decode_head.linear_c{s}.proj", 256, c)
    shapes["decode_head.linear_fuse.conv.weight"] = (256, 1024, 1, 1)
    layer("decode_head.linear_fuse.bn", 256)
    shapes |= {f"decode_head.linear_fuse.bn.running_{name}": (256,) for name in ("mean", "var")}
    layer("decode_head.linear_pred", 150, 256, 1, 1)
    layer("decode_head.conv_seg", 150, 128, 1, 1)  # dead
    return shapes


def test_the_authors_keys_by_their_names_alone(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    tensors = {key: dice.normal(size=shape).astype(np.float32) for key, shape in nvlabs_shapes().items()}
    save_file(tensors, tmp_path / "b0.safetensors")
    checkpoint = read_checkpoint(tmp_path / "b0.safetensors", labels=find_labels("ade20k"))
    assert checkpoint.config.parameter_count == 3_752_694
    model = to_keras(checkpoint)
    block = model.encoder.stages[1].blocks[1]
    np.testing.assert_array_equal(np.transpose(block.attn.kv.kernel), tensors["backbone.block2.1.attn.kv.weight"])
    np.testing.assert_array_equal(
        block.mlp.dwconv.kernel[..., 0][..., 5], tensors["backbone.block2.1.mlp.dwconv.dwconv.weight"][5, 0]
    )
    for key in ("backbone.block4.1.attn.kv.bias", "backbone.norm3.weight", "decode_head.linear_fuse.bn.running_var"):
        save_file({k: v for k, v in tensors.items() if k != key}, tmp_path / "less.safetensors")
        with pytest.raises(InputError, match=f"missing: {key}"):
            read_checkpoint(tmp_path / "less.safetensors")


def test_every_weight_goes_to_its_own_variable(code_base: str) -> None:
    checkpoint = read_checkpoint(GOLDEN / f"{code_base}.safetensors")
    for i, tensor in enumerate(checkpoint.weights.values()):
        tensor[...] = i
    expected = {name: i for i, name in enumerate(checkpoint.weights)}
    model = to_keras(checkpoint)
    assert len(expected) == len(model.weights)
    for variable in model.weights:
        layer, _, name = variable.path.rpartition("/")
        assert np.unique(variable.value).tolist() == [expected[f"{layer}/{TORCH_NAMES[name]}"]]
        array = noise(*variable.shape)
        np.testing.assert_array_equal(to_keras_layout(layer, to_torch_layout(layer, array)), array)


def test_shapes_and_names_that_lie(tmp_path: Path) -> None:
    def refused(code_base: str, edit: Callable[[dict], object], reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            read_checkpoint(change(code_base, edit, tmp_path))

    packed = "backbone.layers.1.1.0.attn.attn.in_proj_bias"
    refused("mmseg", lambda t: t.update({packed: np.zeros(26, np.float32)}), f"of another shape: {packed}")
    refused(
        "nvlabs",
        lambda t: t.update({"module.backbone.patch_embed1.proj.weight": t["backbone.norm1.bias"]}),
        r"module\.|the prefix",
    )
    wide = {"backbone.patch_embed4.proj.weight": (60000, 0, 3, 3), "backbone.block4.0.mlp.fc1.weight": (240000, 0)}
    refused("nvlabs", lambda t: t.update({k: np.zeros(s, np.float32) for k, s in wide.items()}), "has no elements")
    deep = {"backbone.patch_embed4.proj.weight": (3000, 1, 1, 1), "backbone.block4.0.mlp.fc1.weight": (12000, 1)}
    refused(
        "nvlabs", lambda t: t.update({k: np.zeros(s, np.float32) for k, s in deep.items()}), "numbers for an encoder"
    )


def test_the_forms_of_gelu_have_transformers_names(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "transformers.safetensors", tmp_path / "model.safetensors")
    for form in ("erf", "tanh"):
        written = transformers_config(variant_config("tiny", num_classes=3, gelu=form))["hidden_act"]
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer", "hidden_act": written}))
        assert read_checkpoint(tmp_path).config.gelu == form


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu', expected 'gelu'"),
        ({"depths": [2, 2, 2, 2]}, r"depths is \[2, 2, 2, 2\], expected \[1, 1, 2, 1\]"),
        ({"num_attention_heads": 5}, "num_attention_heads must be four positive integers. Received: 5"),
        ({"num_attention_heads": [3, 2, 5, 8]}, "embed_dims must be divisible by num_heads"),
        ({"strides": [4, 2, 2, 0]}, "strides must be four positive integers"),
        ({"id2label": {"0": "", "1": "b", "2": "c"}}, "a class name is one non-empty line"),
    ],
)
def test_a_config_json_of_another_network_is_refused(settings: dict, reason: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "transformers.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer", **settings}))
    with pytest.raises(InputError, match=reason):
        read_checkpoint(tmp_path)


def test_half_precision_and_shards(tmp_path: Path) -> None:
    tensors = tensors_of("nvlabs")
    names = sorted(tensors)
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name].astype(np.float16) for name in part}, tmp_path / f"part{i}.safetensors")
    index = {"weight_map": {name: f"part{i % 2}.safetensors" for i, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = read_state_dict(tmp_path).tensors
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.astype(np.float16).astype(np.float32))
    for name in ("../elsewhere.safetensors", "..", "", "model.safetensors.index.json", 3):
        index["weight_map"][names[0]] = name
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match=r"index\.json: expected "):
            read_state_dict(tmp_path)
    for placed in ({}, {**index["weight_map"], names[0]: "part0.safetensors", "more": "part1.safetensors"}):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
        with pytest.raises(InputError, match=r"not in both|no SegFormer"):
            read_checkpoint(tmp_path)


def test_labels_come_from_config_json_or_a_name(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "transformers.safetensors", tmp_path / "model.safetensors")
    settings = {"model_type": "segformer", "id2label": {"0": "sky", "1": "road", "2": "car"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config.labels is not None
    assert checkpoint.config.labels.names == ("sky", "road", "car")
    with pytest.raises(InputError, match=r"has 3 classes. Received: 19 labels"):
        read_checkpoint(tmp_path, labels=find_labels("cityscapes"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not a configuration"):
        read_checkpoint(tmp_path)
    assert [len(set(find_labels(name).names)) for name in ("ade20k", "cityscapes", "voc", "coco_stuff")] == [
        150,
        19,
        21,
        171,
    ]
    with pytest.raises(InputError, match=r"expected ade20k, cityscapes, voc, .* or a file of names"):
        find_labels("imagenet")


def test_an_encoder_alone_needs_a_decoder(tmp_path: Path) -> None:
    tensors = {k.removeprefix("backbone."): v for k, v in tensors_of("nvlabs").items() if k.startswith("backbone.")}
    path = tmp_path / "mit.safetensors"
    save_file({**tensors, "head.weight": np.zeros((9, 16), np.float32), "head.bias": np.zeros(9, np.float32)}, path)
    checkpoint = read_checkpoint(path)
    assert not checkpoint.has_decoder
    with pytest.raises(InputError, match="an encoder alone; give --encoder-only and --num-classes"):
        to_keras(checkpoint)
    with pytest.raises(InputError, match="--encoder-only needs --num-classes"):
        to_keras(checkpoint, encoder_only=True)
    model = to_keras(checkpoint, encoder_only=True, num_classes=5)
    whole = to_keras(read_checkpoint(GOLDEN / "nvlabs.safetensors"))
    image = golden_logits()["image"]
    np.testing.assert_array_equal(model.encoder(image)["c4"], whole.encoder(image)["c4"])
    assert model(image).shape[-1] == 5


def test_mmsegs_network_is_exported_too(tmp_path: Path) -> None:
    from convert.export import export_tflite

    model = to_keras(read_checkpoint(GOLDEN / "mmseg.safetensors"))
    exported = export_tflite(model, tmp_path / "x.tflite", recipe="fp32", size=(67, 98), runtimes=["litert"])
    assert exported.verdicts[0].error < 1e-5


def test_the_command_imports_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["import", *map(str, arguments)])
        assert stop.value.code == 1
        return capsys.readouterr().err

    out = tmp_path / "model.keras"
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    main(["import", str(GOLDEN / "mmseg.safetensors"), "--labels", str(tmp_path / "names.txt"), "--out", str(out)])
    assert "mmseg: everything taken" in capsys.readouterr().out
    model = load_segformer(out)
    assert model.config.decoder == "mmseg"
    assert model.config.labels is not None
    golden = golden_logits()
    assert within(np.asarray(model(golden["image"])), golden["mmseg"], 1e-5)
    main(["import", str(GOLDEN / "smp.safetensors"), "--num-classes", "7", "--out", str(out), "--overwrite"])
    fresh = load_segformer(out)
    assert fresh.config.num_classes == 7
    other = to_keras(read_checkpoint(GOLDEN / "smp.safetensors"))
    np.testing.assert_array_equal(fresh.decoder.linear_fuse.kernel, other.decoder.linear_fuse.kernel)

    assert "exists already" in refused(GOLDEN / "smp.safetensors", "--out", out)
    assert "expected either a checkpoint or --from-hub" in refused("--out", tmp_path / "x.keras")
    assert "must end in .keras" in refused(GOLDEN / "smp.safetensors", "--out", tmp_path / "x.h5")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    whole = (GOLDEN / "smp.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:5000])
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "cut.pth").write_bytes(b"PK\3\4" + bytes(50))
    (tmp_path / "photo.jpg").write_bytes(whole)
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "other.safetensors": "keys of no SegFormer",
        "cut.safetensors": "not a readable safetensors file",
        "empty.safetensors": "an empty file",
        "text.pth": "not a checkpoint of tensors",
        "cut.pth": "not a checkpoint of tensors",
        "photo.jpg": "expected .safetensors",
        "folder": "a folder without model.safetensors",
        "missing.pth": "no such checkpoint",
    }.items():
        message = refused(tmp_path / name, "--out", tmp_path / "x.keras")
        assert reason in message
        assert name in message
        assert len(message.splitlines()) == 1
        assert not (tmp_path / "x.keras").exists()


@pytest.mark.torch
def test_bfloat16_safetensors_need_no_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.randn(3, 5).to(torch.bfloat16)
    save_torch({"x": values}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "x.safetensors").tensors["x"], values.float().numpy())


def test_safetensors_are_imported_without_torch(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from segformer_tf.cli import main; main(sys.argv[1:])"
    arguments = ["import", GOLDEN / "transformers.safetensors", "--out", tmp_path / "x.keras"]
    process = Forked([sys.executable, "-c", code, *arguments])
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "transformers: everything taken" in printed


@pytest.mark.torch
@pytest.mark.parametrize(
    "variant", ["tiny", "b0", *(pytest.param(f"b{i}", marks=pytest.mark.slow) for i in range(1, 6))]
)
def test_transformers_own_network_agrees(variant: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.checkpoints.make_golden import random_transformers

    sizes = VARIANTS[variant]
    theirs = random_transformers(
        hidden_sizes=list(sizes["embed_dims"]),
        depths=list(sizes["depths"]),
        decoder_hidden_size=sizes["decoder_width"],
        num_labels=150,
    )
    theirs.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert {name: getattr(checkpoint.config, name) for name in sizes} == sizes
    model = to_keras(checkpoint)
    for size in ((512, 512), (96, 160), (97, 161)):
        image = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
        with torch.inference_mode():
            expected = theirs(torch.from_numpy(image).permute(0, 3, 1, 2)).logits.permute(0, 2, 3, 1).numpy()
        assert within(np.asarray(model(image)), expected, 2e-4)


@pytest.mark.torch
def test_transformers_loads_what_we_export(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tests.helpers import perturb

    model = perturb(build_segformer("tiny", num_classes=21, labels=find_labels("voc"), image_size=(97, 161)))
    model.save(tmp_path / "model.keras")
    main(["export", str(tmp_path / "model.keras"), "--format", "transformers", "--out", str(tmp_path / "hf")])
    assert "this model with 1e-06" in " ".join(capsys.readouterr().out.split())
    written = sorted(p.name for p in (tmp_path / "hf").iterdir())
    assert written == ["config.json", "model.safetensors", "preprocessor_config.json"]
    theirs, reason = transformers.SegformerForSemanticSegmentation.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(reason.values()), reason
    assert theirs.config.id2label[1] == "aeroplane"
    # There and back, bit by bit.
    back = to_keras(read_checkpoint(tmp_path / "hf"))
    assert back.config.labels.names == model.config.labels.names  # config.json has no colours
    for ours, again in zip(model.weights, back.weights, strict=True):
        np.testing.assert_array_equal(ours, again, err_msg=ours.path)
    image = np.random.default_rng(0).normal(size=(1, 97, 161, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = theirs.eval()(torch.from_numpy(image).permute(0, 3, 1, 2)).logits.permute(0, 2, 3, 1).numpy()
    assert within(np.asarray(back(image)), expected, 2e-5)
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "model.keras"), "--format", "transformers", "--out", str(tmp_path / "hf")])
    assert "exists already" in capsys.readouterr().err
