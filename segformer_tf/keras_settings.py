"""Imported before Keras: raises InputError if Keras is set to a backend or format that this project does not support.

Keras reads its settings once, at import; with another backend, later errors would be about something else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError


def check_keras() -> None:
    """Raises InputError if Keras is, or will be, on another backend than TensorFlow, or has channels first."""
    settings = _settings()
    backend, source = settings.get("backend", "tensorflow"), str(_file())
    if os.environ.get("KERAS_BACKEND"):
        backend, source = os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    if config := getattr(sys.modules.get("keras"), "config", None):  # none while Keras is being imported
        backend, source = config.backend(), "this process"
    if backend != "tensorflow":
        raise InputError(
            f"Keras' backend must be tensorflow. Received: {backend} ({source}); set KERAS_BACKEND=tensorflow"
        )
    if (order := settings.get("image_data_format", "channels_last")) != "channels_last":
        raise InputError(f"Keras' image_data_format must be channels_last. Received: {order} ({_file()})")


def _settings() -> dict[str, Any]:
    """The content of keras.json."""
    try:
        settings = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _file() -> Path:
    home = os.path.expanduser("~")  # as Keras does; `Path.home` raises for a user without one
    home = home if os.access(home, os.W_OK) else "/tmp"
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or f"{home}/.keras")) / "keras.json"


check_keras()
