from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import convert.export as export_module
import convert.exported as verify_module
from convert.export import export_tflite
from convert.exported import compare, run_on
from convert.graph.flatbuffer import to_tflite
from convert.graph.segformer import network
from convert.interchange.to_keras import export_keras
from convert.interchange.to_transformers import export_transformers
from convert.quantize.recipes import RECIPES
from convert.sample_images import synthetic_images
from segformer_tf import SegFormer, build_segformer, load_segformer
from segformer_tf.checkpoints.importer import read_checkpoint, to_keras
from segformer_tf.cli import main
from segformer_tf.edge import (
    Segmenter,
    fit_image,
    installed_runtimes,
    list_images,
    load_image,
    logits_to_mask,
    open_interpreter,
)
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from segformer_tf.sampling import evenly_spaced
from tests.helpers import perturb, plain_decoder, within
from tests.training.small import SMALL
from training.data.open import open_source
from training.tasks.segmentation import Segmentation


@cache
def perturbed(variant: str) -> SegFormer:
    """One model for all sizes; do not change it."""
    return perturb(build_segformer(variant, num_classes=11))


@pytest.mark.parametrize("variant", ["tiny", "b0"])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (360, 480), (97, 161)])
def test_fp32_agrees_with_keras_and_the_papers_decoder(variant: str, height: int, width: int, tmp_path: Path) -> None:
    model, out = perturbed(variant), tmp_path / "model.tflite"
    export_tflite(model, out, recipe="fp32", size=(height, width), runtimes=installed_runtimes())
    (image,) = synthetic_images((height, width), 1)
    keras_logits = model.logits(image[None])
    normalized = ((image - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]).astype(np.float32)
    assert within(keras_logits, plain_decoder(model, model.encoder(normalized[None])))
    for runtime in installed_runtimes():
        assert within(run_on(out, [image], runtime=runtime), keras_logits, 1e-5), runtime


@pytest.mark.parametrize("recipe", RECIPES)
def test_contract_of_every_recipe(tiny_files: dict, recipe: str) -> None:
    interpreter = open_interpreter(tiny_files[recipe], runtime="litert")
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == (np.float32 if RECIPES[recipe].integer is None else np.uint8)
    assert given["quantization"] in ((0.0, 0), (1.0, 0))
    assert list(given["shape"]) == [1, 97, 161, 3]
    assert made["dtype"] == (np.int8 if recipe == "int8_io" else np.float32)
    assert list(made["shape"]) == [1, 25, 41, 6]
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["logits"]}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "int8_io"])
def test_one_partition_on_litert(tiny_files: dict, recipe: str) -> None:
    names = [op["op_name"] for op in open_interpreter(tiny_files[recipe], runtime="litert")._get_ops_details()]
    if recipe == "w8a16":  # XNNPACK takes no int16
        assert set(operations(tiny_files[recipe])) - {"DEQUANTIZE"} <= set(names)
    else:
        assert names.count("DELEGATE") == 1


def operations(path: Path) -> list[str]:
    return [op["op_name"] for op in undelegated(path)._get_ops_details()]


def undelegated(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(model_path=str(path), experimental_op_resolver_type=kind)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "tflite-runtime" in RECIPES[name].runtimes])
def test_no_file_has_what_crashes_tflite_runtime_on_arm(tiny_files: dict, recipe: str) -> None:
    """2.14's aarch64 build reads a missing bias of int8 GEMMs, and never ends a dynamic FULLY_CONNECTED of few rows."""
    convolutions = {"CONV_2D", "DEPTHWISE_CONV_2D"}
    ops = undelegated(tiny_files[recipe])._get_ops_details()
    biases = [op["inputs"][2:].tolist() for op in ops if op["op_name"] in convolutions]
    assert biases
    assert all(len(bias) == 1 and bias[0] >= 0 for bias in biases)
    assert "FULLY_CONNECTED" not in {op["op_name"] for op in ops}


