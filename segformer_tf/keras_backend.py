"""Imported before Keras: says in a line where Keras is set to what this project is not written for.

Keras reads its settings once, when it is imported, and with another backend everything after that ends in a message
about something else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError


def check_keras() -> None:
    """Raises InputError where Keras is, or will be, on another backend than TensorFlow, or has channels first."""
    settings, where = _settings()
    named = settings.get("backend", "tensorflow")
    if os.environ.get("KERAS_BACKEND"):
        named, where = os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    if keras := sys.modules.get("keras"):
        config = getattr(keras, "config", None)  # none while it is being imported
        named, where = (config.backend(), "this process") if config else (named, where)
    if named != "tensorflow":
        raise InputError(
            f"Keras' backend must be tensorflow. Received: {named} ({where}); set KERAS_BACKEND=tensorflow"
        )
    if (order := settings.get("image_data_format", "channels_last")) != "channels_last":
        raise InputError(f"Keras' image_data_format must be channels_last. Received: {order} ({_file()})")


def _settings() -> tuple[dict[str, Any], str]:
    """What keras.json holds, and where it is."""
    path = _file()
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}, str(path)
    return (found if isinstance(found, dict) else {}), str(path)


def _file() -> Path:
    home = os.path.expanduser("~")  # as Keras does; `Path.home` raises where a user has none
    home = home if os.access(home, os.W_OK) else "/tmp"
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or f"{home}/.keras")) / "keras.json"


check_keras()
