"""Files on LiteRT's GPU delegate, on whatever Vulkan device there is: `make test-gpu-delegate` for all of them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segformer_tf.edge.gpu as gpu_module
from convert.export import export_tflite
from convert.exported import run_on
from convert.graph import segformer as network
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph, Op, Tensor, constant
from convert.quantize.recipes import RECIPES
from convert.sample_images import synthetic_images
from segformer_tf import SegFormer, build_segformer, load_segformer
from segformer_tf.cli import main
from segformer_tf.edge import Segmenter, fit_image, list_images, load_image, logits_to_mask, read_model_info
from segformer_tf.edge.doctor.delegates import DELEGATES
from segformer_tf.edge.doctor.diagnosis import diagnose
from segformer_tf.edge.gpu import GpuInterpreter, find_gpu, require_gpu
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.runtime import GPU, choose_runtime, open_interpreter, runtime_version
from segformer_tf.edge.tflite.operations import read_operations
from segformer_tf.errors import InputError
from segformer_tf.metrics import relative_error
from tests.helpers import perturb

ROOT = Path(__file__).parents[2]
TAKEN = [name for name, recipe in RECIPES.items() if GPU not in recipe.refused]
ROUNDING = ("dynamic_int8", "dynamic_int4", "int8", "int8_mixed")


@pytest.fixture(scope="module", autouse=True)
def _device(request: pytest.FixtureRequest) -> None:
    if find_gpu() is None:
        pytest.skip("needs a Vulkan device: a GPU's driver, or SwiftShader (apt-get install chromium libvulkan1)")


def check(recipe: str, gpu: np.ndarray, cpu: np.ndarray, keras: np.ndarray) -> None:
    """Float recipes give the CPU's logits. Integer ones round on both, each in its own way, and one step more or less
    at the start makes others all the way down. What is asked is that the GPU comes as near to Keras as the CPU does."""
    if recipe not in ROUNDING:
        assert relative_error(gpu, cpu) <= 1e-4
        assert same_class(gpu, cpu) >= 0.999
    assert relative_error(gpu, keras) <= 1.3 * relative_error(cpu, keras) + 1e-5
    assert same_class(gpu, keras) >= same_class(cpu, keras) - 0.02


def same_class(logits: np.ndarray, others: np.ndarray) -> float:
    return float((logits.argmax(-1) == others.argmax(-1)).mean())


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_the_gpu_gives_the_cpus_logits(tiny: SegFormer, tiny_files: dict, recipe: str) -> None:
    pixels = synthetic_images((97, 161), 1)
    gpu, cpu = (run_on(tiny_files[recipe], pixels, runtime=runtime) for runtime in (GPU, "litert"))
    check(recipe, gpu, cpu, np.concatenate([tiny.logits(image[None]) for image in pixels]))


def test_a_class_map_is_right_there_and_the_segmenter_uses_it(tiny: SegFormer, tmp_path: Path) -> None:
    out = tmp_path / "mapped.tflite"
    exported = export_tflite(
        tiny, out, recipe="fp32", size=(64, 96), runtimes=["litert", GPU], class_map=True
    )  # compares the map as well
    assert exported.verdicts[1].agreement == 1.0
    assert require_gpu().name in read_model_info(out).created["verified"][1]
    (photo,) = synthetic_images((120, 200), 1)
    here, there = (Segmenter(out, runtime=runtime) for runtime in ("litert", GPU))
    assert (here(photo).mask == there(photo).mask).mean() > 0.999
    assert (here.said, there.said) == ("", f"litert-gpu {runtime_version(GPU)}")
    assert there.recipe == "fp32"


def test_a_class_map_of_negative_logits_is_right_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros fill a GPU's channels up to four; they must not win, in our files or in another's."""
    model = perturb(build_segformer("tiny", num_classes=5))
    bias = model.decoder.linear_pred.bias
    bias.assign(bias - 50.0)
    options: dict[str, Any] = {"size": (64, 96), "runtimes": ["litert", GPU], "class_map": True}
    export_tflite(model, tmp_path / "ours.tflite", recipe="fp32", **options)
    monkeypatch.setattr("convert.graph.class_map._whole_vectors", lambda graph, logits: logits)
    with pytest.raises(InputError, match=r"ARG_MAX gives class [567], expected 0 to 4"):
        export_tflite(model, tmp_path / "without.tflite", recipe="fp32", **options)


def broadcasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1's attention with the rows of the image as batches, as this project once wrote it."""

    def matmul(self: Graph, name: str, x: Tensor, y: Tensor) -> Tensor:
        return self.add_op("BATCH_MATMUL", name, [x, y], (*x.shape[:-1], y.shape[-1]))

    rows = network._Writer._rows
    monkeypatch.setattr(Graph, "matmul", matmul)
    monkeypatch.setattr(
        network._Writer, "_rows", lambda s, name, x, h: x if h == 1 and name[-1] == "q" else rows(s, name, x, h)
    )


