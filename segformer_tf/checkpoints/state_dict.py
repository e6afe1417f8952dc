"""Tensors of a PyTorch checkpoint, by name, without running anything that is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError, first_line

Tensors = dict[str, NDArray[np.float32]]

# What training scripts put around a state dict, outermost first.
_WRAPS = ("state_dict_ema", "ema", "ema_state_dict", "model_ema", "state_dict", "model_state_dict", "model", "module")
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


def read_state_dict(path: Path) -> Tensors:
    """Every tensor of a checkpoint as float32, in torch's layout.

    Args:
        path: ``.safetensors``, its ``.index.json`` of several files, a folder with either, or what ``torch.save``
            wrote (``.pth``, ``.pt``, ``.bin``, ``.ckpt``), which needs torch.

    Raises:
        InputError: no such file, a damaged one, a pickle that holds more than tensors, or torch is missing.
    """
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        return _read_pickle(path)
    raise InputError(f"{path}: expected .safetensors, .index.json, .pth, .pt, .bin or .ckpt")


def _in_folder(folder: Path) -> Path:
    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: a folder without {', '.join(names)}")


def _read_shards(index: Path) -> Tensors:
    try:
        shard_of = json.loads(index.read_text("utf-8"))["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (OSError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f'{index}: expected {{"weight_map": {{tensor: file}}}} ({error})') from None
    for name in shards:
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\]+\.(safetensors|bin)", name):
            raise InputError(f"{index}: expected names of .safetensors or .bin files beside it. Received: {name!r}")
    tensors: Tensors = {}
    for name in shards:
        part = read_state_dict(index.with_name(name))
        if twice := tensors.keys() & part.keys():
            raise InputError(f"{index}: two files hold {sorted(twice)[0]}")
        tensors |= part
    if lacking := sorted(shard_of.keys() ^ tensors.keys()):
        raise InputError(f"{index}: {lacking[0]} is in the index or in its files, not in both ({len(lacking)} such)")
    return tensors


def _read_safetensors(path: Path) -> Tensors:
    try:
        import safetensors

        entries = safetensors.deserialize(path.read_bytes())
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable safetensors file ({first_line(error)})") from None
    return {name: _decoded(path, name, entry) for name, entry in entries}


def _decoded(path: Path, name: str, entry: Mapping[str, Any]) -> NDArray[np.float32]:
    kind, data = entry["dtype"], bytes(entry["data"])
    if kind == "BF16":  # the upper half of a float32
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif kind in _NUMPY:
        values = np.frombuffer(data, _NUMPY[kind]).astype(np.float32)
    else:
        raise InputError(f"{path}: {name} is of dtype {kind}; expected one of BF16, {', '.join(_NUMPY)}")
    return values.reshape(entry["shape"])


def _read_pickle(path: Path) -> Tensors:
    import torch

    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # of before torch 1.6, which cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"it wants to run {match.group(1)}, and nothing was run; save the model's state_dict()"
        else:
            reason = "damaged, or not written by torch.save"
        raise InputError(f"{path}: not a checkpoint of tensors alone ({reason})") from None
    return _tensors_of(path, content)


def _tensors_of(path: Path, content: Any) -> Tensors:
    for _ in _WRAPS:
        if not isinstance(content, Mapping):
            break
        inner = next((wrap for wrap in _WRAPS if isinstance(content.get(wrap), Mapping)), None)
        if inner is None:
            tensors = {key: _dense(path, key, value) for key, value in content.items() if hasattr(value, "storage")}
            if tensors:
                return tensors
            break
        content = content[inner]
    raise InputError(f"{path}: holds no state dict; expected tensors by name, or one of {', '.join(_WRAPS)}")


def _dense(path: Path, name: Any, tensor: Any) -> NDArray[np.float32]:
    """A torch tensor that really holds its numbers, as float32."""
    import torch

    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not isinstance(name, str) or not plain or tensor.is_complex():
        raise InputError(f"{path}: {name} is no plain tensor of real numbers ({tensor.dtype}, {tensor.layout})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path}: {name} claims {tuple(tensor.shape)}, more than the file holds")
    return tensor.detach().float().numpy()
