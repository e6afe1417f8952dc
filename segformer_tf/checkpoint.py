"""Reading a model back from a ``.keras`` file or a run folder."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from segformer_tf.classifier import MixTransformerClassifier
from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError, first_line
from segformer_tf.model import SegFormer

_LARGEST_CONFIG = 1 << 20  # bytes

Kind = type[SegFormer] | type[MixTransformerClassifier]


def load_segformer(path: str | Path) -> SegFormer:
    """Build the model a ``.keras`` file describes and fill it with the file's weights.

    Only `SegFormer`'s own configuration is read: no other class is ever built from the file, and the state of an
    optimizer in it is ignored.

    Args:
        path: a ``.keras`` file, or a run folder, of which weights/best.keras is taken.

    Raises:
        InputError: no such file, not a SegFormer of this project, or weights that are not finite numbers.
    """
    model = _load(Path(path), SegFormer)
    assert isinstance(model, SegFormer)  # the only kind
    return model


def load_encoder(path: str | Path) -> SegFormer | MixTransformerClassifier:
    """Load a segmenter or a pretrained classifier; both have an `encoder` and a `config`. See `load_segformer`."""
    return _load(Path(path), SegFormer, MixTransformerClassifier)


def _load(path: Path, *kinds: Kind) -> SegFormer | MixTransformerClassifier:
    path, expected = keras_file(path), " or a ".join(kind.__name__ for kind in kinds)
    try:
        with zipfile.ZipFile(path) as archive:
            saved = _read_json(archive)
            if archive.getinfo("model.weights.h5").compress_type != zipfile.ZIP_STORED:
                raise InputError("its weights are compressed, which Keras never does")
        kind = next((kind for kind in kinds if kind.__name__ == saved["class_name"]), None)
        if kind is None:
            raise InputError(f"holds a {saved['class_name']}, expected a {expected}")
        config = SegFormerConfig.from_dict(saved["config"]["config"])
        parameters = config.parameter_count if kind is SegFormer else config.classifier_parameter_count
        if (size := path.stat().st_size) < 2 * parameters:  # as float16; never build more than the file can fill
            raise InputError(f"{size} bytes for a model of {parameters} parameters")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="A total of")  # .. objects could not be loaded
            model = kind.from_config(saved["config"])
            model.load_weights(path)
        if broken := first_non_finite(model):
            raise InputError(f"{broken} holds values that are not finite numbers, as after a training that diverged")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # zipfile, h5py and Keras raise anything for a damaged file
        raise InputError(f"{path}: not a readable {expected} .keras file ({first_line(error)})") from None
    return model


def first_non_finite(model: keras.Model) -> str | None:
    """The path of the first weight that holds inf or nan, or None."""
    return next((v.path for v in model.weights if not np.isfinite(np.asarray(v.value)).all()), None)


def read_config(path: Path) -> SegFormerConfig:
    """The configuration in a ``.keras`` file, without its weights; raises InputError if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return SegFormerConfig.from_dict(_read_json(archive)["config"]["config"])
    except Exception as error:  # zipfile raises anything for a damaged file
        raise InputError(f"{path}: not a readable .keras file ({first_line(error)})") from None


def _read_json(archive: zipfile.ZipFile) -> dict[str, Any]:
    if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
        raise InputError(f"its configuration is larger than {_LARGEST_CONFIG} bytes")
    return dict(json.loads(archive.read("config.json")))


def keras_file(path: Path) -> Path:
    """`path` itself, or the best (else the last) weights of a run folder; raises InputError."""
    if path.is_dir():
        for name in ("best", "last"):
            if (weights := path / "weights" / f"{name}.keras").is_file():
                return weights
        raise InputError(f"{path}: a folder without weights/best.keras; expected a run folder or a .keras file")
    if not path.is_file():
        raise InputError(f"{path}: no such model file or run folder")
    if path.suffix != ".keras":
        raise InputError(
            f"{path}: expected a .keras file or a run folder; `segformer import` converts a PyTorch checkpoint"
        )
    return path


def run_size(path: Path) -> tuple[int, int] | None:
    """The (height, width) of a run folder's validation, or None for another path."""
    config = path / "config.json"
    if not config.is_file():
        return None
    try:
        height, width = json.loads(config.read_text("utf-8"))["eval_size"]
        return int(height), int(width)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{config}: not a run's configuration ({error})") from None
