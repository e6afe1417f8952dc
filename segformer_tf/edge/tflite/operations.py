"""The operations of a ``.tflite`` as the file has them, read without a runtime."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from segformer_tf.edge.tflite.flatbuffer import Table, indirect, plain_damage
from segformer_tf.edge.tflite.graph_stats import multiply_adds
from segformer_tf.edge.tflite.schema_names import OPERATIONS, TYPES
from segformer_tf.errors import InputError, printable

_IDENTIFIER = b"TFL3"
_MOST_NUMBERS = 64  # of a constant that are read: axes and sizes
_MOST_CELLS = 1 << 40  # of a tensor
_WITHOUT_OUTPUTS = ("ASSIGN_VARIABLE", "CALL", "CALL_ONCE", "HASHTABLE_IMPORT", "IF", "WHILE")


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file.

    Attributes:
        index: its number.
        dtype: "float32", "int8" and so on.
        shape: -1 for a side that the file leaves open.
        constant: whether its value is in the file.
        numbers: the value of a small int32 constant, else ().
        scale, zero_point: the first ones of a quantized tensor; a scale of 0 where it is not.
    """

    index: int
    dtype: str
    shape: tuple[int, ...]
    constant: bool
    numbers: tuple[int, ...]
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Operation:
    """An operation of the file.

    Attributes:
        kind: its name in the schema; of a custom one "CUSTOM:" and its own.
        version: of the operation.
        inputs: tensors; None for an optional one that is missing.
        outputs: tensors.
        macs: multiply-accumulates, 0 where a side is open.
    """

    kind: str
    version: int
    inputs: tuple[TensorInfo | None, ...]
    outputs: tuple[TensorInfo, ...]
    macs: int

    @property
    def data(self) -> tuple[TensorInfo, ...]:
        """The inputs that are no constants."""
        return tuple(tensor for tensor in self.inputs if tensor and not tensor.constant)

    @property
    def dtype(self) -> str:
        """Of what it computes on: of its first input that is no constant, else of its first one."""
        known = self.data or tuple(filter(None, self.inputs)) or self.outputs
        return known[0].dtype if known else ""


def read_operations(path: str | Path) -> list[Operation]:
    """The operations of the first graph, in the order they run.

    Raises:
        InputError: not a ``.tflite``, or a damaged one.
    """
    with plain_damage(path), Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if data[4:8] != _IDENTIFIER:
            raise InputError(f"{path}: not a TFLite file; expected a .tflite")
        model = Table(data, indirect(data, 0))
        graph = model.children(2)[0]
        buffers = model.children(4)
        tensors = [_tensor(i, table, buffers) for i, table in enumerate(graph.children(0))]
        codes = [_code(code) for code in model.children(1)]
        operations = [_operation(op, codes, tensors) for op in graph.children(3)]
    if not operations:
        raise InputError(f"{path}: a TFLite file without operations")
    return operations


def _code(code: Table) -> tuple[str, int]:
    number = max(code.number(0, "b"), code.number(3, "i"))
    kind = OPERATIONS[number] if 0 <= number < len(OPERATIONS) else f"operation {number}"
    if kind == "CUSTOM":
        kind = "CUSTOM:" + printable(code.content(1)[:40].decode(errors="replace")).replace("\n", "\\n")
    return kind, code.number(2, "i") or 1


def _tensor(index: int, table: Table, buffers: list[Table]) -> TensorInfo:
    shape = table.ints(7) or table.ints(0)
    if any(side < -1 for side in shape) or _cells(shape) > _MOST_CELLS:
        raise ValueError(f"tensor {index} has the shape {list(shape)}")
    number = table.number(1, "b")
    dtype = TYPES[number] if 0 <= number < len(TYPES) else f"type {number}"
    at = table.number(2, "I")
    size = buffers[at].length(0) if at else 0
    numbers: tuple[int, ...] = ()
    if dtype == "int32" and 0 < size <= 4 * _MOST_NUMBERS:
        numbers = struct.unpack(f"<{size // 4}i", buffers[at].content(0)[: size // 4 * 4])
    quantization = table.child(4)
    scales, zero_points = (quantization.floats(2), quantization.longs(3)) if quantization else ((), ())
    scale, zero_point = next(iter(scales), 0.0), next(iter(zero_points), 0)
    return TensorInfo(index, dtype, shape, size > 0, numbers, scale, zero_point)


def _cells(shape: tuple[int, ...]) -> int:
    product = 1
    for side in shape:
        product *= max(side, 1)
    return product


def _operation(table: Table, codes: list[tuple[str, int]], tensors: list[TensorInfo]) -> Operation:
    kind, version = codes[table.number(0, "I")]

    def picked(slot: int) -> list[TensorInfo | None]:
        numbers = table.ints(slot)
        if any(not -1 <= number < len(tensors) for number in numbers):
            raise ValueError(f"{kind} names a tensor that is not there")
        return [None if number == -1 else tensors[number] for number in numbers]

    inputs, outputs = picked(1), [tensor for tensor in picked(2) if tensor]
    if not outputs and kind in OPERATIONS and kind not in _WITHOUT_OUTPUTS:
        raise ValueError(f"{kind} has no output")
    return Operation(kind, version, tuple(inputs), tuple(outputs), _macs(kind, inputs, outputs))


def _macs(kind: str, inputs: list[TensorInfo | None], outputs: list[TensorInfo]) -> int:
    known = [tensor for tensor in (*inputs, *outputs) if tensor]
    if any(-1 in tensor.shape for tensor in known):
        return 0
    shapes = {tensor.index: tensor.shape for tensor in known}
    numbers = [tensor.index if tensor else -1 for tensor in inputs]
    try:
        return multiply_adds(kind, numbers, [tensor.index for tensor in outputs], shapes)
    except (IndexError, KeyError, ZeroDivisionError):
        raise ValueError(f"{kind} has inputs of impossible shapes") from None
