"""Checkpoints around and beside the four code bases: the same logits or features as transformers' own network."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")]

from segformer_tf.checkpoints.importer import Checkpoint, read_checkpoint, to_keras  # noqa: E402
from segformer_tf.cli import main  # noqa: E402
from segformer_tf.errors import InputError  # noqa: E402
from tests.checkpoints.make_golden import SIZES, random_transformers, saved_tensors, to_nvlabs, to_smp  # noqa: E402
from tests.helpers import noise, refused, within  # noqa: E402

IMAGE = noise(1, 61, 98, 3)
EPSILONS = {"norm_epsilon": 1e-5, "patch_norm_epsilon": 1e-5}


@pytest.fixture(scope="module")
def network() -> Any:
    return random_transformers(**SIZES)


@pytest.fixture(scope="module")
def tensors(network: Any) -> dict[str, np.ndarray]:
    return saved_tensors(network)


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    network.save_pretrained(path)
    return path


def logits_of(network: Any) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(IMAGE).permute(0, 3, 1, 2)).logits.permute(0, 2, 3, 1).numpy()


def features_of(network: Any) -> list[np.ndarray]:
    with torch.inference_mode():
        pixels = torch.from_numpy(IMAGE).permute(0, 3, 1, 2)
        states = network.segformer(pixels, output_hidden_states=True).hidden_states
    return [state.permute(0, 2, 3, 1).numpy() for state in states]


def same_logits(checkpoint: Checkpoint, network: Any) -> bool:
    return within(np.asarray(to_keras(checkpoint)(IMAGE)), logits_of(network), 1e-5)


def same_features(checkpoint: Checkpoint, network: Any) -> bool:
    # transformers computes with its own epsilons, whichever names the tensors have
    known = replace(checkpoint, config=replace(checkpoint.config, **EPSILONS))
    features = to_keras(known, encoder_only=True, num_classes=4).encoder(IMAGE)
    pairs = zip(features.values(), features_of(network), strict=True)
    return not checkpoint.has_decoder and all(within(np.asarray(a), b, 1e-5) for a, b in pairs)


def others(*names: str) -> dict[str, np.ndarray]:
    return {name: noise(3, 2) for name in names}


def unet_of_smp(tensors: dict) -> dict:
    kept = {k: v for k, v in to_smp(tensors).items() if k.startswith("encoder.")}
    return kept | others(
        "decoder.blocks.0.conv1.0.weight", "decoder.blocks.4.conv2.1.bias", "segmentation_head.0.weight"
    )


def detector(tensors: dict) -> dict:
    kept = {k: v for k, v in to_nvlabs(tensors).items() if k.startswith("backbone.")}
    return kept | others(
        "neck.lateral_convs.0.conv.weight", "rpn_head.rpn_cls.bias", "roi_head.bbox_head.fc_reg.weight"
    )


def lightning(tensors: dict) -> dict:
    return {f"model.{k}": v for k, v in unet_of_smp(tensors).items()} | others("criterion.weight", "metric.matrix")


def plain_in_a_wrapper(tensors: dict) -> dict:
    kept = {k: v for k, v in to_nvlabs(tensors, root="").items() if not k.startswith("decode_head")}
    return {f"net.{k}": v for k, v in kept.items()} | others("net.my_head.weight")


LEFT_OUT = {
    unet_of_smp: {"decoder", "segmentation_head"},
    detector: {"neck", "rpn_head", "roi_head"},
    lightning: {"decoder", "segmentation_head", "criterion", "metric"},
    plain_in_a_wrapper: {"my_head"},
}


@pytest.mark.parametrize("form", list(LEFT_OUT))
def test_the_encoder_of_any_checkpoint(form: Callable, network: Any, tensors: dict, tmp_path: Path) -> None:
    held = form(tensors)
    path = tmp_path / "any.ckpt"
    state = {key: torch.from_numpy(value) for key, value in held.items()}
    torch.save({"state_dict": state, "hyper_parameters": argparse.Namespace(lr=1), "epoch": 3}, path)
    with pytest.raises(InputError, match=r"--drop 'REGEX' leaves keys out"):
        read_checkpoint(path)
    checkpoint = read_checkpoint(path, encoder_only=True)
    assert same_features(checkpoint, network)
    left = next(note for note in checkpoint.notes if "left out" in note)
    assert set(left.rpartition("left out: ")[2].split(", ")) == LEFT_OUT[form]
    # `train` and `verify` find that out by themselves, and say so
    either = read_checkpoint(path, encoder_only=None)
    assert not either.has_decoder
    assert "the encoder alone is taken, for the rest does not fit" in either.notes[0]
    # one weight of the encoder less, or one more, is not overlooked
    key = next(key for key in held if "block2" in key and key.endswith("mlp.fc1.bias"))
    save_file({k: v for k, v in held.items() if k != key}, tmp_path / "less.safetensors")
    wrong = key.replace("fc1", "fc3")
    save_file({**held, wrong: held[key]}, tmp_path / "more.safetensors")
    for name in ("less", "more"):
        for encoder_only in (True, None):
            with pytest.raises(InputError, match=r"missing: |unexpected: |without the prefix"):
                read_checkpoint(tmp_path / f"{name}.safetensors", encoder_only=encoder_only)


def test_two_encoders_are_one_too_many(tensors: dict, tmp_path: Path) -> None:
    held = detector(tensors)
    both = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in held.items()}
    save_file(both, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"2 encoders, 'student\.backbone\.' and 'teacher\.backbone\.'; --drop"):
        read_checkpoint(tmp_path / "x.safetensors", encoder_only=True)
    assert not read_checkpoint(tmp_path / "x.safetensors", encoder_only=True, drop=["student"]).has_decoder


def test_what_is_dropped_may_be_anything(network: Any, tensors: dict, tmp_path: Path) -> None:
    held = {f"model.{k}": v for k, v in tensors.items()} | others("criterion.weight", "model.aux.0.weight")
    save_file(held, tmp_path / "x.safetensors")
    for drop, reason in [
        ((), "1 keys without the prefix 'model.' of the others: criterion.weight; --drop"),
        (("criterion",), "unexpected: aux.0.weight"),
        (("criterion", "nothing"), "--drop 'nothing' matches no key, such as "),
        (("(",), r"--drop '\(' is no regular expression"),
    ]:
        with pytest.raises(InputError, match=reason):
            read_checkpoint(tmp_path / "x.safetensors", drop=drop)
    assert same_logits(read_checkpoint(tmp_path / "x.safetensors", drop=["criterion", r"model\.aux"]), network)


def write_tf_model(
    tensors: dict[str, np.ndarray], path: Path, model: str = "tf_segformer_for_semantic_segmentation"
) -> None:
    """As transformers 4 and Keras 2 did: a group per top layer, in it the variables by path, in Keras' layout."""
    with h5py.File(path, "w") as file:
        file.attrs.update(backend=b"tensorflow", keras_version=b"2.15.0")
        file.create_group("top_level_model_weights").attrs["weight_names"] = []
        for key, value in tensors.items():
            *layers, name = key.split(".")
            if name == "num_batches_tracked":
                continue
            norm = any("norm" in part for part in layers[-2:])
            renamed = {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}
            name = {**renamed, "running_mean": "moving_mean", "running_var": "moving_variance"}[name]
            joined = "/".join(layers)
            # names of numbered layers keep their point: block.0.1, linear_c.3
            for word in ("patch_embeddings", "layer_norm", "block", "linear_c"):
                joined = _with_points(joined, word)
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            file[f"{layers[0]}/{model}/{joined}/{name}:0"] = value


