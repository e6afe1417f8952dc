"""A `Graph` as an ONNX model.

A tensor of rank 4 is kept channels last, as in the graph, except in steps that are convolutions throughout (MixFFN, the
decoder): ONNX Runtime and OpenVINO compute those fastest channels first. A transpose stands where the two meet.

Integers are in QDQ form: each tensor that the graph stores in int8 becomes QuantizeLinear and DequantizeLinear, and the
operations stay those of floats, for the engine to merge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from convert.graph.ir import Graph, Op, Tensor
from convert.graph.segformer import TANH_GELU_COEFFICIENTS

LOWEST_OPSET = 18  # ReduceMean's axes as an input
OPSET = 20  # Gelu

_CONVOLUTIONS = re.compile(r"/mlp|^decoder/|^logits")  # steps that are kept channels first
_KINDS = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "BATCH_MATMUL": "MatMul",
    "TRANSPOSE": "Transpose",
    "RESHAPE": "Reshape",
    "SOFTMAX": "Softmax",
    "GELU": "Gelu",
    "MEAN": "ReduceMean",
    "RESIZE_BILINEAR": "Resize",
}
_FIRST, _LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # orders of axes that put the channels there


def to_onnx(
    graph: Graph, *, opset: int = OPSET, dynamic_batch: bool = False, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The ONNX model of a graph, with the graph's inputs and outputs, channels last.

    Args:
        graph: in float, or of a recipe whose integers are int8 and uint8 (`convert.onnx.export.RECIPES`).
        opset: version of the standard operators, from `LOWEST_OPSET`.
        dynamic_batch: whether the first dimension of input and output is free, named ``batch``.
        metadata: entries of the model's ``metadata_props``.
    """
    writer = _Writer(graph, opset)
    for op in graph.ops:
        writer.write(op)
    for tensor in graph.outputs:
        writer.output(tensor)
    inputs, outputs = ([_end(tensor, dynamic_batch) for tensor in tensors] for tensors in (graph.inputs, graph.outputs))
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(writer.nodes, "segformer", inputs, outputs, initializer=list(writer.constants.values())),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="segformer_tf",
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    return model


def _end(tensor: Tensor, dynamic_batch: bool) -> onnx.ValueInfoProto:
    shape = ["batch" if dynamic_batch else tensor.shape[0], *tensor.shape[1:]]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), shape)


