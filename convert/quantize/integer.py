"""Rewrites of a float graph into integer arithmetic, whole or in part, by ranges known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from convert.graph.ir import Graph, Op, Quantization, Tensor
from convert.quantize.weights import CHANNELS, int8_kernel

Ranges = Mapping[str, tuple[float, float]]  # smallest and largest value of a tensor, by its name
Choice = Callable[[Op], bool]

# Their output holds their input's values, so it has its scale too.
_MOVES = ("RESHAPE", "TRANSPOSE", "PAD", "RESIZE_BILINEAR")


def static(graph: Graph, ranges: Ranges, integer: Choice, *, bits: int = 8) -> Graph:
    """The operations that `integer` chooses, in integer arithmetic; QUANTIZE and DEQUANTIZE where it meets float.

    Kernels are int8, one scale an output channel. Activations are int8 (asymmetric; the right side of a matrix product
    never by chance symmetric, see `_right_sides`) or int16 (symmetric).

    Args:
        graph: float graph.
        ranges: of every tensor in `static_tensors`.
        integer: chooses operations.
        bits: of activations, 8 or 16.

    Returns:
        A graph whose inputs and outputs are float still: see `uint8_input` and `integer_ends`.
    """
    rewriter = _Static(graph, ranges, bits)
    for op in graph.ops:
        if integer(op):
            rewriter.in_integers(op)
        else:
            rewriter.in_float(op)
    rewriter.made.outputs = [rewriter.as_float(tensor) for tensor in graph.outputs]
    return rewriter.made


def static_tensors(graph: Graph, integer: Choice) -> list[str]:
    """Names of the tensors whose ranges `static` asks for."""
    asked = _Asked()
    static(graph, asked, integer)
    return list(asked)


class _Asked(dict[str, tuple[float, float]]):
    """Ranges that remember who was asked for."""

    def __missing__(self, name: str) -> tuple[float, float]:
        return self.setdefault(name, (-1.0, 1.0))


class _Static:
    """Where each of the float graph's tensors is to be had, in float and as an integer."""

    def __init__(self, graph: Graph, ranges: Ranges, bits: int) -> None:
        self.made = Graph()
        self.made.inputs = list(graph.inputs)
        self._ranges, self._bits = ranges, bits
        self._float = {tensor: tensor for tensor in graph.inputs}
        self._integer: dict[Tensor, Tensor] = {}
        self._right_sides = _right_sides(graph)

    def in_float(self, op: Op) -> None:
        inputs = [self.as_float(tensor) if tensor.data is None else tensor for tensor in op.inputs]
        self._float[op.output] = Tensor(op.output.name, op.output.shape)
        self.made.ops.append(Op(op.kind, inputs, self._float[op.output], op.options))

    def in_integers(self, op: Op) -> None:
        first = self.as_integer(op.inputs[0])
        if op.kind in CHANNELS:
            # A bias is kept in 32 bits of both scales: beside a large one, a channel of hardly any weight loses that.
            least = np.abs(op.inputs[2].value.astype(np.float64)) / (_scale(first) * 2**30)
            kernel = int8_kernel(op, least=least)
            inputs = [first, kernel, self._bias(op.inputs[2], first, kernel)]
        else:
            inputs = [first, *(t if t.dtype == np.int32 else self.as_integer(t) for t in op.inputs[1:])]
        if op.kind in _MOVES:
            output = Tensor(f"{op.output.name}/integer", op.output.shape, first.dtype, None, first.quantization)
        elif op.kind == "SOFTMAX":
            output = self._softmax(op, inputs)
        else:
            output = self._new(op.output)
        self._integer[op.output] = output
        if op.kind != "SOFTMAX":
            self.made.ops.append(Op(op.kind, inputs, output, op.options))

    def as_float(self, tensor: Tensor) -> Tensor:
        if tensor not in self._float:
            self._float[tensor] = Tensor(tensor.name, tensor.shape)
            self.made.ops.append(Op("DEQUANTIZE", [self._integer[tensor]], self._float[tensor]))
        return self._float[tensor]

    def as_integer(self, tensor: Tensor) -> Tensor:
        if tensor.data is not None:
            made = self._typed(tensor.name, tensor, (float(tensor.data.min()), float(tensor.data.max())), False)
            made.data = _stored(tensor.data, made)
            return made
        if tensor not in self._integer:
            self._integer[tensor] = self._new(tensor)
            self.made.ops.append(Op("QUANTIZE", [self._float[tensor]], self._integer[tensor]))
        return self._integer[tensor]

    def _new(self, tensor: Tensor) -> Tensor:
        return self._typed(f"{tensor.name}/integer", tensor, self._ranges[tensor.name], tensor in self._right_sides)

    def _typed(self, name: str, tensor: Tensor, limits: tuple[float, float], right_side: bool) -> Tensor:
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
        self.made.ops.append(Op(op.kind, inputs, raw, op.options))
        if self._bits == 16:
            return raw
        output = self._new(op.output)
        self.made.ops.append(Op("QUANTIZE", [raw], output))
        return output

    def _bias(self, bias: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
        assert x.quantization is not None
        assert kernel.quantization is not None
        scale = x.quantization.scale.astype(np.float64) * kernel.quantization.scale
        stored = np.round(bias.value / scale)
        dtype = np.int32 if self._bits == 8 else np.int64
        quantization = Quantization(scale.astype(np.float32), np.zeros(len(scale), np.int64))
        return Tensor(bias.name, bias.shape, dtype, stored.astype(dtype), quantization)


def _scale(tensor: Tensor) -> float:
    assert tensor.quantization is not None
    return float(tensor.quantization.scale[0])


def _stored(data: np.ndarray, as_what: Tensor) -> np.ndarray:
    assert as_what.quantization is not None
    scale, zero = float(as_what.quantization.scale[0]), int(as_what.quantization.zero_point[0])
    limits = np.iinfo(as_what.dtype)
    return np.clip(np.round(data / scale) + zero, limits.min, limits.max).astype(as_what.dtype)


def _right_sides(graph: Graph) -> set[Tensor]:
    """Right operands of matrix products, and what was moved about to become one.

    With a zero point of 0 LiteRT hands the product to XNNPACK, which computes it wrong for more than 8 columns on ARM
    CPUs without dot products, as soon as there are two threads.
    """
    found: set[Tensor] = set()
    for op in reversed(graph.ops):
        if op.kind == "BATCH_MATMUL":
            found.add(op.inputs[1])
        elif op.kind in _MOVES and op.output in found:
            found.add(op.inputs[0])
    return found


def uint8_input(graph: Graph) -> Graph:
    """The graph for pixels as they are: uint8 in, made float inside."""
    (image,) = graph.inputs
    pixels = _pixels(image)
    made = Graph()
    made.inputs, made.outputs = [pixels], graph.outputs
    unpacked = Tensor("image/float", image.shape)
    made.ops = [Op("DEQUANTIZE", [pixels], unpacked), *_reading(graph.ops, {image: unpacked})]
    return made


def integer_ends(graph: Graph) -> Graph:
    """An integer graph without its float ends: uint8 pixels in, integer logits out."""
    (image,), (logits,) = graph.inputs, graph.outputs
    first, last = graph.ops[0], graph.ops[-1]
    assert first.kind == "QUANTIZE"
    assert first.inputs == [image]
    assert last.kind == "DEQUANTIZE"
    assert last.output is logits
    pixels, made = _pixels(image), Graph()
    grey = Quantization(np.ones(1, np.float32), np.array([-128]))  # exact in int8, whatever range was asked for
    exact = Tensor(first.output.name, image.shape, np.int8, None, grey)
    last.inputs[0].name = logits.name
    made.inputs, made.outputs = [pixels], [last.inputs[0]]
    made.ops = [Op("QUANTIZE", [pixels], exact), *_reading(graph.ops[1:-1], {first.output: exact})]
    return made


def _pixels(image: Tensor) -> Tensor:
    return Tensor(image.name, image.shape, np.uint8, None, Quantization(np.ones(1, np.float32), np.zeros(1, np.int64)))


def _reading(ops: list[Op], instead: dict[Tensor, Tensor]) -> list[Op]:
    return [Op(op.kind, [instead.get(t, t) for t in op.inputs], op.output, op.options) for op in ops]
