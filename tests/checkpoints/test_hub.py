"""Weights by a name on the hub: downloaded from a mirror by huggingface_hub itself, from its cache, or said why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
hub = pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.torch

from segformer_tf import load_segformer  # noqa: E402
from segformer_tf.checkpoints.hub import Weights, find_weights, repository_of  # noqa: E402
from segformer_tf.checkpoints.importer import read_checkpoint  # noqa: E402
from segformer_tf.cli import main  # noqa: E402
from segformer_tf.config import VARIANTS  # noqa: E402
from segformer_tf.errors import InputError  # noqa: E402
from tests.checkpoints.hub_mirror import COMMIT, mirror  # noqa: E402
from tests.checkpoints.make_golden import random_transformers, saved_tensors  # noqa: E402
from tests.checkpoints.test_import import GOLDEN  # noqa: E402
from tests.helpers import refused  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.runs.folder import Run  # noqa: E402
from training.tasks.segmentation import Segmentation  # noqa: E402

MIT, WHOLE = "nvidia/mit-tiny", "someone/whole"
TINY = VARIANTS["tiny"]
SMALL = (
    "--batch-size",
    "1",
    "--crop",
    "32",
    "40",
    "--eval-size",
    "32",
    "40",
    "--learning-rate",
    "1e-30",
    "--weight-decay",
    "0",
)
TERMS = "nvidia/mit-tiny: other, https://example.org/LICENSE; NVIDIA's weights are for research"
# What a process without TensorFlow and torch finds.
FIND = """
import json, sys
from segformer_tf.checkpoints.hub import find_weights
from segformer_tf.errors import InputError
for name in sys.argv[1:]:
    try:
        found = find_weights(name)
        print(json.dumps([str(found.path), found.origin, found.notes]))
    except InputError as error:
        print(json.dumps(str(error)))