def test_recipes_shrink_the_file_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def nearest(kernel: np.ndarray, _: object) -> tuple[np.ndarray, np.ndarray]:  # of the same size, in no time
        steps = np.abs(kernel).max(1) / 7
        return np.round(kernel / steps[:, None]).astype(np.int8), steps

    monkeypatch.setattr("convert.quantize.int4.int4_kernel", nearest)
    graph = network(build_segformer("b0", num_classes=150), (64, 64))
    ranges = dict.fromkeys((name for recipe in RECIPES.values() for name in recipe.tensors(graph)), (-1.0, 1.0))
    megabytes = {
        name: len(to_tflite(recipe.rewrite(graph, ranges, [np.zeros((64, 64, 3), np.uint8)]))) / 1e6
        for name, recipe in RECIPES.items()
    }
    whole = megabytes.pop("fp32")
    assert 14 < whole < 15
    assert 0.5 < megabytes.pop("fp16") / whole < 0.52
    assert 0.5 < megabytes.pop("fp16_compute") / whole < 0.52
    assert megabytes.pop("dynamic_int4") < 2.2
    assert set(megabytes) == {"weight_int8", "dynamic_int8", "int8", "int8_mixed", "int8_io", "w8a16"}
    assert megabytes.pop("int8_mixed") < 6  # what it spares is float32
    assert max(megabytes.values()) < 4.1


def output_types(path: Path) -> dict[str, set[Any]]:
    """Dtypes of the outputs, by operation."""
    interpreter = undelegated(path)
    types = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    found: dict[str, set[Any]] = {}
    for op in interpreter._get_ops_details():
        found.setdefault(op["op_name"], set()).add(types[op["outputs"][0]])
    return found


def test_integer_recipes_are_of_integers(tiny_files: dict) -> None:
    types = output_types(tiny_files["int8"])
    assert types["DEPTHWISE_CONV_2D"] == types["RESIZE_BILINEAR"] == {np.int8}
    assert types["PAD"] == {np.float32, np.int8}  # pixels stay in float
    assert types["SOFTMAX"] == types["GELU"] == {np.float32}
    everywhere = {dtype for dtypes in output_types(tiny_files["int8_io"]).values() for dtype in dtypes}
    assert everywhere == {np.int8, np.int16}
    assert output_types(tiny_files["int8_io"])["SOFTMAX"] == {np.int16}
    wide = output_types(tiny_files["w8a16"])
    assert {dtype for kind, dtypes in wide.items() if kind != "DEQUANTIZE" for dtype in dtypes} == {np.int16}