def _with_points(path: str, word: str) -> str:
    parts, joined = path.split("/"), []
    for part in parts:
        if part.isdigit() and joined[-1].startswith(word):
            joined[-1] += f".{part}"
        else:
            joined.append(part)
    return "/".join(joined)


def test_tf_model_h5_is_read(network: Any, tensors: dict, folder: Path, tmp_path: Path) -> None:
    write_tf_model(tensors, tmp_path / "tf_model.h5")
    with h5py.File(tmp_path / "tf_model.h5") as file:
        prefix = "segformer/tf_segformer_for_semantic_segmentation/segformer/encoder"
        assert file[f"{prefix}/block.2.1/mlp/dwconv/dwconv/kernel:0"].shape == (3, 3, 1, 40)
        assert file[f"{prefix}/block.0.0/attention/self/sr/kernel:0"].shape == (8, 8, 8, 8)
        assert f"{prefix}/patch_embeddings.3/layer_norm/gamma:0" in file
    shutil.copy(folder / "config.json", tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.dialect.name == "transformers"
    assert same_logits(checkpoint, network)
    # an image classifier, under its own name
    encoder = {key: value for key, value in tensors.items() if key.startswith("segformer.")}
    classifier = {**encoder, "classifier.weight": noise(7, 16), "classifier.bias": noise(7)}
    write_tf_model(classifier, tmp_path / "other.h5", "tf_segformer_for_image_classification_1")
    assert all(
        np.array_equal(checkpoint.weights[key], tensor)
        for key, tensor in read_checkpoint(tmp_path / "other.h5").weights.items()
    )


def test_h5_files_that_lie_are_refused(tensors: dict, tmp_path: Path) -> None:
    name = "segformer/m/segformer/encoder/layer_norm.0/gamma:0"

    def edited(edit: Callable[[h5py.File], object]) -> Path:
        write_tf_model(tensors, tmp_path / "x.h5", "m")
        with h5py.File(tmp_path / "x.h5", "a") as file:
            del file[name]
            edit(file)
        return tmp_path / "x.h5"

    (tmp_path / "numbers").write_bytes(bytes(32))
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (8,))
    cases: dict[str, Callable[[h5py.File], object]] = {
        "missing: segformer.encoder.layer_norm.0.weight": lambda file: None,
        "gamma:0 is no plain array": lambda file: file.create_dataset(name, (1 << 40,), "f4", chunks=(1 << 20,)),
        "0/gamma:0 is no plain array": lambda file: file.create_dataset(name, data=[b"x"] * 8),
        "_norm.0/gamma:0 is no plain": lambda file: file.create_virtual_dataset(name, layout),
        "norm.0/gamma:0 is no plain": lambda file: file.create_dataset(
            name, (8,), "f4", external=[(str(tmp_path / "numbers"), 0, 32)]
        ),
        "missing: segformer.encoder.layer_norm.0": lambda file: file.update({name: h5py.ExternalLink("other.h5", "x")}),
    }
    for reason, edit in cases.items():
        with pytest.raises(InputError, match=reason):
            read_checkpoint(edited(edit))
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_checkpoint(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros(3)
    with pytest.raises(InputError, match=r"holds no variables as transformers' tf_model.h5 has them"):
        read_checkpoint(tmp_path / "x.h5")


def test_a_trainers_folder(folder: Path, tmp_path: Path) -> None:
    def trainer(best: str | None) -> tuple[str, ...]:
        state = {"best_model_checkpoint": best, "global_step": 100}
        (tmp_path / "checkpoint-100" / "trainer_state.json").write_text(json.dumps(state))
        checkpoint = read_checkpoint(tmp_path)
        return checkpoint.notes[0], "1" if checkpoint.weights["encoder/stage1/norm/bias"].sum() == 0 else "0"

    for step in (20, 100):
        shutil.copytree(folder, tmp_path / f"checkpoint-{step}")
    shutil.copy(folder / "config.json", tmp_path)
    path = tmp_path / "checkpoint-20" / "model.safetensors"
    held = load_file(path)
    held["segformer.encoder.layer_norm.0.bias"][:] = 0
    save_file(held, path, {"format": "pt"})
    (tmp_path / "checkpoint-20" / "training_args.bin").write_bytes(b"code")
    newest, same = read_checkpoint(tmp_path), read_checkpoint(folder)
    assert newest.notes[0].endswith("checkpoint-100 taken, the newest of 2")
    assert newest.config == same.config
    assert all(np.array_equal(newest.weights[key], tensor) for key, tensor in same.weights.items())
    for best, chosen, old in [
        (
            "/elsewhere/out/checkpoint-20",
            "checkpoint-20 taken, the best by checkpoint-100/trainer_state.json of 2",
            "1",
        ),
        ("out\\checkpoint-20", "checkpoint-20 taken, the best by checkpoint-100/trainer_state.json of 2", "1"),
        ("out/checkpoint-60", "checkpoint-100 taken, the newest, for the best, checkpoint-60, is gone of 2", "0"),
        ("..", "checkpoint-100 taken, the newest, for the best, .., is gone of 2", "0"),
        (None, "checkpoint-100 taken, the newest of 2", "0"),
    ]:
        note, is_old = trainer(best)
        assert note.endswith(chosen)
        assert is_old == old


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Adapters of several forms with the network that PEFT's own merging gives."""
    peft = pytest.importorskip("peft")
    from transformers import SegformerForSemanticSegmentation

    forms: dict[str, dict[str, Any]] = {
        "attention": {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "v_proj"]},
        "stable": {
            "r": 4,
            "lora_alpha": 16,
            "use_rslora": True,
            "target_modules": [
                "k_proj",
                "o_proj",
                "fc1",
                "sequence_reduction.sequence_reduction",
                "proj",
                "linear_fuse",
            ],
            "rank_pattern": {"fc1": 2, "stages.0.blocks.0.attention.k_proj": 5},
            "alpha_pattern": {"o_proj": 3},
            "modules_to_save": ["classifier"],
            "bias": "lora_only",
        },
        "head": {"r": 2, "lora_alpha": 2, "target_modules": ["fc2"], "modules_to_save": ["decode_head"]},
    }
    found = {}
    for name, options in forms.items():
        torch.manual_seed(0)
        base = SegformerForSemanticSegmentation.from_pretrained(folder)
        model = peft.get_peft_model(base, peft.LoraConfig(**options)).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.requires_grad:  # B is zeros at first
                    parameter.add_(torch.randn(parameter.shape) * (0.3 if "lora" in key else 0.05))
        path = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(path)
        found[name] = path, model.merge_and_unload()
    return found


