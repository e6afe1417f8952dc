"""Rewrites of a float graph into integer arithmetic, whole or in part, by ranges measured beforehand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from convert.graph.ir import Graph, Op, Quantization, Tensor

Ranges = Mapping[str, tuple[float, float]]  # smallest and largest value of a tensor, by its name
Choice = Callable[[Op], bool]

CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # axis of the output channels in a kernel
# Their output holds their input's values, so it has its scale too.
_MOVES = ("RESHAPE", "TRANSPOSE", "PAD", "RESIZE_BILINEAR")


def quantize(graph: Graph, ranges: Ranges, choose: Choice, *, bits: int = 8) -> Graph:
    """The operations that `choose` takes, in integer arithmetic; QUANTIZE and DEQUANTIZE where they meet float.

    Kernels are int8, one scale per output channel. Activations are int8 (asymmetric; the right side of a matrix product
    never by chance symmetric, see `_right_sides`) or int16 (symmetric).

    Args:
        graph: float graph.
        ranges: of every tensor in `tensors_to_calibrate`.
        choose: whether an operation is computed in integers.
        bits: of activations, 8 or 16.

    Returns:
        A graph whose inputs and outputs are still float: see `uint8_input` and `integer_ends`.
    """
    rewriter = _Rewriter(graph, ranges, bits)
    for op in graph.ops:
        if choose(op):
            rewriter.in_integers(op)
        else:
            rewriter.in_float(op)
    rewriter.result.outputs = [rewriter.as_float(tensor) for tensor in graph.outputs]
    return rewriter.result


def tensors_to_calibrate(graph: Graph, choose: Choice) -> list[str]:
    """Names of the tensors whose ranges `quantize` needs."""
    ranges: Ranges = defaultdict(lambda: (-1.0, 1.0))  # which keeps the names that were looked up
    quantize(graph, ranges, choose)
    return list(ranges)


class _Rewriter:
    """The new graph, and its counterparts of each of the float graph's tensors, in float and as an integer."""

    def __init__(self, graph: Graph, ranges: Ranges, bits: int) -> None:
        self.result = Graph(inputs=list(graph.inputs))
        self._ranges, self._bits = ranges, bits
        self._float = {tensor: tensor for tensor in graph.inputs}
        self._integer: dict[Tensor, Tensor] = {}
        self._right_sides = _right_sides(graph)

    def in_float(self, op: Op) -> None:
        inputs = [self.as_float(tensor) if tensor.data is None else tensor for tensor in op.inputs]
        self._float[op.output] = Tensor(op.output.name, op.output.shape)
        self.result.ops.append(Op(op.kind, inputs, self._float[op.output], op.options))

    def in_integers(self, op: Op) -> None:
        first = self.as_integer(op.inputs[0])
        if op.kind in CHANNELS:
            # A bias is an int32 in steps of both scales' product: where a kernel is near 0, it would overflow.
            least = np.abs(op.inputs[2].value.astype(np.float64)) / (_scale(first) * 2**30)
            kernel = int8_kernel(op, least=least)
            inputs = [first, kernel, self._bias(op.inputs[2], first, kernel)]
        else:
            inputs = [first, *(t if t.dtype == np.int32 else self.as_integer(t) for t in op.inputs[1:])]
        if op.kind == "SOFTMAX":
            self._integer[op.output] = self._softmax(op, inputs)
            return
        if op.kind in _MOVES:
            output = Tensor(f"{op.output.name}/integer", op.output.shape, first.dtype, None, first.quantization)
        else:
            output = self._new(op.output)
        self._integer[op.output] = output
        self.result.ops.append(Op(op.kind, inputs, output, op.options))

    def as_float(self, tensor: Tensor) -> Tensor:
        if tensor not in self._float:
            self._float[tensor] = Tensor(tensor.name, tensor.shape)
            self.result.ops.append(Op("DEQUANTIZE", [self._integer[tensor]], self._float[tensor]))
        return self._float[tensor]

    def as_integer(self, tensor: Tensor) -> Tensor:
        if tensor.data is not None:
            limits = float(tensor.data.min()), float(tensor.data.max())
            typed = self._typed(tensor.name, tensor, limits, right_side=False)
            return replace(typed, data=_stored(tensor.data, typed))
        if tensor not in self._integer:
            self._integer[tensor] = self._new(tensor)
            self.result.ops.append(Op("QUANTIZE", [self._float[tensor]], self._integer[tensor]))
        return self._integer[tensor]

    def _new(self, tensor: Tensor) -> Tensor:
        limits = self._ranges[tensor.name]
        return self._typed(f"{tensor.name}/integer", tensor, limits, right_side=tensor in self._right_sides)

    def _typed(self, name: str, tensor: Tensor, limits: tuple[float, float], *, right_side: bool) -> Tensor:
        lowest, highest = min(limits[0], 0.0), max(limits[1], 0.0)
        if self._bits == 16:
            scale, zero = max(-lowest, highest, 1e-9) / (2**15 - 1), 0
        else:
            scale = max(highest - lowest, 1e-9) / 255
            zero = int(np.clip(round(-128 - lowest / scale), -128, 127))
            if right_side and zero == 0:
                scale, zero = max(scale, highest / 126), 1
        dtype = np.int16 if self._bits == 16 else np.int8
        return Tensor(name, tensor.shape, dtype, None, Quantization(np.array([scale], np.float32), np.array([zero])))

    def _softmax(self, op: Op, inputs: list[Tensor]) -> Tensor:
        """TFLite fixes a softmax' int8 step at 1/256, which loses most of a few hundred weights that sum to 1.

        So it gives int16, which is then brought to 8 bits of the weights' own range.
        """
        step, zero = (2.0**-16, -(2**15)) if self._bits == 8 else (2.0**-15, 0)
        fine = Quantization(np.array([step], np.float32), np.array([zero]))
        raw = Tensor(f"{op.output.name}/int16", op.output.shape, np.int16, None, fine)
        self.result.ops.append(Op(op.kind, inputs, raw, op.options))
        if self._bits == 16:
            return raw
        output = self._new(op.output)
        self.result.ops.append(Op("QUANTIZE", [raw], output))
        return output

    def _bias(self, bias: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
        assert kernel.quantization is not None
        scale = _scale(x) * kernel.quantization.scale.astype(np.float64)
        dtype = np.int32 if self._bits == 8 else np.int64
        quantization = Quantization(scale.astype(np.float32), np.zeros(len(scale), np.int64))
        return Tensor(bias.name, bias.shape, dtype, np.round(bias.value / scale).astype(dtype), quantization)


def int8_kernel(op: Op, *, least: np.ndarray | float = 0.0) -> Tensor:
    """The kernel of a convolution, symmetric, -127..127, one scale per output channel, none below `least`."""
    kernel, axis = op.inputs[1], CHANNELS[op.kind]
    data = kernel.value.astype(np.float64)
    scale = np.maximum(np.abs(data).max(tuple(i for i in range(4) if i != axis), keepdims=True), 1e-12) / 127
    scale = np.maximum(scale.ravel(), least).reshape(scale.shape)
    stored = np.clip(np.round(data / scale), -127, 127).astype(np.int8)
    quantization = Quantization(scale.ravel().astype(np.float32), np.zeros(scale.size, np.int64), axis)
    return Tensor(f"{kernel.name}/int8", kernel.shape, np.int8, stored, quantization)


def _scale(tensor: Tensor) -> float:
    assert tensor.quantization is not None
    return float(tensor.quantization.scale[0])


def _stored(data: np.ndarray, typed: Tensor) -> np.ndarray:
    """`data` as the integers of a tensor's type and quantization."""
    assert typed.quantization is not None
    limits = np.iinfo(typed.dtype)
    stored = np.round(data / _scale(typed)) + int(typed.quantization.zero_point[0])
    return np.clip(stored, limits.min, limits.max).astype(typed.dtype)


def _right_sides(graph: Graph) -> set[Tensor]:
    """Right operands of matrix products, and the tensors that were moved about to become one.

    With a zero point of 0 LiteRT hands the product to XNNPACK, which computes it wrong for more than 8 columns on ARM
    CPUs without dot products, as soon as there are two threads.
    """
    right: set[Tensor] = set()
    for op in reversed(graph.ops):
        if op.kind == "BATCH_MATMUL":
            right.add(op.inputs[1])
        elif op.kind in _MOVES and op.output in right:
            right.add(op.inputs[0])
    return right


def uint8_input(graph: Graph) -> Graph:
    """The graph for pixels as they are: uint8 in, converted to float inside."""
    (image,) = graph.inputs
    pixels = _pixels(image)
    unpacked = Tensor("image/float", image.shape)
    ops = [Op("DEQUANTIZE", [pixels], unpacked), *_substituted(graph.ops, {image: unpacked})]
    return replace(graph, ops=ops, inputs=[pixels])


def integer_ends(graph: Graph) -> Graph:
    """An integer graph without its float ends: uint8 pixels in, integer logits out."""
    (image,), (logits,) = graph.inputs, graph.outputs
    first, last = graph.ops[0], graph.ops[-1]
    assert (first.kind, first.inputs, last.kind, last.output) == ("QUANTIZE", [image], "DEQUANTIZE", logits)
    pixels = _pixels(image)
    grey = Quantization(np.ones(1, np.float32), np.array([-128]))  # exact in int8, whatever the range is
    exact = Tensor(first.output.name, image.shape, np.int8, None, grey)
    stored = replace(last.inputs[0], name=logits.name)
    ops = _substituted(graph.ops[1:-1], {first.output: exact, last.inputs[0]: stored})
    return Graph([Op("QUANTIZE", [pixels], exact), *ops], [pixels], [stored])


def _pixels(image: Tensor) -> Tensor:
    return Tensor(image.name, image.shape, np.uint8, None, Quantization(np.ones(1, np.float32), np.zeros(1, np.int64)))


def _substituted(ops: list[Op], new: dict[Tensor, Tensor]) -> list[Op]:
    """The operations with some tensors exchanged for others."""
    return [Op(op.kind, [new.get(t, t) for t in op.inputs], new.get(op.output, op.output), op.options) for op in ops]
