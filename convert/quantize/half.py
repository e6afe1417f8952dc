"""Rewrites a float graph so that its norms can be computed in float16.

Float16 ends at 65504, and XNNPACK tells ARM processors to take what is below 2^-14 for 0. A norm squares its input x,
and adds an epsilon of 1e-6: large values overflow, and where all of x is small it divides by 0. So every x is brought
to a range of its own, by a power of two that goes into the convolutions which write it, and into epsilon:
``x / sqrt(mean(x²) + ε)`` is ``sx / sqrt(mean((sx)²) + s²ε)``, but for the last bits of a root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, log2

import numpy as np

from convert.graph.ir import Graph, Op, Tensor
from convert.quantize.calibrate import ranges
from segformer_tf.image import Pixels

# A metadata entry, by its name: XNNPACK may compute in float16, sums included, where the processor has it.
FLOAT16_ENTRY = {"reduced_precision_support": b"fp16accfp16"}

LARGEST = 64.0  # of |sx| on the images: four times that still has a square that fits
SMALLEST_EPSILON = 2.0**-14  # the smallest number that is not taken for 0
_LARGEST_EXPONENT = 10  # of s, for a network whose norms see next to nothing on the images


@dataclass(frozen=True)
class Group:
    """Norms that share a scale, because sums join what they read.

    Attributes:
        inputs: what each norm reads.
        tensors: these, and all that is added up or moved about to make them: all scale with them.
    """

    inputs: list[Tensor]
    tensors: set[Tensor]


def fit_float16(graph: Graph, images: Sequence[Pixels]) -> Graph:
    """The same function in float32, with norms that stay within float16 on `images`, with room to spare.

    It is the same but for epsilon, which is `SMALLEST_EPSILON` at least: norms of a variance that is smaller still, in
    units of the scaled input, give less than they should, and not infinity.
    """
    groups = norm_groups(graph)
    limits = ranges(graph, [tensor.name for group in groups for tensor in group.inputs], images)
    scales: dict[Tensor, float] = {}
    for group in groups:
        largest = max(max(-low, high) for low, high in (limits[tensor.name] for tensor in group.inputs))
        exponent = floor(log2(LARGEST / largest)) if largest else 0
        scales.update(dict.fromkeys(group.tensors, 2.0 ** min(exponent, _LARGEST_EXPONENT)))
    return scaled_norms(graph, scales)


def scaled_norms(graph: Graph, scales: dict[Tensor, float]) -> Graph:
    """The graph with every tensor of `scales` multiplied by its scale; those of one group share one."""
    squared = {op.output: op.inputs[0] for op in graph.ops if _squares(op)}
    means = {op.output: squared[op.inputs[0]] for op in graph.ops if op.inputs[0] in squared}
    ops = []
    for op in graph.ops:
        scale = scales.get(op.output, 1.0)
        if op.kind == "CONV_2D" and scale != 1:
            op = replace(op, inputs=[op.inputs[0], *(_times(constant, scale) for constant in op.inputs[1:])])
        if op.output in means and op.kind == "CONV_2D":  # the form for tflite-runtime: epsilon is the mean's bias
            op = replace(op, inputs=[*op.inputs[:2], _epsilon(op.inputs[2], scales[means[op.output]])])
        elif op.inputs[0] in means and op.kind == "ADD":
            op = replace(op, inputs=[op.inputs[0], _epsilon(op.inputs[1], scales[means[op.inputs[0]]])])
        ops.append(op)
    return replace(graph, ops=ops)


def norm_groups(graph: Graph) -> list[Group]:
    """The norms of a graph in groups, from the last one back."""
    writer = {op.output: op for op in graph.ops}
    readers = defaultdict(list)
    for op in graph.ops:
        for tensor in op.inputs:
            readers[tensor].append(op)
    groups: list[Group] = []
    for op in reversed(graph.ops):
        # GELU in the form for tflite-runtime squares its input too, but takes no mean.
        if not _squares(op) or {reader.kind for reader in readers[op.output]} - {"MEAN", "CONV_2D"}:
            continue
        x = op.inputs[0]
        group = next((group for group in groups if x in group.tensors), None)
        if group is None:
            groups.append(group := Group([], set()))
            queue = [x]
            while queue:
                tensor = queue.pop()
                if tensor not in group.tensors:
                    group.tensors.add(tensor)
                    queue += _scaled_with(writer[tensor])
        group.inputs.append(x)
    return groups


def _squares(op: Op) -> bool:
    return op.kind == "MUL" and op.inputs[0] is op.inputs[1]


def _scaled_with(op: Op) -> list[Tensor]:
    """The operands that are to be multiplied for the output to be."""
    match op.kind:
        case "CONV_2D":  # its kernel and bias are
            return []
        case "ADD":
            return op.inputs
        case "RESHAPE":
            return op.inputs[:1]
        case "BATCH_MATMUL":  # the values; the weights, on the left, are a softmax
            return op.inputs[1:]
    raise AssertionError(f"{op.output.name}: {op.kind} before a norm")


def _times(constant: Tensor, scale: float) -> Tensor:
    return replace(constant, data=constant.value * np.float32(scale))


def _epsilon(constant: Tensor, scale: float) -> Tensor:
    return replace(constant, data=np.maximum(constant.value * np.float32(scale**2), np.float32(SMALLEST_EPSILON)))