class _Writer:
    """The nodes so far, and the name of each tensor's float value, by tensor and whether its channels are first."""

    def __init__(self, graph: Graph, opset: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._opset = opset
        self._values = {(tensor, False): tensor.name for tensor in graph.inputs}
        self._inputs = set(graph.inputs)
        self._packed: dict[Tensor, Tensor] = {}  # kernels that the graph unpacks, and what is stored of them
        self._padded: dict[Tensor, tuple[Tensor, int]] = {}  # a convolution of ONNX pads by itself

    def write(self, op: Op) -> None:
        """Append an operation of the graph."""
        x, output = op.inputs[0], op.output
        first = self._channels_first(op)
        match op.kind:
            case "PAD":
                self._padded[output] = x, int(op.inputs[1].value[1, 0])
            case "DEQUANTIZE" if x.data is not None:
                self._packed[output] = x
            case "DEQUANTIZE" if x in self._inputs:  # pixels
                self._put(op, False, "Cast", [self._value(x)], to=onnx.TensorProto.FLOAT)
            case "DEQUANTIZE":  # a stored tensor's value is a float already
                first = (x, True) in self._values
                self._values[output, first] = self._values[x, first]
            case "QUANTIZE":
                first = (x, True) in self._values
                self._values[output, first] = self._stored(output, self._values[x, first])
            case "CONV_2D" | "DEPTHWISE_CONV_2D":
                self._convolution(op, first)
            case "RSQRT":
                root = self._node("Sqrt", [self._value(x)], f"{output.name}/root")
                self._put(op, False, "Reciprocal", [root])
            case "GELU" if self._opset < 20 and op.options["approximate"]:
                self._gelu_by_sigmoid(op, first)
            case "GELU" if self._opset < 20:
                self._gelu_by_erf(op, first)
            case "MUL" if op.inputs == [x, x]:  # as OpenVINO knows the norm
                self._put(op, first, "Pow", [self._value(x, first), self._scalar(2.0)])
            case kind:
                tensors = [tensor for tensor in op.inputs if tensor.dtype != np.int32]
                inputs = [self._value(tensor, first) for tensor in tensors]
                more, attributes = self._arguments(op, first)
                self._put(op, first, _KINDS[kind], [*inputs, *more], **attributes)

    def output(self, tensor: Tensor) -> None:
        """Give the model's output its name."""
        if (name := self._value(tensor)) != tensor.name:
            self._node("Identity", [name], tensor.name)

    def _channels_first(self, op: Op) -> bool:
        window = op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and op.inputs[1].shape[1:3] != (1, 1)
        return len(op.output.shape) == 4 and (window or _CONVOLUTIONS.search(op.output.name) is not None)

    def _arguments(self, op: Op, first: bool) -> tuple[list[str], dict[str, Any]]:
        """The inputs after the tensors, and the attributes, of a kind in `_KINDS`."""
        match op.kind:
            case "SOFTMAX":
                return [], {"axis": -1}
            case "GELU":
                return [], {"approximate": "tanh" if op.options["approximate"] else "none"}
            case "TRANSPOSE":
                return [], {"perm": op.inputs[1].value.tolist()}
            case "RESHAPE":  # 0 keeps the batch
                return [self._constant(f"{op.output.name}/shape", np.array([0, *op.output.shape[1:]], np.int64))], {}
            case "MEAN":
                return [self._constant("last", np.array([-1], np.int64))], {"keepdims": 1}
            case "RESIZE_BILINEAR":
                # Not by sizes: those hold the batch, or name axes, which ONNX Runtime 1.32 loses beside a transpose.
                height, width = map(resize_scale, op.inputs[0].shape[1:3], op.output.shape[1:3])
                scales = np.array([1, 1, height, width] if first else [1, height, width, 1], np.float32)
                mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
                return ["", self._constant(f"{op.output.name}/scales", scales)], mode
            case _:
                return [], {}

    def _convolution(self, op: Op, first: bool) -> None:
        """Conv where channels are first, a matrix product where they are last, which a 1x1 map is."""
        x, kernel, bias = op.inputs
        x, by = self._padded.get(x, (x, 0))
        _, height, width, depth = kernel.shape
        if not first:
            factors = [self._value(x), self._kernel(kernel, (3, 0))]
            if not bias.value.any():
                self._put(op, first, "MatMul", factors)
                return
            product = self._node("MatMul", factors, f"{op.output.name}/product")
            self._put(op, first, "Add", [product, self._constant(bias.name, _float_value(bias))])
            return
        depthwise = op.kind == "DEPTHWISE_CONV_2D"
        weights = self._kernel(kernel, (3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        self._put(
            op,
            first,
            "Conv",
            [self._value(x, True), weights, self._kernel(bias, (0,))],
            kernel_shape=[height, width],
            strides=[op.options["strideH"], op.options["strideW"]],
            pads=[height // 2, width // 2] * 2 if depthwise else [by] * 4,
            group=depth if depthwise else 1,
        )

    def _gelu_by_erf(self, op: Op, first: bool) -> None:
        """``x · (erf(x / √2) + 1) / 2``, in the order in which both engines recognize it."""
        x, name = self._value(op.inputs[0], first), op.output.name
        erf = self._node("Div", [x, self._scalar(2**0.5)], f"{name}/scaled")
        erf = self._node("Add", [self._node("Erf", [erf], f"{name}/erf"), self._scalar(1.0)], f"{name}/sum")
        self._put(op, first, "Mul", [self._node("Mul", [x, erf], f"{name}/twice"), self._scalar(0.5)])

    def _gelu_by_sigmoid(self, op: Op, first: bool) -> None:
        """The tanh form, for ``(1 + tanh(y)) / 2 = sigmoid(2y)``."""
        x, name = self._value(op.inputs[0], first), op.output.name
        linear, cubic = TANH_GELU_COEFFICIENTS
        slope = self._node("Mul", [self._node("Mul", [x, x], f"{name}/squares"), self._scalar(cubic)], f"{name}/cubic")
        slope = self._node("Add", [slope, self._scalar(linear)], f"{name}/slope")
        share = self._node("Sigmoid", [self._node("Mul", [x, slope], f"{name}/logit")], f"{name}/share")
        self._put(op, first, "Mul", [x, share])

    def _put(self, op: Op, first: bool, kind: str, inputs: list[str], **attributes: Any) -> None:
        """Append the node that gives an operation's output, its activation, and its storing."""
        output = op.output
        name = _name(output, first)
        stored = output.quantization is not None
        exact = f"{name}/exact" if stored else name
        activation = op.options.get("fusedActivationFunction", "NONE")
        assert activation in ("NONE", "RELU"), activation
        if activation == "RELU":
            linear = self._node(kind, inputs, f"{name}/linear", **attributes)
            self._node("Relu", [linear], exact)
        else:
            self._node(kind, inputs, exact, **attributes)
        self._values[output, first] = self._stored(output, exact) if stored else exact

    def _stored(self, tensor: Tensor, exact: str) -> str:
        """The value of `exact` after it was stored as the integers of `tensor`."""
        scale, zero = self._quantization(tensor)
        integers = self._node("QuantizeLinear", [exact, scale, zero], f"{tensor.name}/stored")
        return self._node("DequantizeLinear", [integers, scale, zero], f"{tensor.name}/value")

    def _quantization(self, tensor: Tensor) -> tuple[str, str]:
        assert tensor.quantization is not None
        scale, zero = tensor.quantization.scale, tensor.quantization.zero_point.astype(tensor.dtype)
        if tensor.data is None:
            scale, zero = scale[0], zero[0]
        return self._constant(f"{tensor.name}/scale", scale), self._constant(f"{tensor.name}/zero", zero)

    def _kernel(self, kernel: Tensor, order: tuple[int, ...]) -> str:
        """The float value of a kernel or bias with its axes in `order`; those left out are of length 1."""
        stored = self._packed.get(kernel, kernel)
        left_out = tuple(axis for axis in range(len(stored.shape)) if axis not in order)
        kept = sorted(order)
        data = stored.value.squeeze(left_out).transpose([kept.index(axis) for axis in order])
        if stored.quantization is None:
            if stored.dtype == np.float32:
                return self._constant(stored.name, data)
            half = self._constant(stored.name, data)
            return self._node("Cast", [half], f"{stored.name}/value", to=onnx.TensorProto.FLOAT)
        axis = order.index(stored.quantization.axis)
        inputs = [self._constant(stored.name, data), *self._quantization(stored)]
        return self._node("DequantizeLinear", inputs, f"{stored.name}/value", axis=axis)

    def _value(self, tensor: Tensor, first: bool = False) -> str:
        """The name of a tensor's float value in a layout, after a transpose if need be."""
        if (tensor, first) not in self._values:
            if tensor.data is not None:
                data = _float_value(tensor)
                data = data.transpose(_FIRST) if first and data.ndim == 4 else data
                self._values[tensor, first] = self._constant(tensor.name, data)
            else:
                source, order = self._values[tensor, not first], _FIRST if first else _LAST
                self._values[tensor, first] = self._node("Transpose", [source], _name(tensor, first), perm=order)
        return self._values[tensor, first]

    def _scalar(self, value: float) -> str:
        return self._constant(repr(value), np.array(value, np.float32))

    def _constant(self, name: str, data: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(data), name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def resize_scale(before: int, after: int) -> np.float32:
    """The scale by which Resize makes `after` of `before`: the engines round their product, float or double, down."""
    scale = np.float32(after / before)
    return scale if before * float(scale) >= after else np.nextafter(scale, np.float32(np.inf))


def _name(tensor: Tensor, first: bool) -> str:
    return f"{tensor.name}/channels_first" if first else tensor.name


def _float_value(tensor: Tensor) -> NDArray[Any]:
    """The numbers that a constant stands for."""
    if (q := tensor.quantization) is None:
        return tensor.value
    return ((tensor.value.astype(np.float64) - q.zero_point) * q.scale).astype(np.float32)
