"""Rewrites of a float graph into one of float16 or int8 weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from convert.graph.ir import Graph, Op, Tensor
from convert.quantize.integer import CHANNELS, int8_kernel


def float16_weights(graph: Graph) -> Graph:
    """Kernels as float16, which a delegate unpacks once, when it loads."""

    def half(op: Op) -> Tensor:
        kernel = op.inputs[1]
        return Tensor(f"{kernel.name}/half", kernel.shape, np.float16, kernel.value.astype(np.float16))

    return _stored(graph, half)


def int8_weights(graph: Graph) -> Graph:
    """Kernels as int8, one scale per output channel, unpacked once; arithmetic stays in float."""
    return _stored(graph, int8_kernel)


def dynamic_int8(graph: Graph) -> Graph:
    """Convolutions of int8 kernels, for which the runtime quantizes each pixel's float activations as they come.

    Left in float: depthwise convolutions, which no delegate takes in this form; and products over 32 values or fewer,
    and those of 3 channels at most or with a single output, where quantizing costs more than it saves.
    """
    return replace(
        graph, ops=[dynamic_kernel(op) if op.kind == "CONV_2D" and pays_dynamic(op) else op for op in graph.ops]
    )


def dynamic_kernel(op: Op) -> Op:
    """The convolution with an int8 kernel."""
    return _with_kernel(op, int8_kernel(op))


def pays_dynamic(op: Op) -> bool:
    """Whether `dynamic_int8` takes a convolution."""
    out, height, width, channels = op.inputs[1].shape
    return out > 1 and channels > 3 and height * width * channels > 32


def unpacked_int8(op: Op) -> list[Op]:
    """The operation, and before a convolution one that unpacks its int8 kernel."""
    return _unpacked(op, int8_kernel)


def _stored(graph: Graph, kernel_of: Callable[[Op], Tensor]) -> Graph:
    """Kernels as they are stored by `kernel_of`, and an operation that unpacks each."""
    return replace(graph, ops=[new for op in graph.ops for new in _unpacked(op, kernel_of)])


def _unpacked(op: Op, kernel_of: Callable[[Op], Tensor]) -> list[Op]:
    if op.kind not in CHANNELS:
        return [op]
    unpacked = Tensor(op.inputs[1].name, op.inputs[1].shape)
    return [Op("DEQUANTIZE", [kernel_of(op)], unpacked), _with_kernel(op, unpacked)]


def _with_kernel(op: Op, kernel: Tensor) -> Op:
    return replace(op, inputs=[op.inputs[0], kernel, *op.inputs[2:]])
