"""Reading a SegFormer back from a ``.keras`` file or a run folder."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer

_LARGEST_CONFIG = 1 << 20  # bytes that are still believed


def load_segformer(path: str | Path) -> SegFormer:
    """Build the model a ``.keras`` file describes and fill it with the file's weights.

    Only `SegFormer`'s own configuration is read: no other class is ever made from the file, and the state of
    an optimizer in it is left alone.

    Args:
        path: a ``.keras`` file, or a run folder, of which weights/best.keras is taken.

    Raises:
        InputError: no such file, or not a SegFormer of this project.
    """
    path = keras_file(Path(path))
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                raise InputError(f"its configuration is larger than {_LARGEST_CONFIG} bytes")
            saved = json.loads(archive.read("config.json"))
            if archive.getinfo("model.weights.h5").compress_type != zipfile.ZIP_STORED:
                raise InputError("its weights are compressed, which Keras never does")
        if saved["class_name"] != "SegFormer":
            raise InputError(f"holds a {saved['class_name']}, expected a SegFormer")
        expected = SegFormerConfig.from_dict(saved["config"]["config"]).parameter_count
        if (size := path.stat().st_size) < 2 * expected:  # as float16; never build what the file cannot fill
            raise InputError(f"{size} bytes for a model of {expected} parameters")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="A total of")  # .. objects could not be loaded, says Keras
            model = SegFormer.from_config(saved["config"])
            model.load_weights(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # whatever zipfile, h5py and Keras make of a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a readable SegFormer .keras file ({reason})") from None
    return model


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
            f"{path}: expected a .keras file or a run folder; `segformer import` makes one of a PyTorch checkpoint"
        )
    return path


def run_size(path: Path) -> tuple[int, int] | None:
    """(height, width) that a run folder validated at, or None for a path that is no run folder."""
    config = path / "config.json"
    if not config.is_file():
        return None
    try:
        height, width = json.loads(config.read_text("utf-8"))["eval_size"]
        return int(height), int(width)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{config}: not a run's configuration ({error})") from None
