"""A checkpoint of any of four code bases in, a Keras SegFormer out, strictly.

Every key is used once or is known to be dead, every variable is filled, every shape is checked, or nothing is
written and the error lists what does not fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.dialects import DIALECTS, NVLABS, Dialect, Part, Rows
from segformer_tf.checkpoints.preprocessor import Preprocessor, read_preprocessor
from segformer_tf.checkpoints.state_dict import Tensors, read_state_dict
from segformer_tf.config import VARIANTS, SegFormerConfig
from segformer_tf.errors import InputError
from segformer_tf.keras_file import first_non_finite
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer

_SHOWN = 12  # lines of each list in an error

# Our variable to torch's name for it.
TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every key has a place.

    Attributes:
        path: where it was read.
        dialect: whose names it has.
        config: sizes read from the shapes, epsilons of the code base, labels and normalization if it had some.
        weights: torch-layout tensors by our layer and torch's tensor, "encoder/stage1/block0/attn/q/weight".
        has_decoder: whether it is a segmenter, and not an encoder alone.
        one_logit: whether its head had one, which became two classes.
        notes: what it asks for that is done differently here, one line each.
    """

    path: Path
    dialect: Dialect
    config: SegFormerConfig
    weights: Tensors
    has_decoder: bool
    one_logit: bool = False
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, *, labels: Labels | None = None) -> Checkpoint:
    """Read a checkpoint and place its keys.

    A head of one logit x is a sigmoid; it becomes two classes, background and the one it is for, with the logits
    (0, x), whose softmax is that sigmoid.

    Args:
        path: see `read_state_dict`; a ``config.json`` of transformers beside it gives labels and heads, a
            ``preprocessor_config.json`` the normalization.
        labels: names of the classes, over those of a config.json; of a head of one logit both or the one's.

    Raises:
        InputError: a file that cannot be read, an unknown dialect, or keys that do not fit, listed.
    """
    tensors = read_state_dict(path)
    dialect, wrap, root = _recognize(path, tensors)
    if outside := sorted(key for key in tensors if not key.startswith(wrap)):
        raise InputError(f"{path}: {len(outside)} keys without the prefix {wrap!r} of the others: {outside[0]}")
    if empty := sorted(key for key, value in tensors.items() if value.size == 0):
        raise InputError(f"{path}: {empty[0]} has no elements")
    tensors = {key.removeprefix(wrap): value for key, value in tensors.items()}
    settings, preprocessor = {}, Preprocessor()
    if dialect.name == "transformers":
        settings, preprocessor = _transformers_config(path), read_preprocessor(path)
    one_logit = _two_logits(tensors, dialect)
    config, has_decoder = _sizes(path, tensors, dialect, root, settings)
    count = sum(value.size for value in tensors.values())
    if config.encoder_parameter_count > count:  # never build what the file cannot fill
        raise InputError(f"{path}: {count} numbers for an encoder of {config.encoder_parameter_count}")
    try:
        logits = 1 if one_logit else config.num_classes
        names = labels or (_labels(settings, logits) if has_decoder else None)
        names = _with_background(names) if one_logit else names
    except InputError as error:
        raise InputError(f"{path}: config.json: {error}; --labels names them otherwise") from None
    if names is not None and has_decoder and len(names.names) != config.num_classes:
        raise InputError(f"{path}: has {config.num_classes} classes. Received: {len(names.names)} labels")
    terms = str(settings.get("license", "")) or dialect.terms
    names = names if has_decoder else None
    mean, std = preprocessor.mean, preprocessor.std
    config = replace(config, labels=names, license=terms, image_mean=mean, image_std=std)
    weights = _placed(path, tensors, dialect, root, config, has_decoder)
    return Checkpoint(path, dialect, config, weights, has_decoder, one_logit, preprocessor.notes)


def checkpoint_of(model: SegFormer, path: Path) -> Checkpoint:
    """A Keras model as a checkpoint, to compare another with."""
    return Checkpoint(path, NVLABS, model.config, torch_weights(model), has_decoder=True)


