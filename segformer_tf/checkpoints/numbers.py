"""Bytes of a file as float32, by the names that safetensors has for kinds of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
SIZES = {"BF16": 2, **{kind: np.dtype(name).itemsize for kind, name in _NUMPY.items()}}


def decoded(kind: str, data: bytes) -> NDArray[np.float32]:
    """Numbers of a kind in `SIZES`, little-endian, as (N,) float32."""
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, _NUMPY[kind]).astype(np.float32)
