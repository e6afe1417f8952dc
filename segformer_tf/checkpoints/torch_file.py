"""Files of `torch.save`, read without torch: a pickle, with numbers beside it in a zip archive or, in old ones, behind.

Source: the layout that `torch/serialization.py` writes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
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

Reader = Callable[[TorchTensor], NDArray[np.float32]]


def read_torch_file(path: Path) -> tuple[Any, Reader, tuple[str, ...]]:
    """What `torch.save` wrote.

    Returns:
        The object, of dicts, lists, tuples, numbers, strings and `TorchTensor`, and of inert objects for everything
        else; a function from a `TorchTensor` to its numbers, (...) float32; the packages whose objects were not read.

    Raises:
        InputError: damaged, of big-endian numbers, or not by `torch.save`.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == _ZIP
        return _read_zip(path) if zipped else _read_plain(path)
    except InputError:
        raise
    except Exception as error:  # pickles and archives that are damaged raise anything
        reason = f"damaged, or not written by torch.save: {first_line(error)}"
        raise InputError(f"{path}: not a checkpoint of tensors ({reason})") from None


def _read_zip(path: Path) -> tuple[Any, Reader, tuple[str, ...]]:
    with zipfile.ZipFile(path) as archive:
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

    def read(storage: Storage) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return _stored(archive, f"{root}data/{storage.key}")

    return content, _reader(path, read), tuple(unpickler.unread)


def _stored(archive: zipfile.ZipFile, name: str, largest: int | None = None) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or (largest and info.file_size > largest):
        raise ValueError(f"{name} is compressed or larger than expected")
    return archive.read(info)


def _read_plain(path: Path) -> tuple[Any, Reader, tuple[str, ...]]:
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
    return content, _reader(path, lambda storage: numbers[storage.key]), tuple(unpickler.unread)


def _reader(path: Path, read: Callable[[Storage], bytes]) -> Reader:
    whole: dict[str, NDArray[np.float32]] = {}

    def numbers(tensor: TorchTensor) -> NDArray[np.float32]:
        storage = tensor.storage
        if storage.kind is None:
            raise InputError("is no plain tensor of real numbers")
        if storage.key not in whole:
            try:
                whole[storage.key] = decoded(storage.kind, read(storage))
            except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
                raise InputError(f"cannot be read ({first_line(error)})") from None
        held, first = whole[storage.key], storage.start + tensor.offset
        last = first + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        count = prod(tensor.shape)
        if count > held.size or (count and last >= held.size):
            raise InputError(f"claims {tensor.shape}, more than the file holds")
        strides = [step * held.itemsize for step in tensor.stride]
        return np.lib.stride_tricks.as_strided(held[first:], tensor.shape, strides, writeable=False)

    return numbers
