"""A ``.keras`` file as a zip: its configuration, its weights' bytes, and whose it is. Nothing in it is run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError, first_line

_LARGEST_CONFIG = 1 << 20  # bytes
_WEIGHTS = "model.weights.h5"


def read_configuration(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The ``config.json`` of a ``.keras`` file.

    Raises:
        InputError: one that is too large, or no JSON object.
        Exception: whatever zipfile and json raise for a damaged file.
    """
    if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
        raise InputError(f"its configuration is larger than {_LARGEST_CONFIG} bytes")
    content = json.loads(archive.read("config.json"))
    if not isinstance(content, dict):
        raise InputError("its configuration is no JSON object")
    return content


def refuse_compressed_weights(archive: zipfile.ZipFile) -> None:
    """Raises InputError for weights that are compressed, which could be larger than any memory."""
    if archive.getinfo(_WEIGHTS).compress_type != zipfile.ZIP_STORED:
        raise InputError("its weights are compressed, which Keras never does")


def read_archive(path: Path) -> tuple[dict[str, Any], bytes]:
    """Configuration and weights, an HDF5 file, of a ``.keras`` file; raises InputError if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_compressed_weights(archive)
            return read_configuration(archive), archive.read(_WEIGHTS)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # zipfile raises anything for a damaged file
        raise InputError(f"{path}: not a readable .keras file ({first_line(error)})") from None


def is_keras_hub(path: Path) -> bool:
    """Whether a path is a ``.keras`` file that says that it is of keras-hub."""
    if path.suffix != ".keras" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return of_keras_hub(read_configuration(archive))
    except Exception:  # a damaged file is for its reader to refuse
        return False


def of_keras_hub(saved: dict[str, Any]) -> bool:
    """Whether a configuration is of an object of keras-hub."""
    return str(saved.get("module")).split(".")[0] == "keras_hub"
