"""keras-hub's SegFormer: a ``.keras`` file, or a folder as its `save_to_preset` writes it. Neither needs keras-hub.

A file of Keras names a variable by the classes of the layers around it, each numbered where it is not the first of its
class: ``layers/hierarchical_transformer_encoder_3/attn/k/vars/0``. The configuration says how many there are.
Source: keras-hub 0.32, `models/mit` and `models/segformer`, and Keras 3's layout of weight files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.folder import PRESET, PRESET_TASK, read_json
from segformer_tf.checkpoints.h5_file import read_arrays, torch_layout
from segformer_tf.checkpoints.preprocessor import Preprocessor, linear_preprocessor
from segformer_tf.errors import InputError, printable
from segformer_tf.keras_archive import of_keras_hub, read_archive

_SEGMENTER, _BACKBONE, _ENCODER, _CLASSIFIER = (
    "SegFormerImageSegmenter",
    "SegFormerBackbone",
    "MiTBackbone",
    "MiTImageClassifier",
)
_UNREAD = re.compile(r"optimizer/.*|.*/seed_generator/.*")  # the state of a training
_LARGEST = 1e30  # of a number that is taken for one
_NAMES = ("weight", "bias", "running_mean", "running_var")
# keras-hub's name of a size in its configuration, to transformers', by which sizes are checked here
_SETTINGS = {
    "hidden_dims": "hidden_sizes",
    "layerwise_depths": "depths",
    "layerwise_sr_ratios": "sr_ratios",
    "layerwise_patch_sizes": "patch_sizes",
    "layerwise_num_heads": "num_attention_heads",
    "layerwise_strides": "strides",
}
_ATTENTION = ("attn/q", "attn/k", "attn/v", "attn/sr", "attn/norm", "attn/proj")
_BLOCK = ("norm1", *_ATTENTION, "norm2", "mlp/fc1", "mlp/dwconv", "mlp/fc2")


@dataclass(frozen=True)
class KerasHub:
    """What was read.

    Attributes:
        tensors: in torch's layout, by the names of `segformer_tf.checkpoints.dialects.KERAS_HUB`.
        settings: its sizes, as transformers' ``config.json`` calls them.
        preprocessor: what its image converter does.
    """

    tensors: dict[str, NDArray[np.float32]]
    settings: dict[str, Any]
    preprocessor: Preprocessor


def is_of_keras(file: Path) -> bool:
    """Whether a file is for `read_keras_hub` to read or to refuse, by its name."""
    return file.suffix == ".keras" or file.name == PRESET


def read_keras_hub(file: Path) -> KerasHub:
    """Read a ``.keras`` file, or the ``model.weights.h5`` of a preset with what lies beside it.

    Raises:
        InputError: a file that cannot be read, is not of keras-hub's SegFormer, or asks for what is not done here.
    """
    if file.suffix == ".keras":
        saved, weights = read_archive(file)
        arrays = read_arrays(BytesIO(weights), file, _is_read)
        converter = _field(saved, "preprocessor")
    else:
        folder = file.parent
        saved = read_json(folder / "config.json", "a configuration")
        arrays = read_arrays(file, file, _is_read)
        converter = _beside(folder, "preprocessor.json") or _beside(folder, "image_converter.json")
        if (folder / PRESET_TASK).is_file():
            task = read_json(folder / "task.json", "a configuration")
            head = read_arrays(folder / PRESET_TASK, folder / PRESET_TASK, _is_read)
            saved, arrays = task, _with_head(task, arrays, head)
            converter = converter or _field(task, "preprocessor")
    try:
        kind, encoder = _parts(saved)
        for key in ("layerwise_num_heads", "layerwise_strides"):  # which no weight's shape shows
            if key not in encoder:
                raise InputError(f"the configuration of its encoder lacks {key}")
        settings = {name: encoder[key] for key, name in _SETTINGS.items() if key in encoder}
        settings["hidden_act"] = "gelu_pytorch_tanh"  # `keras.ops.gelu` as it is by default
        tensors = dict(_renamed(arrays, kind, settings))
        return KerasHub(tensors, settings, _preprocessor(file, converter))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _parts(saved: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class that was saved, and the configuration of its encoder."""
    kind, backbone = _class(saved), saved
    if not of_keras_hub(saved) or kind not in (_SEGMENTER, _BACKBONE, _ENCODER, _CLASSIFIER):
        if str(saved.get("registered_name")).startswith("segformer_tf>"):
            raise InputError(f"holds a {kind} of segformer_tf, which needs no import")
        theirs = f"a {kind} of {_short(saved.get('module')).split('.')[0]}"
        raise InputError(
            f"holds {theirs}; expected a {_SEGMENTER}, {_BACKBONE}, {_ENCODER} or {_CLASSIFIER} of keras_hub"
        )
    for outer, field, inner in (
        ((_SEGMENTER,), "backbone", _BACKBONE),
        ((_CLASSIFIER,), "backbone", _ENCODER),
        ((_SEGMENTER, _BACKBONE), "image_encoder", _ENCODER),
    ):
        if kind in outer:
            backbone = _field(backbone, field)
            if _class(backbone) != inner:
                raise InputError(f"its {field} is a {_class(backbone)}, expected a {inner}")
    encoder = backbone.get("config")
    if not isinstance(encoder, dict):
        raise InputError(f"its {_ENCODER} has no configuration")
    return kind, encoder


