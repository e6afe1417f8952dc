"""Reads parts of a ``.tflite`` that no runtime gives: open sizes, metadata, the operations its outputs come from.

Slots and numbers are those of TensorFlow's ``schema.fbs`` and ``metadata_schema.fbs``. It needs no flatbuffers package,
which a device does not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from segformer_tf.errors import InputError

# Operations by the schema's numbers: those that keep their input's values, but for size and type ...
PASS_THROUGH = {
    "DEQUANTIZE": 6,
    "RESHAPE": 22,
    "RESIZE_BILINEAR": 23,
    "TRANSPOSE": 39,
    "SQUEEZE": 43,
    "CAST": 53,
    "EXPAND_DIMS": 70,
    "RESIZE_NEAREST_NEIGHBOR": 97,
    "QUANTIZE": 114,
}
# ... and those that say what an output is.
SOURCES = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "FULLY_CONNECTED": 9,
    "LOGISTIC": 14,
    "SOFTMAX": 25,
    "ARG_MAX": 56,
    "TRANSPOSE_CONV": 67,
    "BATCH_MATMUL": 126,
}
_NAMES = {number: name for name, number in SOURCES.items()}
_NORMALIZATION = 1  # NormalizationOptions among ProcessUnitOptions
_DEEPEST = 16  # operations to follow back from an output
_OUTPUTS = 64  # of one operation that are read
_SLACK = 1 << 20  # bytes of lists that are read, beyond twice the file

_Bytes = bytes | mmap
Normalization = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class FlatFile:
    """What the file's flatbuffer says.

    Attributes:
        inputs: the shape of every input, with -1 for any number.
        sources: for every output the operation of `SOURCES` that its values come from, or "".
        normalization: mean and std in the metadata of the first input, or None.
    """

    inputs: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]
    normalization: Normalization | None


def read_flatfile(path: str | Path) -> FlatFile:
    """Read a ``.tflite``.

    Raises:
        InputError: not a ``.tflite``, or a damaged one.
    """
    with plain_damage(path), Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        model = Table(data, indirect(data, 0))
        graph = model.children(2)[0]
        tensors = graph.children(0)
        inputs = tuple(tensors[i].ints(7) or tensors[i].ints(0) for i in graph.ints(1))
        return FlatFile(inputs, _sources(model, graph), _normalization(model))


@contextmanager
def plain_damage(path: str | Path) -> Iterator[None]:
    """Raises InputError where reading a ``.tflite`` fails, whatever it fails by."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such model file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; expected a .tflite, which segformer export makes of a run") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: a damaged TFLite file ({error})") from None
    except (IndexError, struct.error, OverflowError, ZeroDivisionError):
        raise InputError(f"{path}: a TFLite file that is cut off or damaged; copy it again") from None


@dataclass
class _Effort:
    """Bytes of lists that may still be read: in a stranger's file many tables can point to one long list."""

    left: int

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("its lists overlap")


class Table:
    """A table of a flatbuffer, its fields by slot; an absent field reads as empty or 0."""

    def __init__(self, data: _Bytes, start: int, effort: _Effort | None = None) -> None:
        self._data, self._start = data, start
        self._effort = effort or _Effort(_SLACK + 2 * len(data))
        self._slots = start - struct.unpack_from("<i", data, start)[0]
        if not 0 <= self._slots <= len(data) - 4:
            raise ValueError("a table points out of it")
        self._length = struct.unpack_from("<H", data, self._slots)[0]

    def _field(self, slot: int) -> int | None:
        place = 4 + 2 * slot
        offset = struct.unpack_from("<H", self._data, self._slots + place)[0] if place < self._length else 0
        return self._start + offset if offset else None

    def number(self, slot: int, kind: str) -> int:
        """A scalar, by its format of the struct module."""
        place = self._field(slot)
        return 0 if place is None else int(struct.unpack_from(f"<{kind}", self._data, place)[0])

    def child(self, slot: int) -> Table | None:
        place = self._field(slot)
        return None if place is None else Table(self._data, indirect(self._data, place), self._effort)

    def _vector(self, slot: int, width: int, *, read: bool = True) -> tuple[int, int]:
        """Where its items start, and how many there are."""
        place = self._field(slot)
        if place is None:
            return 0, 0
        start = indirect(self._data, place)
        count = struct.unpack_from("<I", self._data, start)[0]
        if start + 4 + width * count > len(self._data):
            raise ValueError("a list is longer than it")
        if read:
            self._effort.spend(width * count)
        return start + 4, count

    def children(self, slot: int) -> list[Table]:
        start, count = self._vector(slot, 4)
        return [Table(self._data, indirect(self._data, start + 4 * i), self._effort) for i in range(count)]

    def ints(self, slot: int) -> tuple[int, ...]:
        start, count = self._vector(slot, 4)
        return struct.unpack_from(f"<{count}i", self._data, start)

    def floats(self, slot: int) -> tuple[float, ...]:
        start, count = self._vector(slot, 4)
        return struct.unpack_from(f"<{count}f", self._data, start)

    def length(self, slot: int) -> int:
        """Of bytes."""
        return self._vector(slot, 1, read=False)[1]

    def longs(self, slot: int) -> tuple[int, ...]:
        start, count = self._vector(slot, 8)
        return struct.unpack_from(f"<{count}q", self._data, start)

    def content(self, slot: int) -> bytes:
        """Bytes, or a string's."""
        start, count = self._vector(slot, 1)
        return self._data[start : start + count]


def indirect(data: _Bytes, place: int) -> int:
    """Where the offset at a place points."""
    return place + int(struct.unpack_from("<I", data, place)[0])


def _sources(model: Table, graph: Table) -> tuple[str, ...]:
    codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.children(1)]
    producer = {tensor: op for op in graph.children(3) for tensor in op.ints(2)[:_OUTPUTS]}

    def source(tensor: int) -> str:
        for _ in range(_DEEPEST):
            if (op := producer.get(tensor)) is None:
                return ""
            code = codes[op.number(0, "I")]
            if code not in PASS_THROUGH.values():
                return _NAMES.get(code, "")
            tensor = op.ints(1)[0]
        return ""

    return tuple(source(tensor) for tensor in graph.ints(2))


def _normalization(model: Table) -> Normalization | None:
    for entry in model.children(6):
        if entry.content(0) != b"TFLITE_METADATA":
            continue
        data = model.children(4)[entry.number(1, "I")].content(0)
        for graph in Table(data, indirect(data, 0)).children(3)[:1]:
            for image in graph.children(2)[:1]:
                for unit in image.children(4):
                    options = unit.child(1)
                    if unit.number(0, "B") == _NORMALIZATION and options:
                        return options.floats(0), options.floats(1)
    return None
