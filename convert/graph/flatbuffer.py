"""A `Graph` as the bytes of a ``.tflite``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convert.graph.ir import Graph, Op, Tensor

# The schema's table of options by the name of its operation, "batchmatmul", where the operation has one.
_OPTIONS = {name.removesuffix("Options").lower(): name for name in vars(schema.BuiltinOptions)}
_OPTIONS["mean"] = "ReducerOptions"


def to_tflite(graph: Graph, *, metadata: Mapping[str, bytes] | None = None) -> bytes:
    """The flatbuffer of a graph, with a signature ``serving_default`` that names inputs and outputs.

    Args:
        graph: of any recipe.
        metadata: entries to hold beside it, by name, see `convert.graph.metadata`.
    """
    tensors: dict[Tensor, int] = {}
    codes: dict[tuple[str, int], int] = {}
    model = schema.ModelT()
    model.version, model.description = 3, "segformer_tf"
    model.buffers = [schema.BufferT()]  # buffer 0 is empty by convention
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.tensors, subgraph.operators = "main", [], []

    def index(tensor: Tensor) -> int:
        if tensor not in tensors:
            tensors[tensor] = len(subgraph.tensors)
            subgraph.tensors.append(_tensor(tensor, model.buffers))
        return tensors[tensor]

    subgraph.inputs = np.array([index(tensor) for tensor in graph.inputs], np.int32)
    for op in graph.ops:
        operator = schema.OperatorT()
        operator.opcodeIndex = codes.setdefault((op.kind, version(op)), len(codes))
        operator.inputs = np.array([index(tensor) for tensor in op.inputs], np.int32)
        operator.outputs = np.array([index(op.output)], np.int32)
        if table := _OPTIONS.get(op.kind.replace("_", "").lower()):
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = _options(op, table)
        subgraph.operators.append(operator)
    subgraph.outputs = np.array([index(tensor) for tensor in graph.outputs], np.int32)
    model.subgraphs = [subgraph]
    model.operatorCodes = [_code(kind, number) for kind, number in codes]
    model.signatureDefs = [_signature(graph, tensors)]
    model.metadata = []
    for name, content in (metadata or {}).items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(_buffer(content))
    return pack(model)


def pack(model: Any) -> bytes:
    """The bytes of a `schema.ModelT`; equal vectors are written once."""
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Shares equal vectors (the zero points of every channel are zeros), and aligns constants as the schema asks."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        key = x.dtype.str, x.tobytes()
        if key not in self._written:
            self._written[key] = self._constant(key[1]) if x.dtype == np.uint8 else super().CreateNumpyVector(x)
        return self._written[key]

    def _constant(self, content: bytes) -> int:
        self.StartVector(1, len(content), 16)
        self.head -= len(content)
        self.Bytes[self.head : self.head + len(content)] = content
        self.vectorNumElems = len(content)
        return self.EndVector()


def version(op: Op) -> int:
    """The lowest version of the operation for float and int8 tensors; LiteRT asks no higher one for int16."""
    types = [np.dtype(tensor.dtype).name for tensor in op.inputs]
    quantized = types[0] == "int8"
    match op.kind:
        case "CONV_2D":
            return 3 if quantized else 5 if types[1] == "int8" else 1
        case "DEPTHWISE_CONV_2D":
            return 3 if quantized else 6 if types[1] == "int8" else 1
        case "DEQUANTIZE":
            return {"int8": 2, "uint8": 1, "int16": 3, "float16": 3, "int4": 6}[types[0]]
        case "QUANTIZE":
            return 1 if types[0] == "float32" else 2
        case "RESIZE_BILINEAR":
            return 3
        case "FULLY_CONNECTED":
            return 12  # int4 and int8 kernels of a step for each output, for float activations
        case "RESHAPE" | "SELECT_V2":
            return 1
        case "BROADCAST_TO":
            return 2
        case "GATHER" if op.options.get("batchDims"):
            return 5
        case _:
            return 2 if quantized else 1


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    table = schema.TensorT()
    table.name, table.shape, table.hasRank = tensor.name, np.array(tensor.shape, np.int32), True
    table.type = getattr(schema.TensorType, np.dtype(tensor.dtype).name.upper())
    table.buffer = 0
    if tensor.data is not None:
        table.buffer = len(buffers)
        buffers.append(_buffer(_stored(tensor)))
    if (q := tensor.quantization) is not None:
        table.quantization = schema.QuantizationParametersT()
        table.quantization.scale, table.quantization.zeroPoint = q.scale, q.zero_point
        table.quantization.quantizedDimension = q.axis
    return table


def _stored(tensor: Tensor) -> bytes:
    """A constant's bytes; of int4 two values share one, the first in its lower half."""
    values = tensor.value
    if values.dtype.name != "int4":
        return values.tobytes()
    nibbles = np.zeros(values.size + values.size % 2, np.uint8)
    nibbles[: values.size] = values.ravel().astype(np.int8).view(np.uint8) & 15
    return (nibbles[::2] | nibbles[1::2] << 4).tobytes()


def _buffer(content: bytes) -> Any:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    return buffer


def _options(op: Op, table: str) -> Any:
    options = getattr(schema, f"{table}T")()
    for name, value in op.options.items():
        if name == "padding":
            value = getattr(schema.Padding, value)
        elif name in ("outputType", "inDataType", "outDataType"):
            value = getattr(schema.TensorType, value)
        elif name == "fusedActivationFunction":
            value = getattr(schema.ActivationFunctionType, value)
        setattr(options, name, value)
    for name in ("dilationHFactor", "dilationWFactor"):
        if hasattr(options, name):
            setattr(options, name, 1)
    return options


def _code(kind: str, number: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = number
    return code


def _signature(graph: Graph, tensors: dict[Tensor, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [], []
    for entries, ends in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
        for tensor in ends:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = tensor.name, tensors[tensor]
            entries.append(entry)
    return signature
