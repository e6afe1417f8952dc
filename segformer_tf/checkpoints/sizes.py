"""The network that a checkpoint holds, by the shapes of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segformer_tf.checkpoints.dialects import Dialect, Rows
from segformer_tf.checkpoints.state_dict import Tensors
from segformer_tf.config import VARIANTS, SegFormerConfig
from segformer_tf.errors import InputError

HIDDEN_ACTS = {"erf": "gelu", "tanh": "gelu_pytorch_tanh"}  # transformers' names of the forms of GELU


def network_sizes(
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
            decoder_width=len(width) if width is not None else papers_width(dims, depths),
            num_heads=heads,
            strides=strides,
            sr_ratios=tuple(ratios),  # type: ignore[arg-type]
            patch_sizes=tuple(patches),  # type: ignore[arg-type]
            mlp_ratio=hidden,
            norm_epsilon=dialect.norm_epsilon,
            stage_norm_epsilon=dialect.stage_norm_epsilon,
            patch_norm_epsilon=dialect.patch_norm_epsilon,
            gelu="tanh" if settings.get("hidden_act") == HIDDEN_ACTS["tanh"] else "erf",
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
    expected: dict[str, Any] = {**dict(zip(names, shapes, strict=True)), "num_channels": 3}
    if settings.get("hidden_act") != HIDDEN_ACTS["tanh"]:
        expected["hidden_act"] = HIDDEN_ACTS["erf"]
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise InputError(f"{path}: config.json: {name} is {settings[name]!r}, expected {value!r}")


def papers_width(dims: list[int], depths: list[int]) -> int:
    """The decoder width that the paper gives to an encoder of these sizes, or its smallest."""
    for variant in VARIANTS.values():
        if (variant["embed_dims"], variant["depths"]) == (tuple(dims), tuple(depths)):
            return variant["decoder_width"]
    return 256
