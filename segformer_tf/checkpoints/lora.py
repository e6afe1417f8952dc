"""LoRA adapters of PEFT, merged into the tensors of their base: W + scale · B A, and layers that were saved whole.

Source: Hu et al., arXiv 2106.09685, section 4.1; rank-stabilized: Kalajdzievski, arXiv 2312.03732; and the file layout
of PEFT's `save_pretrained`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.dialects import DIALECTS, Dialect
from segformer_tf.checkpoints.folder import ADAPTER_CONFIG, read_json
from segformer_tf.checkpoints.state_dict import Tensors, read_state_dict
from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError

_LARGEST_RANK = 4096
# options that are read here, or that the result W + scale · B A does not depend on
_KNOWN = {
    *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "init_lora_weights", "target_modules", "exclude_modules", "modules_to_save", "bias"),
    *("layers_to_transform", "layers_pattern", "task_type", "auto_mapping", "peft_version", "inference_mode"),
    *("lora_dropout", "eva_config", "runtime_config", "megatron_config", "megatron_core", "qalora_group_size"),
    *("fan_in_fan_out", "ensure_weight_tying"),  # of layers that no SegFormer has
}
# ways to begin that leave the base's weights as they are
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors and options, not merged yet.

    Attributes:
        path: its weights.
        base: name of the base: a path, or OWNER/NAME on the hub; or "".
        rank: of layers without one of their own.
        options: of its ``adapter_config.json``.
        tensors: by the names of the modules that they belong to.
    """

    path: Path
    base: str
    rank: int
    options: Mapping[str, Any]
    tensors: Tensors

    def merged(self, tensors: Tensors, dialect: Dialect, root: str, config: SegFormerConfig) -> Tensors:
        """The base's tensors with the adapter in them.

        Args:
            tensors: of the base, by names of `dialect`, without what wraps them.
            dialect, root: of the base.
            config: its sizes.

        Raises:
            InputError: a layer that the base does not have, or a matrix that does not fit.
        """
        layers = self._layers(dialect, root, config)
        result, parts = dict(tensors), set(map(_split, self.tensors))
        for key, value in self.tensors.items():
            module, what = _split(key)
            if what == "lora_A.weight":
                weight = f"{layers[module]}weight"
                if weight not in tensors:
                    raise InputError(f"{self.path}: {key} is for {weight}, which the base does not have")
                result[weight] = tensors[weight] + self._delta(module, value, tensors[weight].shape)
            elif what != "lora_B.weight":
                result[layers[module] + what] = value
            elif (module, "lora_A.weight") not in parts:
                raise InputError(f"{self.path}: {key} without the matrix A")
        return result

    def _delta(self, module: str, a: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        b = next((v for k, v in self.tensors.items() if _split(k) == (module, "lora_B.weight")), None)
        rank, scale = self._rank(module), self._scale(module)
        plain = b is not None and a.ndim == b.ndim == len(shape) and a.ndim in (2, 4)
        if b is None or not plain or a.shape[0] != rank or b.shape[1] != rank or b.shape[2:] not in ((), (1, 1)):
            raise InputError(f"{self.path}: {module}: expected matrices A and B of rank {rank} for {shape}")
        product = b.reshape(b.shape[0], rank) @ a.reshape(rank, -1)
        if (b.shape[0], *a.shape[1:]) != shape:
            raise InputError(f"{self.path}: {module}: B A is {(b.shape[0], *a.shape[1:])}, its weight {shape}")
        return product.reshape(shape) * np.float32(scale)

    def _rank(self, module: str) -> int:
        rank = self._of(module, "rank_pattern", self.rank)
        if type(rank) is not int or not 0 < rank <= _LARGEST_RANK:
            raise InputError(f"{self.path}: rank of {module} must be from 1 to {_LARGEST_RANK}. Received: {rank!r}")
        return rank

    def _scale(self, module: str) -> float:
        alpha = self._of(module, "alpha_pattern", self.options.get("lora_alpha", 8))
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e6:
            raise InputError(f"{self.path}: lora_alpha of {module} must be a number. Received: {alpha!r}")
        rank = self._rank(module)
        return alpha / sqrt(rank) if self.options.get("use_rslora") else alpha / rank

    def _of(self, module: str, name: str, default: Any) -> Any:
        """The value of a pattern that is the module's name or the end of it, as PEFT takes the first one."""
        for pattern, value in (self.options.get(name) or {}).items():
            if not re.fullmatch(r"[\w.]+", pattern):
                raise InputError(
                    f"{self.path.parent}: {ADAPTER_CONFIG}: {name} has {pattern!r}; expected a module's name"
                )
            if module == pattern or module.endswith(f".{pattern}"):
                return value
        return default

    def _layers(self, dialect: Dialect, root: str, config: SegFormerConfig) -> dict[str, str]:
        """Prefix of the base's keys by the adapter's module, whichever of transformers' versions named it."""
        base = {(layer, i): part for layer, parts in dialect.layers(config, root) for i, part in enumerate(parts)}
        modules = {_split(key)[0] for key in self.tensors}
        unknown = modules
        for other in DIALECTS:
            for other_root in other.roots:
                names = other.layers(config, other_root)
                places = {str(part): (layer, i) for layer, parts in names for i, part in enumerate(parts)}
                found = {
                    module: base[places[f"{module}."]]
                    for module in modules
                    if f"{module}." in places and isinstance(base.get(places[f"{module}."]), str)
                }
                if found.keys() == modules:
                    return {module: str(prefix) for module, prefix in found.items()}
                unknown = min(unknown, modules - found.keys(), key=len)
        raise InputError(f"{self.path}: adapts {min(unknown)}, which is no layer of its base that is known here")


def read_adapter(path: Path) -> Adapter:
    """An adapter's weights with the ``adapter_config.json`` beside them.

    Raises:
        InputError: files that cannot be read, or an adapter of another kind.
    """
    file = path.parent / ADAPTER_CONFIG
    options = read_json(file, "a configuration of an adapter")
    if (kind := options.get("peft_type")) != "LORA":
        raise InputError(f"{file}: expected peft_type LORA. Received: {kind!r}")
    if other := next((name for name, value in options.items() if value and name not in _KNOWN), None):
        raise InputError(f"{file}: {other} is not merged here; merge it with peft's merge_and_unload and save that")
    if (start := options.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise InputError(f"{file}: init_lora_weights {start!r} changes its base; merge it with peft's merge_and_unload")
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(options.get(name) or {}, dict):
            raise InputError(f"{file}: {name} must be an object. Received: {options[name]!r}")
    rank, base = options.get("r"), options.get("base_model_name_or_path")
    if type(rank) is not int or not 0 < rank <= _LARGEST_RANK:
        raise InputError(f"{file}: r must be from 1 to {_LARGEST_RANK}. Received: {rank!r}")
    tensors = {}
    for key, value in read_state_dict(path).tensors.items():
        if not key.endswith(".num_batches_tracked"):
            tensors[key.removeprefix("base_model.model.")] = value
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    return Adapter(path, base if isinstance(base, str) else "", rank, options, tensors)


def _split(key: str) -> tuple[str, str]:
    """(module, what of it) of an adapter's key, without the names of PEFT's own wrappers."""
    key = re.sub(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)", "", key)
    key = re.sub(r"\.(lora_[AB])\.default\.", r".\1.", key)
    match = re.fullmatch(r"(.+?)\.(lora_[AB]\.weight|[^.]+)", key)
    return (match[1], match[2]) if match else (key, "")
