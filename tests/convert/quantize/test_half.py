"""Norms that fit float16, and files that ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convert.export import export_tflite
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph
from convert.graph.segformer import network
from convert.quantize.calibrate import ranges, run
from convert.quantize.half import LARGEST, SMALLEST_EPSILON, fit_float16, norm_groups, scaled_norms
from convert.sample_images import synthetic_images
from segformer_tf import SegFormer, build_segformer
from segformer_tf.edge import open_interpreter
from segformer_tf.edge.compiled import HALF
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels
from segformer_tf.metrics import relative_error
from tests.helpers import perturb

FORMS = ("litert", "tflite-runtime")


def logits(graph: Graph, images: list[Pixels]) -> np.ndarray:
    return np.stack([values["logits"] for values in run(graph, images)])


@pytest.fixture(scope="module")
def loud() -> SegFormer:
    """A network whose reductions give values in the hundreds: their squares are beyond float16."""
    model = perturb(build_segformer("tiny", num_classes=6))
    sr = model.encoder.stages[0].blocks[0].attn.sr
    sr.kernel.assign(sr.kernel * 300.0)
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(97, 161), (64, 96)])
def test_scaled_norms_are_the_same_function(tiny: SegFormer, size: tuple[int, int], form: str) -> None:
    graph, images = network(tiny, size, runtime=form), synthetic_images(size, 2)
    groups = norm_groups(graph)
    assert sum(len(group.inputs) for group in groups) == sum(op.kind in ("RSQRT", "SQRT") for op in graph.ops)
    # Each group has another scale, and none takes epsilon below its floor.
    scales = {tensor: 2.0 ** (3 + i % 5) for i, group in enumerate(groups) for tensor in group.tensors}
    result = scaled_norms(graph, scales)
    assert relative_error(logits(result, images), logits(graph, images)) < 1e-6
    # A group is what has to be scaled together: one of its tensors alone gives another function.
    stream = max(groups, key=lambda group: len(group.tensors))
    part = next(op.output for op in graph.ops if op.kind == "CONV_2D" and op.output in stream.tensors)
    unscaled = {tensor: 1.0 for group in groups for tensor in group.tensors}
    result = scaled_norms(graph, {**unscaled, part: 8.0})
    assert relative_error(logits(result, images), logits(graph, images)) > 1e-2


@pytest.mark.parametrize("form", FORMS)
def test_norms_are_fitted_to_the_images(loud: SegFormer, form: str) -> None:
    graph, images = network(loud, (64, 96), runtime=form), synthetic_images((64, 96), 2)
    names = [tensor.name for group in norm_groups(graph) for tensor in group.inputs]
    before, fitted = ranges(graph, names, images), fit_float16(graph, images)
    assert max(high for _, high in before.values()) > 256  # whose square is beyond float16
    after = ranges(fitted, names, images)
    for group in norm_groups(fitted):
        assert LARGEST / 2 < max(max(map(abs, after[tensor.name])) for tensor in group.inputs) <= LARGEST
    epsilons = [
        float(op.inputs[-1].value[0] if op.inputs[-1].shape else op.inputs[-1].value)
        for op in fitted.ops
        if op.output.name.endswith("/epsilon" if form == "litert" else "/variance")
    ]
    assert epsilons
    assert min(epsilons) >= SMALLEST_EPSILON
    assert relative_error(logits(fitted, images), logits(graph, images)) < 1e-4


def test_float16_overflows_without_it(loud: SegFormer, tmp_path: Path) -> None:
    """In the form for tflite-runtime: LiteRT's own norm adds up its squares in float32."""
    (image,) = synthetic_images((64, 96), 1)
    graph = network(loud, (64, 96), runtime="tflite-runtime")
    results = {}
    for name, each in {"as it is": graph, "fitted": fit_float16(graph, [image])}.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(to_tflite(each))
        interpreter = open_interpreter(path, runtime=HALF, threads=1, intact=True)
        interpreter.tensor(interpreter.get_input_details()[0]["index"])()[:] = image
        try:
            interpreter.invoke()
        except InputError as error:
            results[name] = str(error)
            continue
        results[name] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    assert "litert-fp16 is wrong: " in results["as it is"]
    assert 1e-6 < relative_error(results["fitted"][None], logits(graph, [image])) < 5e-3


def test_the_file_asks_for_float16(tiny_files: dict, tmp_path: Path, tiny: SegFormer) -> None:
    def entries(recipe: str) -> dict[str, bytes]:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tiny_files[recipe].read_bytes()))
        return {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}

    assert entries("fp16_compute")["reduced_precision_support"] == b"fp16accfp16"
    assert entries("fp16_compute").keys() - entries("fp16").keys() == {"reduced_precision_support"}
    exported = export_tflite(tiny, tmp_path / "x.tflite", recipe="fp16_compute", size=(64, 96), runtimes=["litert"])
    first, second = exported.verdicts
    assert (first.runtime.split()[0], second.runtime.split()[0]) == ("litert", HALF)
    assert first.error != second.error
