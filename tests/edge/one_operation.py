"""Files of one operation, of every kind and type, to see which of them a delegate takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convert.graph.flatbuffer import pack, to_tflite
from convert.graph.ir import Graph, Op, Quantization, Tensor, constant
from segformer_tf.edge.doctor.lists import kinds

TYPES = {name: np.dtype(name).type for name in ("float32", "int8", "uint8", "int16", "int32", "bool")}
SHAPE = (1, 8, 12, 16)
UNARY = kinds(
    "ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC LOG_SOFTMAX NEG RELU RELU6 RELU_N1_TO_1 "
    "RELU_0_TO_1 ROUND RSQRT SIGN SIN SOFTMAX SQRT SQUARE TANH L2_NORMALIZATION"
)
COMPARISONS = kinds("EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL")
BINARY = kinds("ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE POW") | COMPARISONS
REDUCTIONS = kinds("MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD")
SCALES = {"LOGISTIC": 1 / 256, "SOFTMAX": 1 / 256, "TANH": 1 / 128}  # that the kernels ask for
OPTIONS: dict[str, dict[str, Any]] = {
    "SOFTMAX": {"beta": 1.0},
    "LEAKY_RELU": {"alpha": 0.1},
    "DEPTH_TO_SPACE": {"blockSize": 2},
    "SPACE_TO_DEPTH": {"blockSize": 2},
    "SQUEEZE": {"squeezeDims": np.array([0], np.int32)},
}
RESIZE = {"alignCorners": False, "halfPixelCenters": True}
SQUARES = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
# Kinds with constants beside the input: shape of the output, constants, options.
WITH_CONSTANTS: dict[str, tuple[tuple[int, ...], list[Any], dict[str, Any]]] = {
    "RESHAPE": ((1, 96, 1, 16), [[1, 96, 1, 16]], {"newShape": np.array([1, 96, 1, 16], np.int32)}),
    "TRANSPOSE": ((1, 12, 8, 16), [[0, 2, 1, 3]], {}),
    "PAD": ((1, 10, 14, 16), [SQUARES], {}),
    "MIRROR_PAD": ((1, 10, 14, 16), [SQUARES], {"mode": 0}),
    "RESIZE_BILINEAR": ((1, 16, 24, 16), [[16, 24]], RESIZE),
    "RESIZE_NEAREST_NEIGHBOR": ((1, 16, 24, 16), [[16, 24]], RESIZE),
    "SLICE": ((1, 4, 6, 16), [[0, 1, 1, 0], [1, 4, 6, 16]], {}),
    "STRIDED_SLICE": ((1, 4, 6, 16), [[0, 1, 1, 0], [1, 5, 7, 16], [1, 1, 1, 1]], {}),
    "TILE": ((1, 8, 12, 32), [[1, 1, 1, 2]], {}),
    "GATHER": ((1, 8, 12, 3), [[1, 5, 9]], {"axis": 3}),
    "BROADCAST_TO": (SHAPE, [list(SHAPE)], {}),
    "DEPTH_TO_SPACE": ((1, 16, 24, 4), [], {}),
    "SPACE_TO_DEPTH": ((1, 4, 6, 64), [], {}),
    "SQUEEZE": (SHAPE[1:], [], {}),
}
PRODUCTS = {"CONV_2D": (8, 1, 1, 16), "DEPTHWISE_CONV_2D": (1, 3, 3, 16), "FULLY_CONNECTED": (8, 16)}
PRODUCT_OPTIONS: dict[str, dict[str, Any]] = {
    "CONV_2D": {"padding": "VALID", "strideH": 1, "strideW": 1},
    "DEPTHWISE_CONV_2D": {"padding": "SAME", "strideH": 1, "strideW": 1, "depthMultiplier": 1},
    "FULLY_CONNECTED": {"keepNumDims": True},
}


def one_operation_files() -> Iterator[tuple[str, bytes]]:
    """Names, kind and type and what is special, and files; some kinds are not of some types, a runtime says which."""
    for name in TYPES:
        for kind in (*UNARY, *BINARY, *REDUCTIONS, *WITH_CONSTANTS, "ARG_MAX", "ARG_MIN", "CAST", "SELECT_V2"):
            yield f"{kind} {name}", _file(kind, name)
        for count in (2, 4, 5, 6):
            yield f"CONCATENATION {name} of {count}", _concatenation(name, count)
    for name in ("float32", "int8"):
        yield f"MEAN {name} over height and width", _file("MEAN", name, axes=(1, 2), shape=(1, 1, 1, 16))
        for zero_point in (0, 3):
            yield f"BATCH_MATMUL {name} of zero point {zero_point}", _matmul(name, zero_point)
        yield f"ADD {name} of scales far apart", _file("ADD", name, second=1e-6)
        for kind in PRODUCTS:
            yield f"{kind} {name}", _product(kind, name, "int8" if name == "int8" else "float32")
    for kind in PRODUCTS:
        yield f"{kind} float32 with int8 weights", _product(kind, "float32", "int8")
    for name in ("int8", "uint8"):
        yield f"RESHAPE {name} without a scale", _file("RESHAPE", name, bare=True)
        yield f"DEQUANTIZE {name}", _changed("DEQUANTIZE", name, "float32")
        yield f"QUANTIZE float32 to {name}", _changed("QUANTIZE", "float32", name)
    yield "QUANTIZE float32 to int16", _changed("QUANTIZE", "float32", "int16")
    for kind in ("ABS", "ADD", "SOFTMAX", "MEAN"):
        yield f"{kind} float32 of rank 5", _file(kind, "float32", leading=(1, 2))


def beside_floats(file: bytes) -> bytes:
    """The same with an operation on floats, which has nothing to do with it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file, 0))
    other = Graph()
    other.outputs = [other.unary("ABS", "floats/abs", other.input("floats", (1, 4)))]
    added = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(to_tflite(other), 0))
    graph, more = model.subgraphs[0], added.subgraphs[0]
    shift = len(graph.tensors)
    for op in more.operators:
        op.opcodeIndex += len(model.operatorCodes)
        op.inputs, op.outputs = op.inputs + shift, op.outputs + shift
    for tensor in more.tensors:
        tensor.buffer = 0
    model.operatorCodes += added.operatorCodes
    graph.tensors, graph.operators = graph.tensors + more.tensors, graph.operators + more.operators
    graph.inputs = np.append(graph.inputs, more.inputs + shift)
    graph.outputs = np.append(graph.outputs, more.outputs + shift)
    model.signatureDefs = []
    return pack(model)


