"""`segformer verify`: finds what is off, and where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.edge.isolated import IsolatedModel
from tests.helpers import noise, perturb

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from convert.compare.models import compare_paths  # noqa: E402
from convert.compare.steps import compare_steps, compare_with_checkpoint, weight_differences  # noqa: E402
from convert.compare.torch_network import trace  # noqa: E402
from segformer_tf.checkpoints.importer import Checkpoint, checkpoint_of, read_checkpoint, to_keras  # noqa: E402
from tests.checkpoints.test_import import CODE_BASES, GOLDEN, one_logit  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 67, 98, 3), np.uint8)


def step_of(path: str) -> str:
    """The step of the network that a variable acts in."""
    parts = path.split("/")
    if parts[0] == "encoder":
        return f"c{parts[1][-1]}" if parts[2] == "norm" else "/".join(parts[1:3])
    if parts[1] in ("bn", "linear_pred"):
        return "logits"
    if parts[1] in ("linear_fuse", "conv_fuse"):
        return "decoder/c1"
    return f"decoder/{parts[1].split('_')[1]}"


@pytest.fixture(scope="module", params=list(CODE_BASES))
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return read_checkpoint(GOLDEN / f"{request.param}.safetensors")


@pytest.fixture(scope="module")
def imported(checkpoint: Checkpoint) -> SegFormer:
    """The same in Keras; do not change it."""
    return to_keras(checkpoint)


def test_both_sides_agree_at_every_step(checkpoint: Checkpoint, imported: SegFormer) -> None:
    report = compare_with_checkpoint(imported, checkpoint, PIXELS)
    assert report.first_failure is None
    assert report.weights == []
    assert report.rows[0].name == "weights"
    assert report.rows[1].name == "epsilons"
    assert report.rows[2].name == "normalization"
    steps = [row.name for row in report.rows[3:]]
    assert steps[:3] == ["stage1/patch_embed", "stage1/block0", "c1"]
    assert steps[-7:] == ["decoder/c1", "decoder/c2", "decoder/c3", "decoder/c4", "logits", "all: logits", "all: mask"]
    assert max(row.relative for row in report.rows) < 2e-6
    assert all((ours == theirs).all() for ours, theirs in report.masks)


@pytest.mark.parametrize("code_base", ["nvlabs", "mmseg"])  # the two networks; the others differ in names
def test_one_percent_of_any_tensor_is_found_where_it_is(code_base: str) -> None:
    checkpoint = read_checkpoint(GOLDEN / f"{code_base}.safetensors")
    model = to_keras(checkpoint)
    steps = list(trace(checkpoint, noise(1, 67, 98, 3)))
    names = [step.name for step in steps]
    assert all(row.passes for row in compare_steps(model, steps))
    for variable in model.weights:
        value, step = np.array(variable.value), step_of(variable.path)
        variable.assign(value * 1.01)  # of the key biases, which cancel, the values' half is left
        near = names.index(step) + 1
        failed = [row.name for row in compare_steps(model, steps[max(0, near - 3) : near]) if not row.passes]
        assert failed == [step], variable.path
        assert [name for name, _ in weight_differences(model, checkpoint)] == [variable.path]
        variable.assign(value)


@pytest.mark.parametrize("changes", [{"norm_epsilon": 1e-5}, {"norm_epsilon": 1e-6}, {"patch_norm_epsilon": 1e-6}])
def test_epsilons_of_another_code_base_are_found(checkpoint: Checkpoint, imported: SegFormer, changes: dict) -> None:
    other = SegFormer(replace(checkpoint.config, **changes))
    other.set_weights(imported.get_weights())
    report = compare_with_checkpoint(other, checkpoint, PIXELS[:1])
    if other.config == checkpoint.config:
        assert report.first_failure is None
        return
    assert report.first_failure is not None
    assert report.first_failure.name == "epsilons"
    (name, value), *_ = changes.items()
    alike = [name, "stage_norm_epsilon"] if name == "norm_epsilon" else [name]
    assert report.notes == [f"{n} is {value:g} here, {checkpoint.config.epsilons[n]:g} there" for n in alike]


def test_another_normalization_is_found(checkpoint: Checkpoint, imported: SegFormer) -> None:
    halves = replace(checkpoint.config, image_mean=(127.5,) * 3, image_std=(127.5,) * 3)
    other = SegFormer(halves)
    other.set_weights(imported.get_weights())
    report = compare_with_checkpoint(other, checkpoint, PIXELS[:1])
    assert report.first_failure is not None
    assert report.first_failure.name == "normalization"
    assert report.notes == [
        "images are normalized by mean 127.5, 127.5, 127.5, std 127.5, 127.5, 127.5 here, "
        "mean 123.675, 116.28, 103.53, std 58.395, 57.12, 57.375 there"
    ]
    assert not next(row for row in report.rows if row.name == "all: logits").passes
    assert compare_with_checkpoint(other, replace(checkpoint, config=halves), PIXELS[:1]).first_failure is None


def test_one_logit_is_compared_as_two_classes(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(one_logit("smp", tmp_path))
    report = compare_with_checkpoint(to_keras(checkpoint), checkpoint, PIXELS[:1])
    assert report.first_failure is None
    assert report.notes == [
        f"{checkpoint.path} has one logit x, compared as the two classes that `import` makes of it: (0, x)"
    ]


def test_the_command(
    tiny: SegFormer, tiny_files: dict, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    keras_file, golden = str(tmp_path / "golden.keras"), str(GOLDEN / "nvlabs.safetensors")
    to_keras(read_checkpoint(Path(golden))).save(keras_file)
    main(["verify", keras_file, "--against", golden, "--size", "67", "98"])
    assert "stage3/block1" in capsys.readouterr().out
    main(["verify", keras_file, "--against", keras_file, "--size", "64", "64", "--json"])
    assert all(row["passes"] for row in json.loads(capsys.readouterr().out)["rows"])

    tiny.save(tmp_path / "tiny.keras")
    images = ["--images", str(toy_folder / "test" / "images")]
    picture = tmp_path / "differ.png"
    for recipe in ("fp32", "int8"):
        file = str(tiny_files[recipe])
        main(["verify", file, "--against", str(tmp_path / "tiny.keras"), *images, "--json"])
        assert [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["all: logits", "all: mask"]
    main(["verify", str(tiny_files["fp32"]), "--against", str(tiny_files["int8"]), *images, "--picture", str(picture)])
    with Image.open(picture) as opened:
        assert opened.size == (4 * 161, 3 * 97)

    wrong = to_keras(read_checkpoint(Path(golden)))
    kernel = wrong.encoder.stages[1].blocks[0].mlp.fc1.kernel
    kernel.assign(np.asarray(kernel) * 1.01)
    wrong.save(tmp_path / "wrong.keras")
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(tmp_path / "wrong.keras"), "--against", golden, "--size", "64", "64"])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "weights differ: encoder/stage2/block0/mlp/fc1/kernel" in printed.out
    assert "first past its tolerance is weights" in printed.err

    for arguments, message in (
        ([keras_file, "--against", str(tmp_path / "tiny.keras")], "another network: its embed_dims is"),
        ([golden, "--against", keras_file], "expected a .keras file, a run folder or a .tflite first"),
        ([str(tiny_files["fp32"]), "--against", keras_file, "--size", "64", "64"], "sizes do not fit"),
        ([keras_file, "--against", golden, "--size", "5", "64"], "--size height must be at least 29"),
    ):
        with pytest.raises(SystemExit):
            main(["verify", *arguments])
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_pixels_are_those_of_transformers_image_processor(toy_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
    from segformer_tf.edge import fit_image, load_image

    path = toy_folder / "test" / "images" / "0.png"
    processor = transformers.SegformerImageProcessor(size={"height": 96, "width": 160})
    with Image.open(path) as image:
        theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"])[0].transpose(1, 2, 0)
    ours = (fit_image(load_image(path), (96, 160)) - np.asarray(IMAGE_MEAN)) / np.asarray(IMAGE_STD)
    # One grey level where torchvision resizes for it, rounding where Pillow does.
    assert np.abs((ours - theirs) * np.asarray(IMAGE_STD)).max() <= 1.01


def test_a_model_is_its_own_checkpoint(tiny: SegFormer) -> None:
    report = compare_with_checkpoint(tiny, checkpoint_of(tiny, Path("tiny")), PIXELS)
    assert report.first_failure is None
    other = perturb(SegFormer(tiny.config), seed=1)
    assert not compare_with_checkpoint(other, checkpoint_of(tiny, Path("tiny")), PIXELS).rows[0].passes


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_half_precision_is_compared_in_float32(dtype: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(GOLDEN / "nvlabs.safetensors")
    model, path = to_keras(checkpoint), tmp_path / "half.keras"
    half = SegFormer(model.config, dtype=dtype, preprocess=True)
    half.set_weights(model.get_weights())
    half.save(path)
    for pair in ((path, checkpoint.path), (path, path)):
        _, _, report = compare_paths(*pair, images=None, size=(67, 98), runtime="litert")
        assert report.first_failure is None


def test_each_file_is_opened_once(tiny_files: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    start = IsolatedModel.__init__
    monkeypatch.setattr(
        IsolatedModel, "__init__", lambda self, path, **kw: opened.append(path) or start(self, path, **kw)
    )
    files = [tiny_files["fp32"], tiny_files["int8"]]
    _, _, report = compare_paths(*files, images=None, size=None, runtime="litert")
    assert report.first_failure is None
    assert opened == files