assert not {"tensorflow", "torch", "keras"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories: an encoder as NVIDIA's are, in a pickle alone; a segmenter in every format; nothing of use."""
    root = tmp_path_factory.mktemp("site")
    network = random_transformers(
        hidden_sizes=list(TINY["embed_dims"]), depths=list(TINY["depths"]), decoder_hidden_size=32, num_labels=6
    )
    tensors = {key: torch.from_numpy(value) for key, value in saved_tensors(network).items()}
    mit, whole, other = (root / name for name in (MIT, WHOLE, "someone/other"))
    network.save_pretrained(whole)
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (whole / name).write_bytes(b"not asked for")
    mit.mkdir(parents=True)
    encoder = {key: value for key, value in tensors.items() if key.startswith("segformer.")}
    torch.save(
        {**encoder, "classifier.weight": torch.zeros(7, 32), "classifier.bias": torch.zeros(7)},
        mit / "pytorch_model.bin",
    )
    settings = json.loads((whole / "config.json").read_text())
    (mit / "config.json").write_text(json.dumps({**settings, "id2label": {str(i): f"dog {i}" for i in range(7)}}))
    (mit / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    (mit / "README.md").write_text(
        "---\nlicense: other\nlicense_link: https://example.org/LICENSE\ntags:\n- x\n---\n# MiT\n"
    )
    other.mkdir()
    (other / "model.onnx").touch()
    return root


@pytest.fixture(scope="module")
def cache(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache after downloads from the mirror."""
    home = tmp_path_factory.mktemp("home")
    with mirror(site) as (address, asked):
        plain = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        environment = {**plain, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

        def find(*names: str) -> list:
            done = subprocess.run([sys.executable, "-c", FIND, *names], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return [json.loads(line) for line in done.stdout.splitlines()]

        found = find(MIT, f"hf://{WHOLE}@v1", f"hf://{WHOLE}@v2", "hf://someone/none", "no/where", "hf://someone/other")
        mit, whole, revision, none, nowhere, other = found
        assert mit[1:] == [f"hf://{MIT}@{COMMIT}", [f"{MIT}: commit {COMMIT[:12]} of the hub"]]
        names = {"README.md", "config.json", "preprocessor_config.json", "pytorch_model.bin"}
        assert {path.name for path in Path(mit[0]).iterdir()} == names
        assert whole[1] == f"hf://{WHOLE}@{COMMIT}"
        assert {path.name for path in Path(whole[0]).iterdir()} == {"config.json", "model.safetensors"}
        assert revision == f"hf://{WHOLE}@v2: {address}/{WHOLE} has no such revision"
        assert none == f"hf://someone/none: no {address}/someone/none, or one that needs `hf auth login`"
        assert nowhere.startswith("no/where: no such file or folder here, and no http")
        assert "expected one of model.safetensors" in other
        assert other.endswith("It holds model.onnx")
        before = len(asked)
        assert find(mit[1])[0][:2] == mit[:2]  # a commit in the cache needs no network
        assert not [request for request in asked[before:] if "models" in request or "resolve" in request]
    away = find(MIT, "hf://someone/none")  # the mirror is gone
    assert away[0][:2] == mit[:2]
    assert "the hub is out of reach, so its copy in" in away[0][2][1]
    assert "cannot be reached" in away[1]
    return home / "hub"


@pytest.fixture
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))


@pytest.mark.usefixtures("offline", "quick")
def test_training_starts_from_a_name(
    cache: Path,
    site: Path,
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    begin = [
        "train",
        "--data",
        str(toy_folder),
        "--weights",
        MIT,
        "--out",
        str(run),
        "--steps",
        "1",
        "--epoch-steps",
        "1",
    ]
    main([*begin, *SMALL])
    printed = capsys.readouterr().out
    assert f"the weights' license, which what is trained from them inherits: {TERMS}" in printed
    assert "starting from the encoder of a checkpoint (transformers): a fresh decoder" in printed
    assert "mean 127.5, 127.5, 127.5, std 127.5, 127.5, 127.5" in printed
    config = json.loads((run / "config.json").read_text())
    assert (config["variant"], config["weights"]) == ("tiny", f"hf://{MIT}@{COMMIT}")
    model, theirs = load_segformer(run), torch.load(site / MIT / "pytorch_model.bin")
    assert (model.config.norm_epsilon, model.config.patch_norm_epsilon) == (1e-5, 1e-5)
    assert model.config.image_mean == (127.5, 127.5, 127.5)
    assert TERMS in model.config.license
    assert model.config.labels.names[0] == json.loads((toy_folder / "dataset.json").read_text())["classes"][0]["name"]
    key = "segformer.encoder.block.2.1.attention.self.query.weight"
    np.testing.assert_array_equal(np.transpose(model.encoder.stages[2].blocks[1].attn.q.kernel), theirs[key].numpy())
    # resumed on a machine that never saw the hub
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    main(["train", "--resume", str(run), "--steps", "2"])
    assert "1 of 2 steps done" in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["weights"] == f"hf://{MIT}@{COMMIT}"
    # and, where it was stopped before its first backup, from the commit in the cache
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))
    shutil.rmtree(run / "backup")
    task = Segmentation(TrainConfig.read(run))
    assert task.open(Run(run)).weights == f"hf://{MIT}@{COMMIT}"
    assert TERMS in task.model().config.license
    assert "starting from the encoder of a checkpoint (transformers)" in capsys.readouterr().out


@pytest.mark.usefixtures("offline")
def test_a_decoder_is_kept_where_its_classes_are_the_datas(
    site: Path, toy_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    def model(weights: object, **options: object) -> tuple:
        task = Segmentation(TrainConfig(data=str(toy_folder), weights=str(weights), **options))
        config = task.open(None)
        return task.model(), config

    ours, config = model(f"hf://{WHOLE}@v1")
    assert config.variant == "tiny"
    said = capsys.readouterr().out
    assert "weights of 6 classes, the data has 6: other classes, so a fresh classifier" in said
    theirs = read_checkpoint(site / WHOLE)
    np.testing.assert_array_equal(
        ours.decoder.linear_fuse.kernel[0, 0].numpy().T, theirs.weights["decoder/linear_fuse/weight"][..., 0, 0]
    )
    with pytest.raises(
        InputError, match=r"another network than --variant b0: its embed_dims is .*; give --variant tiny"
    ):
        model(site / WHOLE, variant="b0")
    with pytest.raises(InputError, match=r"a network of embed_dims \(8, 8, 10, 16\) and .* none of b0, b1"):
        model(GOLDEN / "nvlabs.safetensors")


@pytest.mark.usefixtures("offline")
def test_the_command_imports_from_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for i, name in enumerate((["--from-hub", MIT], [f"hf://{MIT}"], [MIT])):
        out = tmp_path / f"{i}.keras"
        main(["import", *name, "--encoder-only", "--num-classes", "3", "--out", str(out)])
        printed = capsys.readouterr()
        assert f"license: {TERMS}" in printed.err
        assert "commit" in printed.err
        assert "transformers: encoder taken" in printed.out
    line = refused(capsys, "import", "hf://a/b", "--out", tmp_path / "x.keras")
    for words in (
        "cannot be reached",
        "put config.json, preprocessor_config.json and model.safetensors",
        "models--a--b",
    ):
        assert words in line
    assert "HF_HUB_CACHE or HF_HOME" in line


def test_what_is_a_name_and_what_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").mkdir()
    for path in (
        "runs/mine",
        "owner/name",
        "owner/model.keras",
        "other/model.pth",
        "x",
        "/a/b",
        "a/b/c",
        "../b",
        "a/b.safetensors",
    ):
        assert find_weights(path) == Weights(Path(path), str(Path(path).resolve()))
    for name in ("hf://a", "hf://", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf:///a/b@../x", "hf://datasets/a/b"):
        with pytest.raises(InputError, match="expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION"):
            find_weights(name)
    assert repository_of(tmp_path) == ""


def test_shards_and_a_lone_file_are_asked_for() -> None:
    from segformer_tf.checkpoints.hub import _wanted

    index, parts = "model.safetensors.index.json", [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert _wanted("a/b", ["config.json", index, *parts, "pytorch_model.bin", "onnx/model.onnx"]) == [
        "config.json",
        index,
        *parts,
    ]
    assert _wanted("a/b", ["README.md", "mit_b0.pth", "x.onnx"]) == ["README.md", "mit_b0.pth"]
    preset = ["model.weights.h5", "task.weights.h5", "config.json", "task.json", "preprocessor.json"]
    assert _wanted("keras/x", [*reversed(preset), "metadata.json", "assets.bin"]) == preset
    adapter = ["adapter_config.json", "adapter_model.safetensors"]
    assert _wanted("a/b", [*adapter, "training_args.bin"]) == adapter
    with pytest.raises(InputError, match=r"It holds a\.pth, b\.pth"):
        _wanted("a/b", ["a.pth", "b.pth"])


def test_a_mistyped_path_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="rnus/mine: no such file or folder here; for a repository of that name"):
        find_weights("rnus/mine")
    with pytest.raises(ModuleNotFoundError):
        find_weights("hf://nvidia/mit-b0")


@pytest.mark.usefixtures("offline")
def test_weights_that_another_program_downloaded_alone(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their normalization may be on the hub: it is looked for there, and a note says where it is not to be had."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(shutil.copytree(cache, tmp_path / "hub", symlinks=True)))
    name = f"hf://{MIT}@{COMMIT}"
    whole = find_weights(name)
    assert whole.notes == ()
    (whole.path / "preprocessor_config.json").unlink()
    assert any("has no preprocessor_config.json" in note for note in find_weights(name).notes)
    (whole.path / "pytorch_model.bin").unlink()
    (whole.path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    with pytest.raises(InputError, match="cannot be reached"):
        find_weights(name)


def test_the_license_of_a_model_card(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "transformers.safetensors", tmp_path / "model.safetensors")
    held = load_file(tmp_path / "model.safetensors")
    save_file(held, tmp_path / "model.safetensors")
    cases = {
        "---\nlicense: apache-2.0\n---\n": "apache-2.0",
        '---\r\ntags: x\r\nlicense: "mit"\r\n---\r\n': "mit",
        "---\nlicense: other\nlicense_name: research only\n---\nlicense: gpl": "research only",
        "license: mit\n": "",
        "---\nlicense:\n- mit\n---\n": "",
        "---\nlicense: \x1b[31mred\n---\n": r"\x1b[31mred",
    }
    for card, terms in cases.items():
        (tmp_path / "README.md").write_bytes(card.encode())
        assert read_checkpoint(tmp_path).config.license == terms
