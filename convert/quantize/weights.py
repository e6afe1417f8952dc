"""Rewrites of a float graph into one of float16 or int8 weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convert.graph.ir import Graph, Op, Quantization, Tensor

CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # axis of the output channels in a kernel


def half(graph: Graph) -> Graph:
    """Kernels as float16, which a delegate unpacks once, when it loads."""

    def convert(op: Op) -> list[Op]:
        if op.kind not in CHANNELS:
            return [op]
        kernel = op.inputs[1]
        stored = Tensor(f"{kernel.name}/half", kernel.shape, np.float16, kernel.value.astype(np.float16))
        return _with_unpacked(op, stored)

    return _rewritten(graph, convert)


def weight_int8(graph: Graph) -> Graph:
    """Kernels as int8, one scale an output channel, unpacked once; arithmetic stays in float."""
    return _rewritten(graph, lambda op: _with_unpacked(op, int8_kernel(op)) if op.kind in CHANNELS else [op])


def dynamic_int8(graph: Graph) -> Graph:
    """Convolutions of int8 kernels, for which the runtime quantises each pixel's float activations as they come.

    Left in float: depthwise convolutions, which no delegate takes so; and products over 32 values or fewer, and those
    of 3 channels at most or with a single output, where quantising costs more than it saves.
    """

    def convert(op: Op) -> list[Op]:
        if op.kind != "CONV_2D" or not pays_dynamic(op):
            return [op]
        return [Op(op.kind, [op.inputs[0], int8_kernel(op), *op.inputs[2:]], op.output, op.options)]

    return _rewritten(graph, convert)


def pays_dynamic(op: Op) -> bool:
    """Whether `dynamic_int8` takes a convolution."""
    out, height, width, channels = op.inputs[1].shape
    return out > 1 and channels > 3 and height * width * channels > 32


def int8_kernel(op: Op, *, least: np.ndarray | float = 0.0) -> Tensor:
    """The kernel of a convolution, symmetric, -127..127, one scale an output channel, `least` at the least."""
    kernel, axis = op.inputs[1], CHANNELS[op.kind]
    data = kernel.value.astype(np.float64)
    scale = np.maximum(np.abs(data).max(tuple(i for i in range(4) if i != axis), keepdims=True), 1e-12) / 127
    scale = np.maximum(scale.ravel(), least).reshape(scale.shape)
    stored = np.clip(np.round(data / scale), -127, 127).astype(np.int8)
    quantization = Quantization(scale.ravel().astype(np.float32), np.zeros(scale.size, np.int64), axis)
    return Tensor(f"{kernel.name}/int8", kernel.shape, np.int8, stored, quantization)


def _rewritten(graph: Graph, convert: Callable[[Op], list[Op]]) -> Graph:
    made = Graph()
    made.inputs, made.outputs = graph.inputs, graph.outputs
    made.ops = [new for op in graph.ops for new in convert(op)]
    return made


def _with_unpacked(op: Op, stored: Tensor) -> list[Op]:
    unpacked = Tensor(op.inputs[1].name, stored.shape)
    used = Op(op.kind, [op.inputs[0], unpacked, *op.inputs[2:]], op.output, op.options)
    return [Op("DEQUANTIZE", [stored], unpacked), used]
