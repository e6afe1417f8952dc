"""Arrays of an HDF5 file by their paths; and `tf_model.h5`, as transformers 4 wrote its TensorFlow models.

In the latter a top layer is a group, and below it is the path of each variable under torch's names:
``segformer/MODEL/segformer/encoder/…/kernel:0``.
Source: the layers' names in transformers 4, `modeling_tf_segformer.py`, and Keras 2's layout of weight files.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.dialects import TORCH_NAMES
from segformer_tf.checkpoints.numbers import decoded
from segformer_tf.errors import InputError, first_line

_TOP = ("segformer", "decode_head", "classifier")


def read_arrays(
    source: Path | BytesIO, path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, NDArray[np.float32]]:
    """The arrays of an HDF5 file as float32, by path.

    Args:
        source: the file, or its bytes.
        path: for errors.
        wanted: which paths to read.

    Raises:
        InputError: a damaged file, or what is no plain array of floats.
    """
    import h5py

    arrays: dict[str, NDArray[np.float32]] = {}

    def take(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not wanted(name):
            return
        bfloat16 = item.dtype.kind == "V" and item.dtype.itemsize == 2 and item.attrs.get("dtype") == "bfloat16"
        if item.dtype.kind != "f" and not bfloat16:
            raise InputError(f"{name} is no plain array of floats")
        if item.is_virtual or item.external or item.id.get_storage_size() < item.nbytes:
            raise InputError(f"{name} is no plain array of floats")
        value = item[()]
        arrays[name] = decoded("BF16", value.tobytes()).reshape(value.shape) if bfloat16 else value.astype(np.float32)

    try:
        with h5py.File(source, "r") as file:
            file.visititems(take)  # which follows no link
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # h5py raises anything for a damaged file
        raise InputError(f"{path}: not a readable HDF5 file ({first_line(error)})") from None
    return arrays


def read_h5(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every variable of a ``tf_model.h5`` as float32, under torch's names and in torch's layout.

    Raises:
        InputError: a damaged file, or one of another layout.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, value in read_arrays(path, path, lambda name: name.endswith(":0")).items():
        if (key := _torch_name(name)) in tensors:
            raise InputError(f"{path}: {name} is there twice")
        tensors[key] = torch_layout(value)
    if not tensors:
        raise InputError(
            f"{path}: holds no variables as transformers' tf_model.h5 has them (…/kernel:0); keras-hub's come in a "
            ".keras file or the folder of a preset"
        )
    return tensors


def torch_layout(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel (H, W, I, O) -> (O, I, H, W), also where I is the one channel of a group; (I, O) -> (O, I)."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _torch_name(name: str) -> str:
    top, *parts = name.removesuffix(":0").split("/")
    *layers, variable = parts[parts.index(top) :] if top in _TOP and top in parts else (top, *parts)
    return ".".join([*layers, TORCH_NAMES.get(variable, variable)])
