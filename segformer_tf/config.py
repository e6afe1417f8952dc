"""Sizes of SegFormer: one frozen dataclass and the paper's table of variants.

Source: SegFormer, arXiv 2105.15203, Table 6, with ``mlp_ratio = 4`` in every
stage, as in the released weights (the table prints 8 for stages 1 and 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite, prod
from typing import Any

import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.labels import Labels

Four = tuple[int, int, int, int]
Three = tuple[float, float, float]

MIN_IMAGE_SIDE = 29  # below it a stage's sequence reduction has no key left

# ImageNet's, RGB, on a scale of 0..255.
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)

BITS = range(8, 17)  # per channel of an image


@dataclass(frozen=True, kw_only=True)
class SegFormerConfig:
    """Everything needed to build a SegFormer.

    Attributes:
        num_classes: channels of the logits.
        embed_dims: channels of c1..c4.
        depths: transformer blocks per stage.
        decoder_width: width D of the decoder.
        num_heads: attention heads per stage.
        sr_ratios: sequence-reduction ratio per stage as a side; R of the paper is its square.
        patch_sizes: kernel of each overlap patch merging.
        strides: stride of each overlap patch merging.
        mlp_ratio: hidden width of Mix-FFN over the stage's channels.
        drop_path_rate: drop path of the last block; it rises linearly from 0.
        dropout_rate: whole-channel dropout before the classifier.
        norm_epsilon: epsilon of block and stage norms (NVlabs 1e-6, transformers 1e-5).
        stage_norm_epsilon: epsilon of stage norms where it is another, as in keras-hub, or None.
        patch_norm_epsilon: epsilon of patch-embedding and reduction norms.
        batch_norm_epsilon: epsilon of the decoder's batch normalization.
        gelu: "erf", the paper's, or "tanh", keras-hub's approximation of it.
        decoder: "all_mlp", the paper's, or "mmseg", that of mmsegmentation 1.x, which is another network.
        labels: class names and colors, saved with the weights, or None.
        image_mean, image_std: of the network's input, RGB, on a scale of 0..255; see `normalize`.
        image_bits: bits in use, 8 to 16, in image files of more than 8 bits per channel; None for all 16.
        license: terms of the weights in one line, saved with them, or "".

    Raises:
        InputError: a size that is not positive, channels that heads do not divide, or a bad normalization.
    """

    num_classes: int
    embed_dims: Four
    depths: Four
    decoder_width: int
    num_heads: Four = (1, 2, 5, 8)
    sr_ratios: Four = (8, 4, 2, 1)
    patch_sizes: Four = (7, 3, 3, 3)
    strides: Four = (4, 2, 2, 2)
    mlp_ratio: int = 4
    drop_path_rate: float = 0.1
    dropout_rate: float = 0.1
    norm_epsilon: float = 1e-6
    stage_norm_epsilon: float | None = None
    patch_norm_epsilon: float = 1e-5
    batch_norm_epsilon: float = 1e-5
    gelu: str = "erf"
    decoder: str = "all_mlp"
    labels: Labels | None = None
    license: str = ""
    image_mean: Three = IMAGE_MEAN
    image_std: Three = IMAGE_STD
    image_bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("embed_dims", "depths", "num_heads", "sr_ratios", "patch_sizes", "strides"):
            value = tuple(getattr(self, name))
            if len(value) != 4 or any(not isinstance(v, int) or v < 1 for v in value):
                raise InputError(f"{name} must be four positive integers. Received: {name}={value}")
            object.__setattr__(self, name, value)
        for name in ("num_classes", "decoder_width", "mlp_ratio"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a positive integer. Received: {name}={getattr(self, name)}")
        for name in ("drop_path_rate", "dropout_rate"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name} must be in [0, 1). Received: {name}={getattr(self, name)}")
        for name in ("image_mean", "image_std"):
            object.__setattr__(self, name, _three(name, getattr(self, name)))
        if min(self.image_std) <= 0:
            raise InputError(f"image_std must be positive. Received: image_std={self.image_std}")
        check_bits(self.image_bits, name="image_bits")
        if self.decoder not in ("all_mlp", "mmseg"):
            raise InputError(f"decoder must be all_mlp or mmseg. Received: decoder={self.decoder!r}")
        if self.gelu not in ("erf", "tanh"):
            raise InputError(f"gelu must be erf or tanh. Received: gelu={self.gelu!r}")
        for dim, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if dim % heads:
                raise InputError(f"embed_dims must be divisible by num_heads. Received: {dim} and {heads}")
        if self.labels is not None and len(self.labels.names) != self.num_classes:
            raise InputError(
                f"labels must name every class: expected {self.num_classes} names. Received: {len(self.labels.names)}"
            )

    @property
    def epsilons(self) -> dict[str, float]:
        """Of block norms, stage norms, patch-embedding and reduction norms, and batch normalization, by field."""
        return {
            "norm_epsilon": self.norm_epsilon,
            "stage_norm_epsilon": self.norm_epsilon if self.stage_norm_epsilon is None else self.stage_norm_epsilon,
            "patch_norm_epsilon": self.patch_norm_epsilon,
            "batch_norm_epsilon": self.batch_norm_epsilon,
        }

    @property
    def encoder_parameter_count(self) -> int:
        """Trainable parameters of the encoder, counted without building it."""
        count, channels = 0, 3
        for i, c in enumerate(self.embed_dims):
            sr, hidden = self.sr_ratios[i], self.mlp_ratio * c
            count += self.patch_sizes[i] ** 2 * channels * c + 3 * c  # patch embedding and its norm
            reduction = sr**2 * c * c + 3 * c if sr > 1 else 0
            attention = 4 * (c * c + c) + reduction  # q, kv, proj
            mix_ffn = 2 * c * hidden + hidden + c + 10 * hidden  # fc1, fc2, dwconv
            count += self.depths[i] * (4 * c + attention + mix_ffn) + 2 * c  # two norms per block, one per stage
            channels = c
        return count

    @property
    def parameter_count(self) -> int:
        """Trainable parameters of encoder and decoder, counted without building them."""
        width = self.decoder_width
        bias = 1 if self.decoder == "all_mlp" else 2  # mmseg: no bias, but a batch normalization
        branches = sum(c * width + bias * width for c in self.embed_dims)
        return self.encoder_parameter_count + branches + 4 * width**2 + 2 * width + (width + 1) * self.num_classes

    @property
    def classifier_parameter_count(self) -> int:
        """Trainable parameters of encoder and classification head, counted without building them."""
        return self.encoder_parameter_count + (self.embed_dims[-1] + 1) * self.num_classes

    @property
    def reconstructor_parameter_count(self) -> int:
        """Trainable parameters of encoder and pixel head, counted without building them."""
        return self.encoder_parameter_count + (self.embed_dims[-1] + 1) * 3 * prod(self.strides) ** 2

    @property
    def normalization(self) -> str:
        """Mean and standard deviation in words."""
        mean, std = (", ".join(f"{value:g}" for value in three) for three in (self.image_mean, self.image_std))
        return f"mean {mean}, std {std}"

    def normalize(self, pixels: Any) -> Any:
        """The network's input from RGB on a scale of 0..255: ``(pixels - image_mean) / image_std``.

        Args:
            pixels: (..., 3), a numpy array or a TensorFlow tensor of floats.

        Returns:
            The same kind and dtype; numpy integers become float32, or float64 where that is too small.
        """
        return normalize(pixels, mean=self.image_mean, std=self.image_std)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SegFormerConfig:
        """Rebuild from `to_dict`.

        Raises:
            InputError: an unknown field.
        """
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(f"unknown SegFormerConfig fields: {sorted(unknown)}")
        labels = data.get("labels")
        return cls(**{**data, "labels": Labels.from_dict(labels) if labels is not None else None})


def check_bits(bits: Any, *, name: str = "bits") -> int | None:
    """Return `bits`; raises InputError, which calls it `name`, unless it is None or an integer in `BITS`."""
    if bits is None or (type(bits) is int and bits in BITS):
        return bits
    raise InputError(f"{name} must be an integer from {BITS[0]} to {BITS[-1]}. Received: {bits!r}")


def check_image_shape(shape: Any, what: str = "image") -> None:
    """Raises InputError, which calls it `what`, for an image too small for the reductions, or not of 3 channels."""
    height, width = shape[1], shape[2]
    for name, size in (("height", height), ("width", width)):
        if size is not None and size < MIN_IMAGE_SIDE:
            raise InputError(f"{what} {name} must be at least {MIN_IMAGE_SIDE} pixels. Received: {height}x{width}")
    if shape[3] not in (3, None):
        raise InputError(f"{what} must be RGB (batch, height, width, 3). Received: {tuple(shape)}")


def normalize(pixels: Any, *, mean: Any = IMAGE_MEAN, std: Any = IMAGE_STD) -> Any:
    """``(pixels - mean) / std`` of (..., 3), with ImageNet's values by default; see `SegFormerConfig.normalize`."""
    if isinstance(pixels, np.ndarray):  # numpy would compute with a tuple in float64
        kind = np.result_type(pixels.dtype, np.float32)
        return (pixels - np.asarray(mean, kind)) / np.asarray(std, kind)
    return (pixels - mean) / std