def _scale(name: str, scale: float = 0.02, zero_point: int = 3) -> Quantization | None:
    if name not in ("int8", "uint8", "int16"):
        return None
    zero = 0 if name == "int16" else zero_point
    return Quantization(np.array([scale], np.float32), np.array([zero], np.int64))


def _finished(graph: Graph, kind: str, inputs: list[Tensor], output: Tensor, options: dict[str, Any]) -> bytes:
    graph.ops.append(Op(kind, inputs, output, options))
    graph.outputs = [output]
    return to_tflite(graph)


def _file(
    kind: str,
    name: str,
    *,
    leading: tuple[int, ...] = (1,),
    axes: tuple[int, ...] = (),
    shape: tuple[int, ...] = (),
    second: float = 0.02,
    bare: bool = False,
) -> bytes:
    whole = (*leading, *SHAPE[1:])
    x = Tensor("x", whole, TYPES[name], None, None if bare else _scale(name))
    graph, inputs, options = Graph(inputs=[x]), [x], dict(OPTIONS.get(kind, {}))
    out, dtype = whole, TYPES[name]
    if kind in BINARY or kind == "SELECT_V2":
        inputs.append(Tensor("x2", whole, dtype, None, _scale(name, second)))
    if kind == "SELECT_V2":
        inputs.insert(0, Tensor("which", whole, np.bool_))
    graph.inputs = list(inputs)
    if kind in REDUCTIONS:
        out, options = shape or (*whole[:-1], 1), {"keepDims": True}
        inputs.append(constant("axes", np.array(axes or [len(whole) - 1], np.int32)))
    if kind in WITH_CONSTANTS:
        out, values, more = WITH_CONSTANTS[kind]
        inputs += [constant(f"c{n}", np.array(value, np.int32)) for n, value in enumerate(values)]
        options |= more
    quantization = (
        None if bare else _scale(name, SCALES.get(kind, 0.02), -128 if kind in ("LOGISTIC", "SOFTMAX") else 3)
    )
    if name == "uint8" and kind in ("LOGISTIC", "SOFTMAX"):
        quantization = _scale(name, 1 / 256, 0)
    if kind == "TANH":
        quantization = _scale(name, 1 / 128, 128 if name == "uint8" else 0)
    if kind in COMPARISONS:
        dtype, quantization = np.bool_, None
    if kind in ("ARG_MAX", "ARG_MIN"):
        inputs.append(constant("axis", np.array([3], np.int32)))
        out, dtype, quantization, options = SHAPE[:3], np.int32, None, {"outputType": "INT32"}
    if kind == "CAST":
        dtype, quantization = np.float32 if name == "int32" else np.int32, None
    return _finished(graph, kind, inputs, Tensor("y", out, dtype, None, quantization), options)


def _concatenation(name: str, count: int) -> bytes:
    inputs = [Tensor(f"x{n}", SHAPE, TYPES[name], None, _scale(name)) for n in range(count)]
    output = Tensor("y", (*SHAPE[:3], 16 * count), TYPES[name], None, _scale(name))
    return _finished(Graph(inputs=inputs), "CONCATENATION", inputs, output, {"axis": 3})


def _matmul(name: str, zero_point: int) -> bytes:
    x = Tensor("x", SHAPE, TYPES[name], None, _scale(name))
    y = Tensor("x2", (1, 8, 16, 12), TYPES[name], None, _scale(name, 0.02, zero_point))
    output = Tensor("y", (1, 8, 12, 12), TYPES[name], None, _scale(name))
    return _finished(Graph(inputs=[x, y]), "BATCH_MATMUL", [x, y], output, {})


def _product(kind: str, name: str, weights: str) -> bytes:
    x = Tensor("x", SHAPE, TYPES[name], None, _scale(name))
    shape = PRODUCTS[kind]
    out = 16 if kind == "DEPTHWISE_CONV_2D" else 8
    kernel = constant("w", np.ones(shape))
    if weights == "int8":
        channels = 1 if kind == "FULLY_CONNECTED" else out
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        scales = Quantization(np.full(channels, 0.01, np.float32), np.zeros(channels, np.int64), axis)
        kernel = Tensor("w", shape, np.int8, np.ones(shape, np.int8), scales)
    bias = constant("b", np.zeros(out))
    if name == "int8":
        scales = Quantization(np.full(channels, 0.0002, np.float32), np.zeros(channels, np.int64))
        bias = Tensor("b", (out,), np.int32, np.zeros(out, np.int32), scales)
    output = Tensor("y", (*SHAPE[:3], out), TYPES[name], None, _scale(name))
    return _finished(Graph(inputs=[x]), kind, [x, kernel, bias], output, PRODUCT_OPTIONS[kind])


def _changed(kind: str, name: str, to: str) -> bytes:
    x = Tensor("x", SHAPE, TYPES[name], None, _scale(name))
    return _finished(Graph(inputs=[x]), kind, [x], Tensor("y", SHAPE, TYPES[to], None, _scale(to)), {})
