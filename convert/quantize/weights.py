"""Rewrites of a float graph into one of float16 or int8 weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convert.graph.ir import Graph, Op, Tensor
from convert.quantize.integer import CHANNELS, int8_kernel


def float16_weights(graph: Graph) -> Graph:
    """Kernels as float16, which a delegate unpacks once, when it loads."""

    def convert(op: Op) -> list[Op]:
        if op.kind not in CHANNELS:
            return [op]
        kernel = op.inputs[1]
        stored = Tensor(f"{kernel.name}/half", kernel.shape, np.float16, kernel.value.astype(np.float16))
        return _with_unpacked(op, stored)

    return _rewritten(graph, convert)


def int8_weights(graph: Graph) -> Graph:
    """Kernels as int8, one scale per output channel, unpacked once; arithmetic stays in float."""
    return _rewritten(graph, lambda op: _with_unpacked(op, int8_kernel(op)) if op.kind in CHANNELS else [op])


def dynamic_int8(graph: Graph) -> Graph:
    """Convolutions of int8 kernels, for which the runtime quantizes each pixel's float activations as they come.

    Left in float: depthwise convolutions, which no delegate takes in this form; and products over 32 values or fewer,
    and those of 3 channels at most or with a single output, where quantizing costs more than it saves.
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


def _rewritten(graph: Graph, convert: Callable[[Op], list[Op]]) -> Graph:
    return Graph([new for op in graph.ops for new in convert(op)], list(graph.inputs), list(graph.outputs))


def _with_unpacked(op: Op, stored: Tensor) -> list[Op]:
    unpacked = Tensor(op.inputs[1].name, stored.shape)
    convolution = Op(op.kind, [op.inputs[0], unpacked, *op.inputs[2:]], op.output, op.options)
    return [Op("DEQUANTIZE", [stored], unpacked), convolution]