def torch_weights(model: SegFormer) -> Tensors:
    """A Keras model's weights in torch's layout, in the order of `model.weights`, by the names of `Checkpoint`."""
    weights = {}
    for variable in model.weights:
        layer, _, name = variable.path.rpartition("/")
        weights[f"{layer}/{TORCH_NAMES[name]}"] = to_torch_layout(layer, np.asarray(variable.value, np.float32))
    return weights


def to_keras(
    checkpoint: Checkpoint, *, encoder_only: bool = False, num_classes: int | None = None, labels: Labels | None = None
) -> SegFormer:
    """A Keras model with the checkpoint's weights.

    Args:
        checkpoint: from `read_checkpoint`.
        encoder_only: leave the decoder fresh, the paper's; `num_classes` is needed then.
        num_classes: give the model a fresh classifier for this many classes.
        labels: names of the fresh classifier's classes.

    Raises:
        InputError: an encoder alone without `encoder_only`, no number of classes, or weights that are not finite.
    """
    if not checkpoint.has_decoder and not encoder_only:
        raise InputError(f"{checkpoint.path}: an encoder alone; give --encoder-only and --num-classes")
    if num_classes is not None and num_classes < 2:
        raise InputError(f"--num-classes must be two or more, background among them. Received: {num_classes}")
    if encoder_only and num_classes is None:
        raise InputError("--encoder-only needs --num-classes, for the decoder is fresh")
    config = checkpoint.config
    if num_classes is not None:
        config = replace(config, num_classes=num_classes, labels=labels)
    if encoder_only:
        width = _papers_width(list(config.embed_dims), list(config.depths))
        config = replace(config, decoder="all_mlp", decoder_width=width)
    model = SegFormer(config)
    for variable in model.weights:
        layer, _, name = variable.path.rpartition("/")
        if (encoder_only and layer.startswith("decoder")) or (num_classes and layer == "decoder/linear_pred"):
            continue
        variable.assign(to_keras_layout(layer, checkpoint.weights[f"{layer}/{TORCH_NAMES[name]}"]))
    if broken := first_non_finite(model):
        raise InputError(f"{checkpoint.path}: {broken} holds values that are no finite numbers")
    return model


