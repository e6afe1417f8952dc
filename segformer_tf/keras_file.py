"""Reading a model back from a ``.keras`` file or a run folder."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from segformer_tf.classifier import MixTransformerClassifier
from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError, first_line
from segformer_tf.keras_archive import is_keras_hub, of_keras_hub, read_configuration, refuse_compressed_weights
from segformer_tf.labels import Labels, as_labels
from segformer_tf.model import SegFormer
from segformer_tf.reconstructor import MixTransformerReconstructor

WithEncoder = SegFormer | MixTransformerClassifier | MixTransformerReconstructor
Kind = type[SegFormer] | type[MixTransformerClassifier] | type[MixTransformerReconstructor]

_PARAMETERS = {
    SegFormer: "parameter_count",
    MixTransformerClassifier: "classifier_parameter_count",
    MixTransformerReconstructor: "reconstructor_parameter_count",
}  # the property of `SegFormerConfig` that counts them


def load_segformer(
    path: str | Path,
    *,
    num_classes: int | None = None,
    labels: Labels | Sequence[str] | None = None,
    preprocess: bool | None = None,
    dtype: Any = None,
) -> SegFormer:
    """Build the model a ``.keras`` file describes and fill it with the file's weights.

    Only `SegFormer`'s own configuration is read: no other class is ever built from the file, and the state of an
    optimizer in it is ignored. Every part is trainable, also where the training had frozen some.

    Args:
        path: a ``.keras`` file, or a run folder, of which weights/best.keras is taken.
        num_classes: number of classes of your own. Another number than the file's gives a fresh classifier (the last
            1x1 map); all other weights are the file's.
        labels: names of your classes in order, or `Labels`. Other names than the file's give a fresh classifier, too;
            weights without names keep theirs where the number is the same.
        preprocess: whether the model takes RGB 0..255 and normalizes inside; None for what the file says. No weight
            depends on it.
        dtype: dtype or policy of the layers, such as "mixed_float16"; None for the file's.

    Raises:
        InputError: no such file, not a SegFormer of this project, weights that are not finite numbers, or names that
            are bad or of another number than `num_classes`.

    Examples:
        >>> model = load_segformer("runs/mine", labels=["background", "cell"], preprocess=True)
    """
    named = None if labels is None else as_labels(labels)
    if named is not None and num_classes not in (None, len(named.names)):
        raise InputError(f"labels must name every class: expected {num_classes} names. Received: {len(named.names)}")
    keras.dtype_policies.get(dtype)  # raises Keras' own line for a name that it does not know
    changes = {"preprocess": preprocess, "dtype": dtype}
    model = _load(Path(path), SegFormer, changes={name: value for name, value in changes.items() if value is not None})
    assert isinstance(model, SegFormer)  # the only kind
    config = model.config
    if named is None and num_classes in (None, config.num_classes):
        return model
    count = num_classes or (len(named.names) if named else 0)
    ours = SegFormer(**{**model.get_config(), "config": replace(config, num_classes=count, labels=named)})
    copy_weights(model, ours)
    return ours


def copy_weights(start: SegFormer, model: SegFormer) -> bool:
    """Copy the weights of `start` into `model`, which may have other classes.

    Returns:
        Whether the classifier of `model` was left as it is, because the number or the names of classes differ.
    """
    before, now = start.config, model.config
    renamed = before.labels is not None and now.labels is not None and before.labels.names != now.labels.names
    fresh = before.num_classes != now.num_classes or renamed
    for theirs, ours in zip(start.weights, model.weights, strict=True):
        if not (fresh and ours.path.startswith("decoder/linear_pred/")):
            ours.assign(theirs)
    return fresh


def load_encoder(path: str | Path) -> WithEncoder:
    """Load a segmenter, or what `segformer pretrain` made: each has an `encoder` and a `config`."""
    return _load(Path(path), SegFormer, MixTransformerClassifier, MixTransformerReconstructor)


def _load(path: Path, *kinds: Kind, changes: Mapping[str, Any] = MappingProxyType({})) -> WithEncoder:
    """The model in a file, of one of `kinds`; `changes` to the arguments of its class."""
    path, expected = keras_file(path), " or a ".join(kind.__name__ for kind in kinds)
    try:
        with zipfile.ZipFile(path) as archive:
            saved = read_configuration(archive)
            refuse_compressed_weights(archive)
        kind = next((kind for kind in kinds if kind.__name__ == saved["class_name"]), None)
        if kind is None:
            theirs = " of keras-hub, which `segformer import` converts" if of_keras_hub(saved) else ""
            raise InputError(f"holds a {saved['class_name']}{theirs}; expected a {expected}")
        config = SegFormerConfig.from_dict(saved["config"]["config"])
        parameters = getattr(config, _PARAMETERS[kind])
        if (size := path.stat().st_size) < 2 * parameters:  # as float16; never build more than the file can fill
            raise InputError(f"{size} bytes for a model of {parameters} parameters")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="A total of")  # .. objects could not be loaded
            own = {name: value for name, value in saved["config"].items() if name != "frozen"}
            model = kind.from_config({**own, **changes})
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
            return SegFormerConfig.from_dict(read_configuration(archive)["config"]["config"])
    except Exception as error:  # zipfile raises anything for a damaged file
        raise InputError(f"{path}: not a readable .keras file ({first_line(error)})") from None


def is_keras(path: Path) -> bool:
    """Whether a path is that of a run folder or of a ``.keras`` file that is not keras-hub's, by its looks."""
    return (path.suffix == ".keras" and not is_keras_hub(path)) or (path / "weights").is_dir()


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