@pytest.mark.parametrize("name", ["attention", "stable", "head"])
def test_adapters_are_merged_as_peft_merges_them(name: str, adapters: dict, folder: Path, tmp_path: Path) -> None:
    path, merged = adapters[name]
    checkpoint = read_checkpoint(path)
    assert f"merged into {folder / 'model.safetensors'}" in checkpoint.notes[0]
    save_file(saved_tensors(merged), tmp_path / "merged.safetensors")
    theirs, base = read_checkpoint(tmp_path / "merged.safetensors"), read_checkpoint(folder)
    for key, tensor in theirs.weights.items():
        np.testing.assert_allclose(checkpoint.weights[key], tensor, rtol=0, atol=1e-6, err_msg=key)
    moved = [key for key, tensor in base.weights.items() if np.abs(tensor - checkpoint.weights[key]).max() > 1e-3]
    assert len(moved) > 4
    assert same_logits(checkpoint, merged)
    # the base may lie beside it, whatever its name was
    beside = tmp_path / "beside"
    shutil.copytree(path, beside)
    shutil.copy(folder / "model.safetensors", beside)
    options = json.loads((beside / "adapter_config.json").read_text())
    (beside / "adapter_config.json").write_text(json.dumps({**options, "base_model_name_or_path": "gone"}))
    for place in (beside, beside / "adapter_model.safetensors"):
        again = read_checkpoint(place)
        assert all(np.array_equal(again.weights[key], tensor) for key, tensor in checkpoint.weights.items())