def _three(name: str, values: Any) -> Three:
    try:
        red, green, blue = (float(value) for value in values)
    except (OverflowError, TypeError, ValueError):
        red = green = blue = float("nan")
    if not all(map(isfinite, (red, green, blue))):
        raise InputError(f"{name} must be three finite numbers, on a scale of 0..255. Received: {name}={values!r}")
    return red, green, blue


_B1_DIMS = (64, 128, 320, 512)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "b0": {"embed_dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2), "decoder_width": 256},
    "b1": {"embed_dims": _B1_DIMS, "depths": (2, 2, 2, 2), "decoder_width": 256},
    "b2": {"embed_dims": _B1_DIMS, "depths": (3, 4, 6, 3), "decoder_width": 768},
    "b3": {"embed_dims": _B1_DIMS, "depths": (3, 4, 18, 3), "decoder_width": 768},
    "b4": {"embed_dims": _B1_DIMS, "depths": (3, 8, 27, 3), "decoder_width": 768},
    "b5": {"embed_dims": _B1_DIMS, "depths": (3, 6, 40, 3), "decoder_width": 768},
    # Not in the paper: small enough for tests, with every code path of b0.
    "tiny": {"embed_dims": (8, 16, 20, 32), "depths": (1, 1, 2, 1), "decoder_width": 32},
}


def variant_config(variant: str, *, num_classes: int, **overrides: Any) -> SegFormerConfig:
    """The config of a named variant ("b0".."b5" or "tiny"), with fields overridden.

    Raises:
        InputError: an unknown variant or field value.
    """
    if variant not in VARIANTS:
        raise InputError(f"variant must be one of {', '.join(VARIANTS)}. Received: variant={variant!r}")
    return replace(SegFormerConfig(num_classes=num_classes, **VARIANTS[variant]), **overrides)
