"""The ONNX form against Keras in ONNX Runtime and OpenVINO; a file that is wrong is seen and not written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convert.graph.segformer import network
from convert.onnx import export as export_module
from convert.onnx import runtimes as runtimes_module
from convert.onnx.export import OPENVINO_FILE, RECIPES, export_onnx, export_openvino
from convert.onnx.facts import read_facts
from convert.onnx.runtimes import RUNTIMES, run_on
from convert.onnx.writer import LOWEST_OPSET, OPSET, _Writer, resize_scale, to_onnx
from segformer_tf import SegFormer, build_segformer
from segformer_tf.cli import HINTS, main
from segformer_tf.edge import list_images, load_image, logits_to_mask
from segformer_tf.edge.metadata import find_model_info
from segformer_tf.errors import InputError
from tests.helpers import perturb, refused, within

LOOKS = {"image_mean": (127.5, 0.0, 20.0), "image_std": (127.5, 255.0, 40.0)}


def pixels(size: tuple[int, int], count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)


def agrees(folder: Path, model: SegFormer, size: tuple[int, int], runtimes: tuple[str, ...], **options: Any) -> bool:
    file, images = folder / "model.onnx", pixels(size, 2 if options.get("dynamic_batch") else 1)
    file.write_bytes(to_onnx(network(model, size), **options).SerializeToString())
    logits = np.concatenate([model.logits(image[None]) for image in images])
    return all(within(run_on(runtime, file, [images]), logits, 1e-5) for runtime in runtimes)


@pytest.mark.parametrize(("size", "options"), [((97, 161), {}), ((64, 96), {"decoder": "mmseg"}), ((29, 31), LOOKS)])
def test_both_engines_give_keras_logits(size: tuple[int, int], options: dict[str, Any], tmp_path: Path) -> None:
    model = perturb(build_segformer("tiny", num_classes=6, **options))
    assert agrees(tmp_path, model, size, RUNTIMES)


@pytest.mark.parametrize("opset", [LOWEST_OPSET, OPSET])
def test_gelu_by_tanh(opset: int, tmp_path: Path) -> None:
    """As of keras-hub's weights; by erf instead it is 1e-4 off."""
    model = perturb(build_segformer("tiny", num_classes=6, gelu="tanh"))
    assert agrees(tmp_path, model, (33, 65), RUNTIMES, opset=opset)


def test_a_resize_ends_at_its_size() -> None:
    for before in range(1, 130):
        for after in range(before, 520):
            scale = resize_scale(before, after)
            assert int(np.float32(before) * scale) == after == int(before * float(scale))
            assert abs(scale / (after / before) - 1) < 2e-7


@pytest.mark.parametrize("opset", [LOWEST_OPSET, 19, 21, 23])
def test_other_opsets_and_several_images_at_once(opset: int, tiny: SegFormer, tmp_path: Path) -> None:
    runtimes = RUNTIMES if opset == LOWEST_OPSET else RUNTIMES[:1]
    assert agrees(tmp_path, tiny, (33, 65), runtimes, opset=opset, dynamic_batch=True)