def _renamed(
    arrays: dict[str, NDArray[np.float32]], kind: str, settings: dict[str, Any]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The arrays with their names; what has none here keeps its path."""
    depths = settings.get("depths")
    if not isinstance(depths, list) or any(type(depth) is not int or depth < 1 for depth in depths):
        raise InputError(f"layerwise_depths must be four positive integers. Received: {_short(depths)}")
    if len(depths) != 4 or sum(depths) > len(arrays):
        raise InputError(f"layerwise_depths is {_short(depths)}, which its {len(arrays)} arrays cannot fill")
    names = dict(_names(kind, depths))
    for path, value in arrays.items():
        layer, _, index = path.rpartition("/vars/")
        if layer in names and index in ("0", "1", "2", "3"):
            depthwise = layer.endswith("dwconv") and value.ndim == 4  # (3, 3, C, 1)
            tensor = value.transpose(2, 3, 0, 1) if depthwise else torch_layout(value)
            yield f"{names[layer]}.{_NAMES[int(index)]}", tensor
        else:
            yield path, value


def _names(kind: str, depths: list[int]) -> Iterator[tuple[str, str]]:
    """The name of each layer by its path in the file."""
    backbone = "layers/seg_former_backbone/layers" if kind == _SEGMENTER else "layers"
    of_encoder = {_ENCODER: "layers", _CLASSIFIER: "layers/mi_t_backbone/layers"}
    encoder = of_encoder.get(kind, f"{backbone}/functional/layers")
    block = 0
    for z, depth in enumerate(depths):
        for part in ("proj", "norm"):
            path = f"{encoder}/overlapping_patching_and_embedding{_number(z)}/{part}"
            yield path, f"image_encoder.patch_and_embed_{z}.{part}"
        for b in range(depth):
            path = f"{encoder}/hierarchical_transformer_encoder{_number(block)}"
            for part in _BLOCK:
                yield f"{path}/{part}", f"image_encoder.hierarchical_encoder_{z}_{b}.{part.replace('/', '.')}"
            block += 1
        yield f"{encoder}/layer_normalization{_number(z)}", f"image_encoder.layer_norm_{z}"
    if kind == _CLASSIFIER:
        yield "layers/dense", "classifier"
    if kind in (_SEGMENTER, _BACKBONE):
        for place in range(4):  # as they are concatenated, from c4
            yield f"{backbone}/dense{_number(place)}", f"linear_c{4 - place}"
        yield f"{backbone}/sequential/layers/conv2d", "linear_fuse.0"
        yield f"{backbone}/sequential/layers/batch_normalization", "linear_fuse.1"
    if kind == _SEGMENTER:
        yield "layers/conv2d", "output_segmentation_head"


def _number(index: int) -> str:
    return f"_{index}" if index else ""


def _with_head(
    task: dict[str, Any], backbone: dict[str, NDArray[np.float32]], head: dict[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """The arrays of a preset's two files, named as in a file of the whole task."""
    inner = "seg_former_backbone" if _class(task) == _SEGMENTER else "mi_t_backbone"
    return {**head, **{f"layers/{inner}/{path}": value for path, value in backbone.items()}}


def _is_read(path: str) -> bool:
    return _UNREAD.fullmatch(path) is None


def _beside(folder: Path, name: str) -> dict[str, Any] | None:
    return read_json(folder / name, "a configuration") if (folder / name).is_file() else None


def _class(saved: Any) -> str:
    return _short(saved.get("class_name")) if isinstance(saved, dict) else "nothing"


def _field(saved: Any, name: str) -> Any:
    config = saved.get("config") if isinstance(saved, dict) else None
    return config.get(name) if isinstance(config, dict) else None


def _preprocessor(file: Path, converter: Any) -> Preprocessor:
    """What an image converter does to RGB of 0..255, of a preprocessor around it, or by itself."""
    converter = _field(converter, "image_converter") or converter
    settings = converter.get("config") if isinstance(converter, dict) else None
    if not isinstance(settings, dict) or "ImageConverter" not in _class(converter):
        note = f"{file}: says nothing of pixel values: mean and deviation of ImageNet are assumed"
        return Preprocessor(notes=(note,))
    scale, offset = (_three(settings, name, neutral) for name, neutral in (("scale", 1.0), ("offset", 0.0)))
    if "mean" in settings and "variance" in settings:  # of keras-hub's first versions
        mean, variance = _three(settings, "mean", 0.0), _three(settings, "variance", 1.0)
        if not min(variance) > 0:
            raise InputError(f"variance of its image converter must be positive. Received: {variance}")
        offset = [-m / sqrt(v) for m, v in zip(mean, variance, strict=True)]
        scale = [s / sqrt(v) for s, v in zip(scale, variance, strict=True)]
    return Preprocessor(*linear_preprocessor(scale, offset), tuple(f"{file}: {note}" for note in _notes(settings)))


def _notes(settings: dict[str, Any]) -> Iterator[str]:
    if settings.get("image_size") is None and "height" not in settings:
        return  # it resizes nothing
    for name, what in (("crop_to_aspect_ratio", "crops"), ("pad_to_aspect_ratio", "pads")):
        if settings.get(name, name.startswith("crop")):
            yield f"{name}: keras-hub {what} images to the size's ratio of sides; they are stretched whole here"
    if (filter_name := settings.get("interpolation", "bilinear")) != "bilinear":
        yield f"interpolation is {_short(filter_name)}; images are resized by the bilinear filter here"
    if not settings.get("antialias", False):
        yield "antialias is false: keras-hub skips pixels where it makes images smaller; they are averaged here"


def _three(settings: dict[str, Any], name: str, neutral: float) -> list[float]:
    value = settings.get(name)
    values = [neutral if value is None else value] * 3 if not isinstance(value, list) else value
    if len(values) != 3 or any(type(v) not in (int, float) for v in values):
        raise InputError(f"{name} of its image converter must be a number or three. Received: {_short(value)}")
    return [float(v) if abs(v) < _LARGEST else inf for v in values]


def _short(value: Any) -> str:
    """A stranger's value in an error."""
    return printable(str(value)[:80])