def test_a_head_that_was_saved_whole_makes_a_segmenter_of_an_encoder(
    adapters: dict, tensors: dict, tmp_path: Path
) -> None:
    path, merged = adapters["head"]
    shutil.copytree(path, tmp_path / "x")
    save_file({k: v for k, v in tensors.items() if k.startswith("segformer.")}, tmp_path / "x" / "model.safetensors")
    assert same_logits(read_checkpoint(tmp_path / "x"), merged)
    whole, encoder = read_checkpoint(tmp_path / "x"), read_checkpoint(tmp_path / "x", encoder_only=True)
    assert encoder.weights
    assert all(np.array_equal(whole.weights[key], tensor) for key, tensor in encoder.weights.items())


def test_adapters_of_other_kinds_are_refused(adapters: dict, tmp_path: Path) -> None:
    source = adapters["attention"][0]
    held, options = (
        load_file(source / "adapter_model.safetensors"),
        json.loads((source / "adapter_config.json").read_text()),
    )
    some = next(key for key in held if "lora_A" in key)

    def reason(tensors: dict | None = None, **changes: Any) -> str:
        save_file(held if tensors is None else tensors, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text(json.dumps({**options, **changes}))
        with pytest.raises(InputError) as error:
            read_checkpoint(tmp_path)
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    assert "expected peft_type LORA. Received: 'IA3'" in reason(peft_type="IA3")
    assert "use_dora is not merged here; merge it with peft's merge_and_unload" in reason(use_dora=True)
    assert "a_way_of_tomorrow is not merged here" in reason(a_way_of_tomorrow={"x": 1})
    assert "init_lora_weights 'pissa' changes its base" in reason(init_lora_weights="pissa")
    for rank in (0, -1, 1 << 40, "3", None, True):
        assert "r must be from 1 to 4096" in reason(r=rank)
    assert "expected matrices A and B of rank 2" in reason(r=2)
    assert "lora_alpha of" in reason(lora_alpha="many")
    assert "expected a module's name" in reason(rank_pattern={"(a+)+$": 3})
    assert "rank_pattern must be an object" in reason(rank_pattern=[1])
    assert "its base: " in reason(base_model_name_or_path=str(tmp_path / "gone"))
    assert "no such checkpoint" in reason(base_model_name_or_path=str(tmp_path / "gone"))
    assert "expected matrices A and B" in reason({k: v for k, v in held.items() if k != some.replace("_A", "_B")})
    assert "lora_B.weight without the matrix A" in reason({k: v for k, v in held.items() if k != some})
    assert "its weight (8, 8)" in reason({**held, some: noise(3, 9)})
    lost = {**held, some.replace("stages.0", "stages.7"): held[some]}
    assert "adapts segformer.stages.7" in reason(lost)
    assert "which is no layer of its base" in reason(lost)
    assert "holds no tensors" in reason({"base_model.model.x.num_batches_tracked": np.zeros(1)})
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_config.json without adapter_model.safetensors"):
        read_checkpoint(tmp_path)


def test_the_command_says_what_it_took(
    tensors: dict, adapters: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_file(lightning(tensors), tmp_path / "x.safetensors")
    out = ["--num-classes", "5", "--out", str(tmp_path / "x.keras")]
    main(["import", str(tmp_path / "x.safetensors"), "--encoder-only", "--drop", "criterion", *out])
    printed = capsys.readouterr()
    assert "left out: decoder, metric, segmentation_head" in printed.err
    assert "segmentation_models.pytorch: encoder taken" in printed.out
    main(["verify", str(tmp_path / "x.keras"), "--against", str(tmp_path / "x.safetensors"), "--size", "61", "98"])
    assert "the encoder alone is taken" in " ".join(capsys.readouterr().out.split())
    main(["import", str(adapters["head"][0]), "--out", str(tmp_path / "merged.keras")])
    assert "LoRA adapter of rank 2, merged into" in capsys.readouterr().err
    (tmp_path / "two").mkdir()
    for name in ("a.pth", "b.pth"):
        (tmp_path / "two" / name).touch()
    line = refused(capsys, "import", tmp_path / "two", "--out", tmp_path / "y.keras")
    assert "it holds a.pth and 1 more: name one" in line