@pytest.mark.parametrize(("kind", "name", "value"), [("Softmax", "axis", -2), ("Resize", "mode", b"nearest")])
def test_one_attribute_is_seen(
    kind: str, name: str, value: Any, tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _Writer._node

    def broken(self: _Writer, made: str, inputs: list[str], output: str, **attributes: Any) -> str:
        if made == kind and output.startswith(("stage4/", "decoder/c4")):
            attributes[name] = value
        return whole(self, made, inputs, output, **attributes)

    monkeypatch.setattr(_Writer, "_node", broken)
    assert not agrees(tmp_path, tiny, (64, 96), RUNTIMES[:1])


@pytest.fixture(scope="module")
def files(tiny: SegFormer, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model at 97x161 in the recipes but int8_mixed, which is int8 in part."""
    folder = tmp_path_factory.mktemp("onnx")
    images = list_images([toy_folder / "train" / "images"])
    paths = {}
    for recipe in RECIPES[:-1]:
        options: dict[str, Any] = {"runtimes": RUNTIMES if recipe == "int8" else RUNTIMES[:1], "dynamic_batch": True}
        paths[recipe] = folder / f"{recipe}.onnx"
        exported = export_onnx(tiny, paths[recipe], recipe=recipe, size=(97, 161), images=images, **options)
        assert [v.runtime.split()[0] for v in exported.verdicts] == list(options["runtimes"])
    return paths


def test_recipes_are_what_they_say(files: dict[str, Path], tiny_files: dict[str, Path]) -> None:
    sizes = {recipe: path.stat().st_size for recipe, path in files.items()}
    for recipe, path in files.items():
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        assert kinds.count("Conv") + kinds.count("MatMul") > 50
        image = onnx.load(path).graph.input[0].type.tensor_type.elem_type
        assert image == (onnx.TensorProto.UINT8 if recipe == "int8" else onnx.TensorProto.FLOAT)
        if recipe == "int8":
            assert kinds.count("QuantizeLinear") > 20
        assert 0.7 < sizes[recipe] / tiny_files[recipe].stat().st_size < 1.4
    assert sizes["fp16"] < 0.7 * sizes["fp32"]


def test_int8_is_as_the_tflite_file(files: dict[str, Path], tiny_files: dict[str, Path], tiny: SegFormer) -> None:
    from convert.exported import run_on as run_tflite
    from segformer_tf.metrics import relative_error

    images = pixels((97, 161), 2)
    tflite = run_tflite(tiny_files["int8"], list(images), runtime="litert")
    for runtime in RUNTIMES:
        assert relative_error(run_on(runtime, files["int8"], [images]), tflite) < 0.05


def test_metadata_is_that_of_the_tflite_file(files: dict[str, Path], tiny_files: dict[str, Path], capsys: Any) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(files["int8"])
    facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    theirs = find_model_info(tiny_files["int8"])
    assert tuple(facts["names"]) == theirs.labels.names
    assert facts["palette"] == theirs.labels.to_dict()["colors"]
    assert facts["input"].items() >= theirs.input_contract.items()
    assert [text.split()[0] for text in facts["created"]["verified"]] == list(RUNTIMES)
    assert set(facts) == {*theirs.facts(), "names"}
    main(["info", str(files["int8"])])
    shown = capsys.readouterr().out
    assert "uint8 [batch, 97, 161, 3]" in shown
    assert f"standard {OPSET}" in shown
    assert theirs.labels.names[-1] in shown


def test_the_python_of_the_manual_runs(files: dict[str, Path], toy_folder: Path, tiny: SegFormer) -> None:
    page = (Path(__file__).parents[3] / "docs" / "onnx.md").read_text("utf-8")
    first, _, third = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    photo = toy_folder / "test" / "images" / "0.png"
    names: dict[str, Any] = {}
    exec((first + third).replace("model.onnx", str(files["fp32"])).replace("photo.jpg", str(photo)), names)
    expected = tiny.logits(names["pixels"])
    assert within(names["logits"], expected, 1e-5)
    assert np.array_equal(names["mask"], logits_to_mask(expected[0], load_image(photo).shape[:2]))
    assert len(names["facts"]["names"]) == 6


def test_info_of_strangers_files(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    (bad := tmp_path / "bad.onnx").write_bytes(b"\xff" * 100)
    assert "not an ONNX file" in refused(capsys, "info", bad)
    bad.write_bytes(b"")
    assert "it has no output" in refused(capsys, "info", bad)
    model = onnx.load(files["fp32"])
    for entry in model.metadata_props:
        entry.value = "{" if entry.key == "palette" else entry.value
    onnx.save(model, bad)
    assert "metadata is damaged" in refused(capsys, "info", bad)
    del model.metadata_props[:]
    onnx.save(model, bad)
    main(["info", str(bad)])
    assert "no metadata" in capsys.readouterr().out


def test_openvino_gets_both_files(tiny: SegFormer, tmp_path: Path) -> None:
    import openvino

    export_openvino(tiny, tmp_path / "out", recipe="fp16", size=(64, 96), dynamic_batch=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {OPENVINO_FILE, "model.bin"}
    images = pixels((64, 96), 2)
    logits = run_on("openvino", tmp_path / "out" / OPENVINO_FILE, [images])
    assert within(logits, tiny.logits(images), 1e-2)
    assert not within(logits, tiny.logits(images), 1e-6)  # kernels of float16
    network = openvino.Core().read_model(tmp_path / "out" / OPENVINO_FILE)
    assert json.loads(network.get_rt_info(["segformer", "recipe"]).value) == "fp16"
    assert network.input(0).get_any_name() == "image"
    assert network.output(0).get_any_name() == "logits"


def test_a_wrong_file_is_not_written(tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kept := tmp_path / "kept.onnx").write_bytes(b"before")
    options: dict[str, Any] = {"recipe": "fp32", "size": (64, 64)}
    monkeypatch.setattr(export_module, "run_on", lambda *a: run_on(*a) * np.linspace(1, 1.1, 6, dtype=np.float32))
    with pytest.raises(InputError, match=r"onnxruntime .* gets recipe fp32 wrong: .*; nothing was written"):
        export_onnx(tiny, kept, runtimes=["onnxruntime"], **options)
    with pytest.raises(InputError, match=r"openvino .* gets recipe fp32 wrong"):
        export_openvino(tiny, tmp_path / "folder", **options)
    monkeypatch.undo()
    monkeypatch.setattr(export_module, "to_onnx", lambda *a, **k: onnx.ModelProto())
    for runtime in RUNTIMES:
        with pytest.raises(InputError, match=rf"kept.onnx: {runtime} .* refuses it \(.*nothing was written"):
            export_onnx(tiny, kept, runtimes=[runtime], **options)
    assert kept.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [kept]


def test_what_is_refused_is_said_in_a_line(tiny: SegFormer, tmp_path: Path, capsys: Any) -> None:
    def line(format: str, *arguments: str) -> str:
        return refused(capsys, "export", "model.keras", "--format", format, "--out", tmp_path / "out", *arguments)

    assert "no --class-map: docs/onnx.md" in line("onnx", "--class-map")
    assert "takes no --runtime or --opset" in line("openvino", "--opset", "20")
    assert "tflite takes no --opset or --dynamic-batch" in line("tflite", "--dynamic-batch")
    (tmp_path / "out").mkdir()
    assert "exists already" in line("openvino", "--size", "64", "64")
    assert "which --overwrite does not replace" in line("openvino", "--overwrite")
    (tmp_path / "out").rmdir()

    def refuses(export: Any, pattern: str, out: str = "model.onnx", **options: Any) -> None:
        with pytest.raises(InputError, match=pattern):
            export(tiny, tmp_path / out, **{"recipe": "fp32", "size": (64, 64), **options})

    every = "fp32, fp16, weight_int8, int8, int8_mixed"
    refuses(export_onnx, f"--format onnx takes --recipe {every}. Received: w8a16", recipe="w8a16")
    refuses(export_openvino, f"--format openvino takes --recipe {every}. Received: int8_io", recipe="int8_io")
    refuses(export_onnx, "--runtime of --format onnx must be one of onnxruntime, openvino", runtimes=["litert"])
    refuses(export_onnx, "--opset must be 18 to ", opset=17)
    refuses(export_onnx, r"must end in \.onnx", out="model.tflite")
    refuses(export_openvino, "int8 needs --calibration", recipe="int8")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_runtime_is_said_in_a_line(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes_module, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    b0 = ("b0", "--num-classes", "3", "--size", "64", "64")
    line = refused(capsys, "export", *b0, "--format", "onnx", "--out", tmp_path / "model.onnx")
    assert line == f"segformer: onnxruntime is not installed; {HINTS['onnxruntime']}"
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_file(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "model.onnx"
    arguments = ["export", "b0", "--num-classes", "3", "--size", "64", "96", "--format", "onnx", "--out", str(out)]
    main([*arguments, "--runtime", "onnxruntime", "--opset", "19", "--dynamic-batch"])
    shown = capsys.readouterr().out
    assert "onnxruntime" in shown
    assert "compared on synthetic images" in shown
    model = onnx.load(out)
    assert model.opset_import[0].version == 19
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        16,
        24,
        3,
    ]


def test_a_default_precision_that_openvino_refuses_is_warned_of(
    tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, bad = tmp_path / "kept.onnx", tmp_path / "bad.onnx"
    options: dict[str, Any] = {"recipe": "fp32", "size": (33, 65), "runtimes": ["openvino"]}
    assert export_onnx(tiny, kept, **options).warning == runtimes_module.fault_by_default(kept) == ""
    bad.write_bytes(onnx.ModelProto().SerializeToString())
    fault = runtimes_module.fault_by_default(bad)
    assert fault.endswith('compile it with {"INFERENCE_PRECISION_HINT": "f32"}')
    monkeypatch.setattr(export_module, "fault_by_default", lambda path: fault)
    assert export_onnx(tiny, kept, **options).warning == fault
    _, info = read_facts(kept)
    assert info is not None
    assert info.created["warning"] == fault