def test_a_broadcast_product_is_refused_and_warned_of(
    tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    broadcasting(monkeypatch)
    out = tmp_path / "x.tflite"
    with pytest.raises(InputError, match=r"litert-gpu is wrong: \d+% off the CPU's result; nothing was written"):
        export_tflite(tiny, out, recipe="fp32", size=(64, 96), runtimes=["litert", GPU])
    assert list(tmp_path.iterdir()) == []
    tiny.save(tmp_path / "model.keras")
    main(["export", str(tmp_path / "model.keras"), "--size", "64", "96", "--out", str(out)])
    assert "warning, kept in the file: not for litert-gpu: litert-gpu is wrong" in capsys.readouterr().err
    assert "not for litert-gpu" in read_model_info(out).created["warning"]
    verified = read_model_info(out).created["verified"]
    assert not any(GPU in name for name in verified)
    assert any(name.startswith("litert 2") for name in verified)  # right there
    main(["doctor", str(out), "--delegate", GPU])
    assert "wrong there: it takes BATCH_MATMUL and computes other numbers" in capsys.readouterr().out
    main(["info", str(out)])
    assert "not for litert-gpu" in capsys.readouterr().out
    with pytest.raises(InputError, match="litert-gpu is wrong"):
        Segmenter(out, runtime=GPU)(np.zeros((64, 96, 3), np.uint8))
    monkeypatch.setattr("convert.export.find_gpu", lambda: True)  # a device that is gone when it is used
    monkeypatch.setattr(gpu_module, "require_gpu", gone)
    monkeypatch.setattr("segformer_tf.edge.runtime.require_gpu", gone)
    main(["export", str(tmp_path / "model.keras"), "--size", "64", "96", "--out", str(tmp_path / "y.tflite")])
    assert "not tried on the GPU: litert-gpu: gone" in capsys.readouterr().err
    assert "warning" not in read_model_info(tmp_path / "y.tflite").created


def gone() -> None:
    raise InputError("litert-gpu: gone")


@pytest.mark.parametrize("recipe", ["int8_io", "w8a16"])
def test_a_recipe_that_it_does_not_take_is_refused_by_name(
    tiny: SegFormer, tiny_files: dict, toy_folder: Path, tmp_path: Path, recipe: str
) -> None:
    images = list_images([toy_folder / "train" / "images"])
    with pytest.raises(
        InputError, match=f"recipe {recipe} is not for litert-gpu: .* int16, which the GPU delegate does"
    ):
        export_tflite(tiny, tmp_path / "x.tflite", recipe=recipe, size=(64, 96), images=images, runtimes=[GPU])
    with pytest.raises(InputError, match=r"litert-gpu does not take it whole \(.*INT16\) is not supported"):
        IsolatedModel(tiny_files[recipe], runtime=GPU)


def test_a_result_of_the_cpu_is_no_result_of_the_gpu(tiny_files: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert.compiled_model import CompiledModel

    path = tiny_files["weight_int8"]
    monkeypatch.setenv("SEGFORMER_TF_GPU", "none")
    monkeypatch.setattr(
        gpu_module, "compile_on_gpu", lambda path, **_: (CompiledModel.from_file(str(path)), "a CPU in disguise")
    )
    interpreter = GpuInterpreter(path, lambda: open_interpreter(path, runtime="litert"))
    with pytest.raises(InputError, match="gives the CPU's result bit by bit: the GPU was not used"):
        interpreter.invoke()


def test_without_a_device_it_is_said(tiny_files: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="litert-gpu runs in a process of its own"):
        open_interpreter(tiny_files["fp32"], runtime=GPU)
    nowhere = dict.fromkeys(("VK_ICD_FILENAMES", "VK_DRIVER_FILES"), str(tmp_path / "none.json"))
    code = "from segformer_tf.edge.runtime import choose_runtime; choose_runtime('litert-gpu')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **nowhere}, capture_output=True, text=True, check=False
    )
    assert "InputError: litert-gpu: no Vulkan device was found" in done.stderr
    assert choose_runtime(GPU) == GPU


def test_benchmark_and_evaluate_use_it(
    tiny_files: dict, toy_folder: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    file = str(tiny_files["fp32"])
    main(
        [
            "benchmark",
            file,
            "--runtime",
            "litert",
            GPU,
            "--repeats",
            "1",
            "--warm-up",
            "0",
            "--csv",
            str(tmp_path / "b"),
        ]
    )
    gpu_row = (tmp_path / "b").read_text().splitlines()[-1]
    assert require_gpu().name in gpu_row
    scores = []
    for runtime in ("litert", GPU):
        main(["evaluate", file, "--data", str(toy_folder), "--runtime", runtime, "--json"])
        output = capsys.readouterr()
        scores.append(json.loads(output.out[output.out.index("{") :])["pixel_accuracy"])
        assert (require_gpu().name in output.err) == (runtime == GPU)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def padded(path: Path) -> Path:
    graph = Graph()
    values, wide = Tensor("values", (1, 4, 6, 4), np.int32), Tensor("wide", (1, 6, 8, 4), np.int32)
    sides = constant("sides", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    graph.outputs = [Tensor("y", wide.shape)]
    graph.ops.append(Op("CAST", [graph.input("x", values.shape)], values, {}))
    graph.ops.append(Op("PAD", [values, sides], wide, {}))
    graph.ops.append(Op("CAST", [wide], graph.outputs[0], {}))
    path.write_bytes(to_tflite(graph))
    return path


def test_integers_that_are_padded_are_wrong_there_and_doctor_says_so(tmp_path: Path) -> None:
    path = padded(tmp_path / "x.tflite")
    pictures = np.random.default_rng(0).integers(-50, 100, (1, 1, 4, 6, 4)).astype(np.float32)
    with pytest.raises(AssertionError, match="litert-gpu is wrong: 100% off the CPU's result"):
        on_gpu(path, pictures, enforce_f32=True, tmp_path=tmp_path)
    (gpu,) = (delegate for delegate in DELEGATES if delegate.name == GPU)
    assert "wrong there: it takes PAD" in diagnose(read_operations(path), gpu).sentence


@functools.cache
def model_of(name: str) -> SegFormer:
    if name == "camvid":
        return load_segformer(ROOT / "models" / "camvid_b0.keras")
    variant, decoder = name.split("-") if "-" in name else (name, "all_mlp")
    return perturb(build_segformer(variant, num_classes=11, decoder=decoder))


def on_gpu(path: Path, pictures: np.ndarray, *, enforce_f32: bool, tmp_path: Path) -> list[Any]:
    """Every output of a file for all pictures, in one precision, from a process of its own."""
    np.save(tmp_path / "pictures.npy", pictures)
    code = f"""
import sys, numpy as np
from segformer_tf.edge.gpu import GpuInterpreter
from segformer_tf.edge.runtime import open_interpreter
path, pictures, out = sys.argv[1:]
model = GpuInterpreter(path, lambda: open_interpreter(path, runtime="litert"), enforce_f32={enforce_f32})
results = []
for picture in np.load(pictures):
    model.tensor(model.get_input_details()[0]["index"])()[:] = picture
    model.invoke()
    results.append([model.get_tensor(t["index"]) for t in model.get_output_details()])
np.savez(out, *map(np.concatenate, zip(*results)))
"""
    arguments = [str(path), str(tmp_path / "pictures.npy"), str(tmp_path / "out.npz")]
    environment = {**os.environ, **require_gpu().environment}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with np.load(tmp_path / "out.npz") as results:
        return list(results.values())


@pytest.mark.gpu_delegate
@pytest.mark.parametrize("class_map", [False, True], ids=["logits", "class map"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (97, 161)], ids=str)
@pytest.mark.parametrize("model", ["tiny", "tiny-mmseg", "b0", "camvid"])
@pytest.mark.parametrize("recipe", TAKEN)
def test_every_recipe(
    recipe: str, model: str, size: tuple[int, int], class_map: bool, toy_folder: Path, tmp_path: Path
) -> None:
    out, images = tmp_path / "file.tflite", list_images([toy_folder / "train" / "images"])
    export_tflite(
        model_of(model), out, recipe=recipe, size=size, images=images, runtimes=["litert"], class_map=class_map
    )
    count = -(-1000 * 16 // (size[0] * size[1]))  # a share of fewer pixels says little
    pictures = np.stack([fit_image(load_image(path), size) for path in images[:count]])
    keras = np.concatenate([model_of(model).logits(each[None]) for each in pictures])
    logits = run_on(out, list(pictures), runtime="litert")
    for enforce_f32 in (True, False):
        results = on_gpu(out, pictures, enforce_f32=enforce_f32, tmp_path=tmp_path)
        theirs = next(each for each in results if each.dtype == np.float32)
        check(recipe, theirs, logits, keras)
        if model == "camvid" and recipe in ROUNDING:  # trained weights: the difference that the README states
            assert relative_error(theirs, logits) <= 0.05
            assert same_class(theirs, logits) >= 0.96
        if class_map:
            maps = next(each for each in results if each.dtype == np.uint8)
            same = [ids == logits_to_mask(each, size) for ids, each in zip(maps, theirs, strict=True)]
            assert np.mean(same) >= 0.999