def to_keras_layout(layer: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """A tensor in Keras' layout: linear (out, in) -> (in, out), convolution OIHW -> HWIO, depthwise -> (3, 3, C, 1)."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 0, 1) if layer.endswith("dwconv") else tensor.transpose(2, 3, 1, 0)
    return tensor.T


def _recognize(path: Path, tensors: Tensors) -> tuple[Dialect, str, str]:
    for dialect in DIALECTS:
        if place := dialect.find(list(tensors)):
            return dialect, *place
    some = ", ".join(sorted(tensors, reverse=True)[:3])
    names = ", ".join(dict.fromkeys(dialect.name for dialect in DIALECTS))
    raise InputError(f"{path}: keys of no SegFormer that is known here ({names}). Received: {some}, …")


def _two_logits(tensors: Tensors, dialect: Dialect) -> bool:
    """Give a head of one logit a row of zeros before its own, so that it gives (0, x); returns whether it was one."""
    keys = [dialect.decoder["linear_pred"] + name for name in ("weight", "bias")]
    if any(key not in tensors or tensors[key].shape[:1] != (1,) for key in keys):
        return False
    for key in keys:
        tensors[key] = np.concatenate([np.zeros_like(tensors[key]), tensors[key]])
    return True


def _with_background(names: Labels | None) -> Labels:
    """Names of the classes of a head of one logit, whether both were given, its own or none."""
    if names is not None and len(names.names) > 1:
        return names
    one = names.names[0] if names is not None and names.names[0].lower() != "background" else "foreground"
    return Labels.named(["background", one])


def _sizes(
    path: Path, tensors: Tensors, dialect: Dialect, root: str, settings: dict[str, Any]
) -> tuple[SegFormerConfig, bool]:
    """The configuration that follows from the shapes, and whether there is a decoder."""

    def shape(layer: str, s: int, b: int = 0) -> tuple[int, ...] | None:
        part = dialect.block[layer] if layer in dialect.block else dialect.stage[layer]
        first = part[0] if isinstance(part, tuple) else part
        prefix = first.prefix if isinstance(first, Rows) else first
        tensor = tensors.get(f"{root}{prefix.format(s=s, z=s - 1, b=b)}weight")
        return None if tensor is None else tensor.shape

    dims, depths, ratios, patches, hidden = [], [], [], [], 0
    for s in range(1, 5):
        patch, fc1 = shape("patch_embed/proj", s), shape("mlp/fc1", s)
        if patch is None or len(patch) != 4 or fc1 is None:
            raise InputError(f"{path}: names of {dialect.name}, but stage {s} is missing or of another shape")
        dims.append(patch[0])
        patches.append(patch[2])
        hidden = fc1[0] // patch[0]
        sr = shape("attn/sr", s)
        ratios.append(sr[-1] if sr else 1)
        depth = 1
        while shape("norm1", s, depth) is not None:
            depth += 1
        depths.append(depth)
    classes, width = (tensors.get(f"{dialect.decoder[layer]}weight") for layer in ("linear_pred", "bn"))
    has_decoder = width is not None
    heads = _four(path, settings, "num_attention_heads", (1, 2, 5, 8))
    strides = _four(path, settings, "strides", (4, 2, 2, 2))
    _check_settings(path, settings, dims, depths, ratios, patches)
    try:
        config = SegFormerConfig(
            num_classes=len(classes) if classes is not None and has_decoder else 1,
            embed_dims=tuple(dims),  # type: ignore[arg-type]
            depths=tuple(depths),  # type: ignore[arg-type]
            decoder_width=len(width) if width is not None else _papers_width(dims, depths),
            num_heads=heads,
            strides=strides,
            sr_ratios=tuple(ratios),  # type: ignore[arg-type]
            patch_sizes=tuple(patches),  # type: ignore[arg-type]
            mlp_ratio=hidden,
            norm_epsilon=dialect.norm_epsilon,
            patch_norm_epsilon=dialect.patch_norm_epsilon,
            decoder=dialect.decoder_kind,
        )
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None
    return config, has_decoder


def _four(
    path: Path, settings: dict[str, Any], name: str, default: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    value = settings.get(name, default)
    if not isinstance(value, (list, tuple)) or len(value) != 4 or any(type(v) is not int or v < 1 for v in value):
        raise InputError(f"{path}: config.json: {name} must be four positive integers. Received: {value!r}")
    return value[0], value[1], value[2], value[3]


def _check_settings(path: Path, settings: dict[str, Any], *shapes: list[int]) -> None:
    """Raises InputError for a config.json that contradicts the shapes or describes a network that is not built here."""
    names = ("hidden_sizes", "depths", "sr_ratios", "patch_sizes")
    expected: dict[str, Any] = {**dict(zip(names, shapes, strict=True)), "hidden_act": "gelu", "num_channels": 3}
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise InputError(f"{path}: config.json: {name} is {settings[name]!r}, expected {value!r}")


def _papers_width(dims: list[int], depths: list[int]) -> int:
    """The decoder width that the paper gives to an encoder of these sizes, or its smallest."""
    for variant in VARIANTS.values():
        if (variant["embed_dims"], variant["depths"]) == (tuple(dims), tuple(depths)):
            return variant["decoder_width"]
    return 256


def _placed(
    path: Path, tensors: Tensors, dialect: Dialect, root: str, config: SegFormerConfig, has_decoder: bool
) -> Tensors:
    """Tensors by our names; raises InputError that lists missing, unexpected and mis-shaped keys."""
    with keras.StatelessScope(initialize_variables=False):  # names and shapes alone
        shapes = {v.path: tuple(v.shape) for v in SegFormer(config).weights}
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


def _transformers_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` beside a checkpoint, or nothing."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: not a configuration ({error})") from None
    return settings if isinstance(settings, dict) and settings.get("model_type") == "segformer" else {}


def _labels(settings: dict[str, Any], count: int) -> Labels | None:
    names = settings.get("id2label")
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(count))):
        return None
    return Labels.named([str(names[str(i)]) for i in range(count)])
