"""Tensors of a checkpoint at their places in the network: every key used or known to be dead, every variable filled."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.dialects import TORCH_NAMES, Dialect, Part, Rows
from segformer_tf.checkpoints.state_dict import Tensors
from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer, shapes_alone

_SHOWN = 12  # lines of each list in an error


def place(
    path: Path, tensors: Tensors, dialect: Dialect, root: str, config: SegFormerConfig, has_decoder: bool
) -> Tensors:
    """Tensors by our names, in torch's layout.

    Args:
        path: for errors.
        tensors: without what wraps every key.
        dialect: whose names they have.
        root: prefix of the encoder's names.
        config: of the network.
        has_decoder: whether there is more than the encoder.

    Raises:
        InputError: missing, unexpected or mis-shaped keys, listed, or numbers that are not finite.
    """
    shapes = _shapes(replace(config, labels=None, license=""))
    parts = dict(dialect.layers(config, root))
    weights: Tensors = {}
    used, missing, misshaped = set(), [], []
    for variable, shape in shapes.items():
        layer, _, name = variable.rpartition("/")
        if layer.startswith("decoder") and not has_decoder:
            continue
        keys = [_key(part, TORCH_NAMES[name]) for part in parts[layer]]
        used |= set(keys)
        if absent := [key for key in keys if key not in tensors]:
            missing += absent
            continue
        try:
            tensor = np.concatenate([_rows(part, tensors[key]) for part, key in zip(parts[layer], keys, strict=True)])
        except (TypeError, ValueError):  # no rows, or rows that do not match
            tensor = tensors[keys[0]]
        if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) and len(shape) == 2:
            tensor = tensor[:, :, 0, 0]  # mmseg's fc1 and fc2 are 1x1 convolutions
        if to_keras_layout(layer, tensor).shape != shape:
            expected = to_torch_layout(layer, np.empty(shape, np.float32)).shape
            misshaped.append(f"{' + '.join(keys)}: {tensor.shape}, expected {expected}")
        if not np.isfinite(tensor).all():
            raise InputError(f"{path}: {' + '.join(keys)} holds values that are no finite numbers")
        weights[f"{layer}/{TORCH_NAMES[name]}"] = np.ascontiguousarray(tensor)
    unexpected = sorted(key for key in tensors if key not in used and not dialect.is_dead(key))
    if missing or unexpected or misshaped:
        lists = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
        lines = [f"{path}: names of {dialect.name}, but not all of them fit"]
        for title, keys in lists.items():
            lines += [f"  {title}: {key}" for key in keys[:_SHOWN]]
            lines += [f"  {title}: and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
        if unexpected:
            lines.append("  --drop 'REGEX' leaves keys out, --encoder-only takes the encoder alone")
        raise InputError("\n".join(lines))
    return weights


def to_torch_layout(layer: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of `to_keras_layout`."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 0, 1) if layer.endswith("dwconv") else tensor.transpose(3, 2, 0, 1)
    return tensor.T


def _key(part: Part, tensor: str) -> str:
    return (part.prefix if isinstance(part, Rows) else part) + tensor


def _rows(part: Part, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    if not isinstance(part, Rows):
        return tensor
    if len(tensor) % 3:
        raise ValueError("q, k and v are packed in thirds")
    third = len(tensor) // 3
    return tensor[part.first * third : part.last * third]


@lru_cache(maxsize=8)
def _shapes(config: SegFormerConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every variable, by path."""
    with shapes_alone():
        return {v.path: tuple(v.shape) for v in SegFormer(config).weights}


def to_keras_layout(layer: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """A tensor in Keras' layout: linear (out, in) -> (in, out), convolution OIHW -> HWIO, depthwise -> (3, 3, C, 1)."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 0, 1) if layer.endswith("dwconv") else tensor.transpose(2, 3, 1, 0)
    return tensor.T
