"""Files of `torch.save`, read without torch: a pickle, with numbers beside it in a zip archive or, in old ones, behind.

Source: the layout that `torch/serialization.py` writes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.numbers import SIZES, decoded
from segformer_tf.checkpoints.torch_pickle import Storage, TensorUnpickler, TorchTensor
from segformer_tf.errors import InputError, first_line

_LARGEST_PICKLE = 1 << 28  # bytes, beside the numbers
_ZIP, _MAGIC, _PROTOCOL = b"PK\3\4", 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class TorchFile:
    """An open file.

    Attributes:
        content: what was saved, of dicts, lists, tuples, numbers, strings and `TorchTensor`, and of inert objects for
            everything else.
        unread: the packages of those.
    """

    content: Any
    unread: tuple[str, ...]
    _bytes: Callable[[Storage], bytes]
    _held: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """How many numbers were read for the tensors that were asked for; those that tensors share count once."""
        return sum(numbers.size for numbers in self._held.values())

    def numbers(self, tensor: TorchTensor) -> NDArray[np.float32]:
        """The numbers of a tensor, of its shape; raises InputError, which begins with a verb, where there are none."""
        storage = tensor.storage
        if storage.kind is None:
            raise InputError("is no plain tensor of real numbers")
        place = storage.key, storage.kind
        if place not in self._held:
            try:
                self._held[place] = decoded(storage.kind, self._bytes(storage))
            except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
                raise InputError(f"cannot be read ({first_line(error)})") from None
        held, first = self._held[place], storage.start + tensor.offset
        last = first + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        count = prod(tensor.shape)
        if count > held.size or (count and last >= held.size):
            raise InputError(f"claims {tensor.shape}, more than the file holds")
        strides = [step * held.itemsize for step in tensor.stride]
        return np.lib.stride_tricks.as_strided(held[first:], tensor.shape, strides, writeable=False)


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open what `torch.save` wrote.

    Raises:
        InputError: damaged, of big-endian numbers, or not by `torch.save`.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == _ZIP
        if zipped:
            with zipfile.ZipFile(path) as archive:
                yield _in_archive(path, archive)
        else:
            yield _in_a_row(path)
    except InputError:
        raise
    except Exception as error:  # pickles and archives that are damaged raise anything
        reason = f"damaged, or not written by torch.save: {first_line(error)}"
        raise InputError(f"{path}: not a checkpoint of tensors ({reason})") from None


def _in_archive(path: Path, archive: zipfile.ZipFile) -> TorchFile:
    names = set(archive.namelist())
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError("no data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in names:
        raise InputError(f"{path}: a program of TorchScript; save the model's state_dict() instead")
    if f"{root}byteorder" in names and _stored(archive, f"{root}byteorder") != b"little":
        raise InputError(f"{path}: holds big-endian numbers; save it on another machine")
    unpickler = TensorUnpickler(BytesIO(_stored(archive, f"{root}data.pkl", _LARGEST_PICKLE)))
    content = unpickler.load()
    return TorchFile(content, tuple(unpickler.unread), lambda s: _stored(archive, f"{root}data/{s.key}"))


def _stored(archive: zipfile.ZipFile, name: str, largest: int | None = None) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or (largest and info.file_size > largest):
        raise ValueError(f"{name} is compressed or larger than expected")
    return archive.read(info)


def _in_a_row(path: Path) -> TorchFile:
    """A file of before torch 1.6: pickles of a header, the object and the names of its storages, then the numbers."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = [TensorUnpickler(file).load() for _ in range(3)]
        if header[:2] != [_MAGIC, _PROTOCOL] or not isinstance(header[2], dict):
            raise ValueError("another header")
        if not header[2].get("little_endian", True):
            raise InputError(f"{path}: holds big-endian numbers; save it on another machine")
        unpickler = TensorUnpickler(file)
        content = unpickler.load()
        numbers = {}
        for key in TensorUnpickler(file).load():
            kind = unpickler.kinds[key]
            count = int.from_bytes(file.read(8), "little")
            if kind is None:
                raise InputError(f"{path}: holds a tensor that is of no real numbers")
            if count * SIZES[kind] > size:
                raise ValueError("cut off")
            numbers[key] = file.read(count * SIZES[kind])
    return TorchFile(content, tuple(unpickler.unread), lambda storage: numbers[storage.key])
