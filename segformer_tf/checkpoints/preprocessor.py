"""transformers' ``preprocessor_config.json``: what is done to an image before the network, read and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.checkpoints.folder import read_json
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD, SegFormerConfig, Three
from segformer_tf.errors import InputError

FILE = "preprocessor_config.json"
_SMALLEST = 1e-9  # of a number that is accepted: float32 holds the results
_LARGEST_INPUT = 256.0  # raw pixels, the largest that a network is trained on; torch's 0.485 unscaled gives 1000
_BILINEAR = 2  # Pillow's number of the filter
_FILTERS = {0: "nearest", 1: "lanczos", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class Preprocessor:
    """What a file says.

    Attributes:
        mean, std: of RGB on a scale of 0..255.
        notes: what is done differently here, one line each.
    """

    mean: Three = IMAGE_MEAN
    std: Three = IMAGE_STD
    notes: tuple[str, ...] = ()


def read_preprocessor(checkpoint: Path) -> Preprocessor:
    """The file beside a checkpoint, or in its folder; where there is none, ImageNet's normalization.

    Keys that it lacks are as `transformers.SegformerImageProcessor` has them.

    Raises:
        InputError: a file that cannot be read, or asks for what no configuration here can do.
    """
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / FILE
    if not path.is_file():
        return Preprocessor()
    settings = read_json(path, "a configuration of an image processor")
    try:
        mean, std = _normalization(settings)
        return Preprocessor(mean, std, tuple(f"{path}: {note}" for note in _notes(settings)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def linear_preprocessor(scale: list[float], offset: list[float]) -> tuple[Three, Three]:
    """Mean and deviation, on a scale of 0..255, of ``pixels * scale + offset``; raises InputError if there are none."""
    if not all(_SMALLEST < s < 1 / _SMALLEST and abs(o) < 1 / _SMALLEST for s, o in zip(scale, offset, strict=True)):
        raise InputError(
            f"pixels are made by scale {scale} and offset {offset}: expected positive factors and finite numbers"
        )
    if max(max(abs(s * 255 + o), abs(o)) for s, o in zip(scale, offset, strict=True)) > _LARGEST_INPUT:
        raise InputError(
            f"scale {scale} and offset {offset} give the network values beyond {_LARGEST_INPUT:g}, which none is "
            "trained on"
        )
    mean, std = zip(*((_rounded(0 - o / s), _rounded(1 / s)) for s, o in zip(scale, offset, strict=True)), strict=True)
    return mean, std


def preprocessor_config(config: SegFormerConfig, size: tuple[int, int]) -> dict[str, object]:
    """What `transformers.AutoImageProcessor` reads, for images stretched to `size` (height, width)."""
    height, width = size
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [_rounded(value / 255) for value in config.image_mean],
        "image_std": [_rounded(value / 255) for value in config.image_std],
        "do_reduce_labels": False,
    }


def _normalization(settings: dict[str, Any]) -> tuple[Three, Three]:
    for name in ("do_flip_channel_order", "rescale_offset", "offset"):
        if _flag(settings, name, default=False):
            raise InputError(f"{name} cannot be followed: images are RGB here, and rescaled by a factor alone")
    factor = settings.get("rescale_factor", 1 / 255) if _flag(settings, "do_rescale") else 1.0
    if not _is_number(factor) or not factor > _SMALLEST:
        raise InputError(f"rescale_factor must be a positive number. Received: {factor!r}")
    if not _flag(settings, "do_normalize"):
        return (0.0,) * 3, (_rounded(1 / factor),) * 3
    mean = _three(settings, "image_mean", [value / 255 for value in IMAGE_MEAN])
    std = _three(settings, "image_std", [value / 255 for value in IMAGE_STD])
    if not min(std) > _SMALLEST:
        raise InputError(f"image_std must be positive. Received: {settings['image_std']!r}")
    # (pixels · factor - mean) / std
    if max(max(abs(factor * 255 - m), abs(m)) / s for m, s in zip(mean, std, strict=True)) > _LARGEST_INPUT:
        raise InputError(
            f"image_mean {mean} and image_std {std} do not fit rescale_factor {factor:g}: the network would see "
            f"values beyond {_LARGEST_INPUT:g}, which none is trained on"
        )
    red, green, blue = (_rounded(value / factor) for value in mean)
    red_std, green_std, blue_std = (_rounded(value / factor) for value in std)
    return (red, green, blue), (red_std, green_std, blue_std)


def _notes(settings: dict[str, Any]) -> list[str]:
    notes, size = [], settings.get("size")
    if _flag(settings, "do_reduce_labels", default=False) or _flag(settings, "reduce_labels", default=False):
        notes.append('do_reduce_labels: class 0 here is id 1 of its masks; a manifest has ids from 1 and "ignore": [0]')
    if _flag(settings, "do_resize"):
        if (resample := settings.get("resample", _BILINEAR)) != _BILINEAR:
            known = (_FILTERS.get(resample) if isinstance(resample, int) else None) or repr(resample)
            notes.append(f"resample is {known}; images are resized by the bilinear filter here")
        if isinstance(size, dict) and not {"height", "width"} <= size.keys():
            notes.append(
                f"size is {json.dumps(size)}, which keeps the ratio of sides; images are stretched to --size here"
            )
    for name in ("do_center_crop", "do_pad"):
        if _flag(settings, name, default=False):
            notes.append(f"{name} is not followed; images are stretched whole here")
    return notes


def _flag(settings: dict[str, Any], name: str, *, default: bool = True) -> bool:
    value = settings.get(name, default)
    if value is None:  # which transformers takes for its default
        return default
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false. Received: {value!r}")
    return value


def _three(settings: dict[str, Any], name: str, default: list[float]) -> list[float]:
    value = settings.get(name)
    if value is None:
        return default
    values = [value] * 3 if _is_number(value) else value
    if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
        raise InputError(f"{name} must be three numbers. Received: {value!r}")
    return values


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1 / _SMALLEST  # and a nan is not


def _rounded(value: float) -> float:
    """To the digits that float32 holds, so that 0.485 · 255 is 123.675."""
    return float(f"{value:.9g}")
