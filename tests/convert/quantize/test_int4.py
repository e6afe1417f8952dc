"""Kernels in int4: rounding that looks ahead, windows as rows, and how they are stored."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph, Op, Quantization, Tensor, constant
from convert.graph.segformer import network
from convert.quantize.calibrate import run
from convert.quantize.int4 import dynamic_int4, int4_kernel, patches, window_order, worth_int4
from segformer_tf import SegFormer, build_segformer
from segformer_tf.image import Pixels
from segformer_tf.metrics import relative_error


def rows(count: int, width: int) -> np.ndarray:
    """Rows whose values depend on each other, as activations do, and are not 0 on average."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 8)) @ rng.normal(size=(8, width)) + 0.1 * rng.normal(size=(count, width)) + 0.3


def rounded(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    integers, steps = int4_kernel(kernel, (x.T @ x / len(x), x.mean(0)))
    assert integers.min() >= -8
    assert integers.max() <= 7
    return integers * steps[:, None]


def test_rounding_makes_up_for_itself() -> None:
    x, kernel = rows(4000, 130), np.random.default_rng(1).normal(size=(24, 130))
    one_by_one = rounded(kernel, np.sqrt(130) * np.eye(130))
    ahead = rounded(kernel, x)
    losses = [float(np.linalg.norm(x @ (kernel - result).T)) for result in (one_by_one, ahead)]
    assert losses[1] < losses[0] / 2


def test_values_that_do_not_depend_on_each_other_are_rounded_to_the_nearest() -> None:
    kernel = np.random.default_rng(1).normal(size=(24, 130))
    integers, steps = int4_kernel(kernel, (np.diag(np.linspace(1, 2, 130)), np.zeros(130)))
    nearest = np.clip(np.round(kernel / steps[:, None]), -8, 7)
    np.testing.assert_array_equal(integers, nearest)


@pytest.mark.parametrize("dead", ["kernel", "input"])
def test_what_is_zero_does_no_harm(dead: str) -> None:
    x, kernel = rows(500, 20), np.random.default_rng(1).normal(size=(4, 20))
    (kernel if dead == "kernel" else x.T)[2] = 0
    result = rounded(kernel, x)
    assert np.isfinite(result).all()
    assert relative_error((x @ result.T)[None, None], (x @ kernel.T)[None, None]) < 0.1


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (8, 8), (3, 2), (3, 1), (7, 4)])
@pytest.mark.parametrize("image", [(17, 23), (16, 24)])
def test_windows_as_rows_are_the_convolution(size: int, stride: int, image: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    graph = Graph()
    x = graph.binary("ADD", "x", graph.input("image", (1, *image, 3)), rng.normal(size=3))
    kernel, bias = rng.normal(size=(size, size, 3, 5)), rng.normal(size=5)
    expected = graph.conv("expected", x, kernel, bias, stride=stride)
    laid_out = patches(graph, "result", graph.ops[-1])
    matrix = kernel.reshape(size * size, 3, 5)[window_order(size, stride)].reshape(-1, 5).T
    inputs = [laid_out, constant("kernel", matrix), constant("bias", bias)]
    result = graph.add_op("FULLY_CONNECTED", "result", inputs, expected.shape, keepNumDims=True)
    graph.outputs = [expected, result]
    pixels = rng.integers(0, 256, (*image, 3), np.uint8)
    (values,) = run(graph, [pixels])
    assert values["result"].shape == expected.shape
    assert relative_error(values["result"], values["expected"]) < 1e-6


def test_two_values_share_a_byte() -> None:
    graph, values = Graph(), np.arange(-8, 7).reshape(1, 1, 3, 5)
    image = graph.input("image", (1, 1, 3, 5))
    step = Quantization(np.array([0.5], np.float32), np.array([0]))
    stored = Tensor("stored", values.shape, ml_dtypes.int4, values.astype(ml_dtypes.int4), step)
    unpacked = Tensor("unpacked", values.shape)
    graph.ops.append(Op("DEQUANTIZE", [stored], unpacked))
    graph.outputs = [graph.binary("ADD", "sum", image, unpacked)]
    (result,) = run(graph, [np.zeros((1, 3, 5), np.uint8)])
    np.testing.assert_array_equal(result["sum"], values / 2)
    assert to_tflite(graph).count(bytes([0x98, 0xBA, 0xDC, 0xFE, 0x10, 0x32, 0x54, 0x06])) == 1


def test_the_graph_keeps_its_function(tiny: SegFormer) -> None:
    size = (97, 161)
    images: list[Pixels] = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i in range(4)]
    graph = network(tiny, size)
    expected, result = (
        np.stack([values["logits"] for values in run(each, images[3:])])
        for each in (graph, dynamic_int4(graph, images[:3]))
    )
    assert 1e-3 < relative_error(result, expected) < 0.1


def test_int4_is_where_litert_takes_it() -> None:
    graph = network(build_segformer("b0", num_classes=150), (64, 96))
    convolutions = [op for op in graph.ops if op.kind == "CONV_2D"]
    left = {op.output.name for op in convolutions if not worth_int4(op)}
    assert {"stage1/patch_embed/proj", "stage2/patch_embed/proj", "stage3/patch_embed/proj"} <= left
    assert not {"stage4/patch_embed/proj", "stage1/block0/attn/sr", "stage4/block0/mlp", "decoder/c4", "logits"} & left
    values = sum(op.inputs[1].value.size for op in convolutions)
    assert sum(op.inputs[1].value.size for op in convolutions if worth_int4(op)) > 0.95 * values


def test_inputs_that_the_images_leave_at_0_keep_their_kernel() -> None:
    kernel = np.random.default_rng(0).normal(size=(8, 16))
    stored, steps = int4_kernel(kernel, (np.zeros((16, 16)), np.zeros(16)))
    assert np.abs(stored * steps[:, None] - kernel).max() < 0.6 * steps.max()  # rounded, and none cut to half
