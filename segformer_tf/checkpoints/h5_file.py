"""`tf_model.h5`, as transformers 4 wrote its TensorFlow models: the tensors under torch's names, in torch's layout.

A top layer is a group, and below it is the path of each variable: ``segformer/MODEL/segformer/encoder/…/kernel:0``.
Source: the layers' names in transformers 4, `modeling_tf_segformer.py`, and Keras 2's layout of weight files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.dialects import TORCH_NAMES
from segformer_tf.errors import InputError, first_line

_TOP = ("segformer", "decode_head", "classifier")


def read_h5(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every variable as float32; raises InputError for a damaged file, or one of another layout."""
    import h5py

    tensors: dict[str, NDArray[np.float32]] = {}

    def take(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not name.endswith(":0"):
            return
        key = _torch_name(name)
        if item.dtype.kind != "f" or item.is_virtual or item.external or item.id.get_storage_size() < item.nbytes:
            raise InputError(f"{name} is no plain array of floats")
        if key in tensors:
            raise InputError(f"{name} is there twice")
        tensors[key] = _torch_layout(item[()].astype(np.float32))

    try:
        with h5py.File(path) as file:
            file.visititems(take)  # which follows no link
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # h5py raises anything for a damaged file
        raise InputError(f"{path}: not a readable HDF5 file ({first_line(error)})") from None
    if not tensors:
        raise InputError(f"{path}: holds no variables as transformers' tf_model.h5 has them (…/kernel:0)")
    return tensors


def _torch_name(name: str) -> str:
    top, *parts = name.removesuffix(":0").split("/")
    *layers, variable = parts[parts.index(top) :] if top in _TOP and top in parts else (top, *parts)
    return ".".join([*layers, TORCH_NAMES.get(variable, variable)])


def _torch_layout(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel (H, W, I, O) -> (O, I, H, W), also where I is the one channel of a group; (I, O) -> (O, I)."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