def test_a_wrong_file_is_not_left_behind(
    tiny: SegFormer, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build_segformer("tiny", num_classes=6)
    other.set_weights(tiny.get_weights())
    kernel = other.encoder.stages[1].blocks[0].mlp.fc1.kernel
    kernel.assign(kernel.numpy() * 1.02)
    monkeypatch.setattr(export_module, "network", lambda _, *args, **kwargs: network(other, *args, **kwargs))
    images = list_images([toy_folder / "train" / "images"])
    with pytest.raises(InputError, match=r"litert 2.* gets recipe fp32 wrong: relative error .* nothing was written"):
        export_tflite(tiny, tmp_path / "x.tflite", recipe="fp32", size=(64, 96), images=images, runtimes=["litert"])
    assert list(tmp_path.iterdir()) == []


def test_a_crashing_runtime_is_not_shipped_to(tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: IsolatedModel, fitted: np.ndarray) -> np.ndarray:
        self._process.kill()
        raise self._failure()

    monkeypatch.setattr(IsolatedModel, "logits", crash)
    with pytest.raises(InputError, match="was killed"):
        export_tflite(tiny, tmp_path / "x.tflite", recipe="fp32", size=(64, 96), runtimes=["litert"])
    assert list(tmp_path.iterdir()) == []


def test_bad_options_are_refused(tiny: SegFormer, tmp_path: Path) -> None:
    def refuse(message: str, **changes: object) -> None:
        options = {"recipe": "fp32", "size": (64, 96), "runtimes": ["litert"], "out": tmp_path / "x.tflite", **changes}
        with pytest.raises(InputError, match=message):
            export_tflite(tiny, options.pop("out"), **options)

    refuse("--recipe must be one of fp32, fp16, fp16_compute, weight_int8, .*, w8a16. Received: int4", recipe="int4")
    refuse("must end in .tflite", out=tmp_path / "x.bin")
    refuse("at least 29 pixels. Received: 20x96", size=(20, 96))
    refuse("needs --calibration", recipe="int8")
    refuse("needs --calibration", recipe="dynamic_int4")
    refuse("recipe fp32 is for litert and tflite-runtime; no such TFLite runtime is installed", runtimes=[])
    images = [tmp_path / "never read.jpg"]
    refuse(
        "w8a16 is not for tflite-runtime: 2.14 has no int16 RSQRT and GELU; expected --runtime litert",
        recipe="w8a16",
        images=images,
        runtimes=["tflite-runtime"],
    )


@pytest.mark.parametrize(("runtimes", "tolerance"), [(["tflite-runtime"], 1e-3), (["litert", "tflite-runtime"], 1e-4)])
def test_the_form_of_an_approximate_gelu_may_be_further_off(
    tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtimes: list[str], tolerance: float
) -> None:
    asked = []
    monkeypatch.setattr(export_module, "verify_file", lambda path, *, recipe, **options: asked.append(recipe) or [])
    options = {"recipe": "fp32", "size": (64, 96), "runtimes": runtimes}
    export_tflite(tiny, tmp_path / "x.tflite", **options)
    assert {recipe.tolerance for recipe in asked} == {tolerance}


@pytest.mark.parametrize("recipe", ["fp32", "int8", "int8_io"])
def test_class_map_is_what_the_logits_say(
    tiny: SegFormer, toy_folder: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, images = tmp_path / "mapped.tflite", list_images([toy_folder / "train" / "images"])
    options = {"recipe": recipe, "size": (97, 161), "images": images, "runtimes": installed_runtimes()}
    export_tflite(tiny, out, class_map=True, **options)
    fitted = fit_image(load_image(images[0]), (97, 161))
    for runtime in installed_runtimes():
        with IsolatedModel(out, runtime=runtime) as worker:
            mask = logits_to_mask(worker.logits(fitted), (97, 161))
            assert worker.class_map is not None
            assert (worker.class_map == mask).mean() > 0.9999
    assert Segmenter(out, runtime="litert")(images[0]).mask.shape == load_image(images[0]).shape[:2]
    monkeypatch.setattr(verify_module, "logits_to_mask", lambda logits, size: np.zeros(size))
    with pytest.raises(InputError, match="gets the class map wrong"):
        export_tflite(tiny, tmp_path / "wrong.tflite", class_map=True, **options)
    assert not (tmp_path / "wrong.tflite").exists()


def test_error_ignores_a_shift_common_to_all_classes_and_nothing_else() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    assert compare(logits + 5, logits, name="x").error < 1e-5
    assert compare(logits[..., ::-1], logits, name="x").error > 0.5
    assert np.isnan(compare(logits * np.nan, logits, name="x").error)
    assert compare(np.zeros_like(logits), logits, name="x").error == pytest.approx(1.0)


def test_evenly_spaced() -> None:
    assert evenly_spaced(list(range(10)), 3) == [0, 4, 9]
    assert evenly_spaced([1, 2], 5) == [1, 2]
    assert evenly_spaced([], 5) == []


def test_command_writes_a_file_and_says_how_good_it_is(
    tiny: SegFormer, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from segformer_tf.cli import main

    tiny.save(tmp_path / "model.keras")
    out = tmp_path / "model.tflite"
    arguments = ["export", str(tmp_path / "model.keras"), "--recipe", "int8", "--size", "64", "96", "--out", str(out)]
    main([*arguments, "--calibration", str(toy_folder / "train" / "images"), "--runtime", "litert"])
    assert "litert" in capsys.readouterr().out
    assert out.is_file()
    main(["info", str(out)])
    assert "uint8 [1, 64, 96, 3]" in capsys.readouterr().out
    main(["info", str(tmp_path / "model.keras")])
    assert "8, 16, 20, 32" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "model.keras"), "--out", str(tmp_path / "y.tflite")])
    assert "--size H W is needed" in capsys.readouterr().err


def test_a_keras_file_of_half_the_size_gives_the_network_back(tiny: SegFormer, tmp_path: Path) -> None:
    saved, out = tmp_path / "whole.keras", tmp_path / "half.keras"
    tiny.save(saved)
    main(["export", str(saved), "--format", "keras", "--out", str(out), "--license", "for research only"])
    assert saved.stat().st_size - out.stat().st_size > 1.9 * tiny.config.parameter_count
    half = load_segformer(out)
    assert half.config == replace(tiny.config, license="for research only")
    assert half.dtype_policy.name == "float32"
    for read, whole in zip(half.weights, tiny.weights, strict=True):
        np.testing.assert_array_equal(read, np.asarray(whole).astype(np.float16).astype(np.float32))
    assert len(keras.models.load_model(out).weights) == len(tiny.weights)


