"""Tensors of a checkpoint, by name, without running anything that is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.folder import SUFFIXES, find_files, read_json
from segformer_tf.checkpoints.h5_file import read_h5
from segformer_tf.checkpoints.numbers import SIZES, decoded
from segformer_tf.checkpoints.torch_file import TorchFile, open_torch_file
from segformer_tf.checkpoints.torch_pickle import TorchTensor, is_other_tensor, module_tensors
from segformer_tf.errors import InputError, first_line

Tensors = dict[str, NDArray[np.float32]]

# What training scripts put around a state dict, outermost first.
_WRAPS = ("state_dict_ema", "ema", "ema_state_dict", "model_ema", "state_dict", "model_state_dict", "model", "module")

_LARGEST_SHARE = 8  # tensors with the same numbers: tied ones, or one network under several names


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, in torch's layout, and what in the file was not read, one line each."""

    tensors: Tensors
    notes: tuple[str, ...] = ()


def read_state_dict(path: Path) -> StateDict:
    """Every tensor of a checkpoint as float32, in torch's layout.

    Args:
        path: ``.safetensors``, its ``.index.json`` of several files, transformers' ``tf_model.h5``, what ``torch.save``
            wrote (``.pth``, ``.pt``, ``.bin``, ``.ckpt``), or a folder with one of these.

    Raises:
        InputError: no such file, a damaged one, or one without tensors by name.
    """
    file = find_files(path).file if path.is_dir() else path
    if file is None or not file.is_file():
        raise InputError(f"{path}: no such checkpoint")
    if file.stat().st_size == 0:
        raise InputError(f"{file}: an empty file")
    if file.name.endswith(".index.json"):
        return _read_shards(file)
    if file.suffix == ".safetensors":
        return StateDict(_read_safetensors(file))
    if file.suffix == ".h5":
        return StateDict(read_h5(file))
    if file.suffix in SUFFIXES:
        return _read_torch(file)
    raise InputError(f"{file}: expected {', '.join(SUFFIXES)} or .index.json")


def _read_shards(index: Path) -> StateDict:
    try:
        shard_of = read_json(index)["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (AttributeError, InputError, KeyError, TypeError) as error:
        raise InputError(f'{index}: expected {{"weight_map": {{tensor: file}}}} ({error})') from None
    for name in shards:
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\]+\.(safetensors|bin)", name):
            raise InputError(f"{index}: expected names of .safetensors or .bin files beside it. Received: {name!r}")
    tensors: Tensors = {}
    notes: dict[str, None] = {}
    for name in shards:
        part = read_state_dict(index.with_name(name))
        if twice := tensors.keys() & part.tensors.keys():
            raise InputError(f"{index}: two files hold {sorted(twice)[0]}")
        tensors |= part.tensors
        notes |= dict.fromkeys(part.notes)
    if lacking := sorted(shard_of.keys() ^ tensors.keys()):
        raise InputError(f"{index}: {lacking[0]} is in the index or in its files, not in both ({len(lacking)} such)")
    return StateDict(tensors, tuple(notes))


def _read_safetensors(path: Path) -> Tensors:
    try:
        import safetensors

        entries = safetensors.deserialize(path.read_bytes())
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable safetensors file ({first_line(error)})") from None
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in SIZES:
            raise InputError(f"{path}: {name} is of dtype {entry['dtype']}; expected one of {', '.join(SIZES)}")
        tensors[name] = decoded(entry["dtype"], bytes(entry["data"])).reshape(entry["shape"])
    return tensors


def _read_torch(path: Path) -> StateDict:
    with open_torch_file(path) as file:
        tensors = _tensors_of(path, file)
        unread = sorted(file.unread)
    packages = ", ".join(unread)
    notes = f"{path}: tensors alone are read; its objects of {packages} are not, and nothing in it was run"
    return StateDict(tensors, (notes,) if unread else ())


def _tensors_of(path: Path, file: TorchFile) -> Tensors:
    content: Any = file.content
    for _ in _WRAPS:
        content = module_tensors(content)
        if content is None:
            break
        inner = next((wrap for wrap in _WRAPS if module_tensors(content.get(wrap)) is not None), None)
        if inner is None:
            if tensors := _plain(path, content, file):
                return tensors
            break
        content = content[inner]
    raise InputError(f"{path}: holds no state dict; expected tensors by name, or one of {', '.join(_WRAPS)}")


def _plain(path: Path, held: Mapping[Any, Any], file: TorchFile) -> Tensors:
    tensors: Tensors = {}
    for name, value in held.items():
        if other := is_other_tensor(value):
            raise InputError(f"{path}: {name} is no plain tensor of real numbers ({other})")
        if not isinstance(value, TorchTensor):
            continue
        if not isinstance(name, str):
            raise InputError(f"{path}: {name!r} is no name of a tensor")
        try:
            tensors[name] = file.numbers(value)
        except InputError as error:
            raise InputError(f"{path}: {name} {error}") from None
    claimed = sum(tensor.size for tensor in tensors.values())
    if claimed > _LARGEST_SHARE * file.held:  # for a network is built by the shapes
        raise InputError(f"{path}: its tensors claim {claimed} numbers, the file holds {file.held}")
    return tensors