def test_classes_get_other_names(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    own = open_source(str(toy_folder), "test").labels
    saved, names, out = tmp_path / "a.keras", tmp_path / "names.txt", tmp_path / "b.keras"
    build_segformer("tiny", labels=own).save(saved)
    others = [f"{name} anew" for name in reversed(own.names)]
    names.write_text("\n".join(others))
    options = ["export", str(saved), "--format", "keras", "--out", str(out), "--labels"]
    main([*options, str(names)])
    printed = capsys.readouterr()
    assert f"{own.names[0]} -> {others[0]}" in " ".join(printed.out.split())
    assert "in another order" not in printed.err
    assert load_segformer(out).config.labels == Labels(tuple(others), own.colors)
    names.write_text("\n".join(reversed(own.names)))
    main([*options, str(names), "--overwrite"])
    assert "the model's own names in another order" in capsys.readouterr().err
    out.unlink()
    expected = f"in the order of {', '.join(own.names)}. Received: 11"
    for labels, says in (("camvid", expected), ("no.txt", "or a file of names. There is no file no.txt")):
        with pytest.raises(SystemExit):
            main([*options, labels])
        assert says in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    model = build_segformer("tiny", num_classes=2)
    model.decoder.bn.moving_variance.assign(model.decoder.bn.moving_variance + 1e6)
    with pytest.raises(InputError, match=r"moving_variance: holds 1e\+06, float16 ends at 65504"):
        export_keras(model, tmp_path / "out.keras")
    assert not (tmp_path / "out.keras").exists()


def test_terms_travel_with_the_weights_and_are_said_once(
    tiny: SegFormer, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, out = tmp_path / "half.keras", tmp_path / "model.tflite"
    export_keras(
        SegFormer(replace(tiny.config, license="research only", labels=open_source(str(toy_folder), "test").labels)),
        model,
    )
    main(["export", str(model), "--size", "64", "64", "--runtime", "litert", "--out", str(out)])
    main(["info", str(out)])
    assert "research only" in capsys.readouterr().out
    images = str(toy_folder / "test" / "images")
    for arguments in (
        ["predict", str(out), images, "--runtime", "litert", "--out", str(tmp_path / "seen")],
        ["evaluate", str(out), "--data", str(toy_folder), "--runtime", "litert", "--json"],
        ["evaluate", str(model), "--data", str(toy_folder), "--size", "64", "64", "--json"],
    ):
        main(arguments)
        assert capsys.readouterr().err.count("research only") == 1
    main(["export", str(model), "--format", "transformers", "--out", str(tmp_path / "folder")])
    assert read_checkpoint(tmp_path / "folder").config.license == "research only"
    task = Segmentation(replace(SMALL, data=str(toy_folder), weights=model, out=tmp_path / "run"))
    task.open(None)
    task.model().save(tmp_path / "tuned.keras")
    assert load_segformer(tmp_path / "tuned.keras").config.license == "research only"


def test_a_model_of_one_class_is_refused(tmp_path: Path) -> None:
    model = build_segformer("tiny", num_classes=1)
    with pytest.raises(InputError, match="gives that class everywhere"):
        export_tflite(model, tmp_path / "x.tflite", recipe="fp32", size=(64, 64), runtimes=["litert"])
    with pytest.raises(InputError, match="gives that class everywhere"):
        export_transformers(model, tmp_path / "folder", size=(64, 64))
    golden = Path(__file__).parents[1] / "checkpoints" / "golden" / "nvlabs.safetensors"
    with pytest.raises(InputError, match=r"--num-classes must be two or more, background among them. Received: 1"):
        to_keras(read_checkpoint(golden), num_classes=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["fp32", "int8_mixed"])
def test_weights_that_are_no_numbers_are_refused(recipe: str, tmp_path: Path) -> None:
    """Else int8 crashes a runtime, and int8_mixed ends in XNNPACK's own error while it calibrates."""
    model = build_segformer("tiny", num_classes=6)
    kernel = model.weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(InputError, match=f"no numbers, in {kernel.path}"):
        export_tflite(
            model, tmp_path / "x.tflite", recipe=recipe, size=(32, 32), images=[Path("none.png")], runtimes=["litert"]
        )
    assert not list(tmp_path.iterdir())


def test_an_unknown_runtime_is_named_with_those_expected(tiny: SegFormer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipe fp32 is not for other; expected --runtime litert tflite-runtime"):
        export_tflite(tiny, tmp_path / "x.tflite", recipe="fp32", size=(32, 32), runtimes=["other"])


@pytest.mark.parametrize("format", ["openvino", "transformers"])
def test_a_folder_does_not_replace_a_file(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(SystemExit):
        main(["export", "b0", "--num-classes", "2", "--format", format, "--out", str(out), "--overwrite"])
    assert "a file, and --format" in capsys.readouterr().err
    assert out.read_text() == "mine"
