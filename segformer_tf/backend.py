"""Imports TensorFlow for the command."""

from __future__ import annotations

import os

from segformer_tf.quiet import native_silence


def import_tensorflow() -> None:
    """Import TensorFlow without its greeting about devices that are not there.

    Raises:
        InputError: Keras is set to another backend.
    """
    from segformer_tf import tensorflow_backend  # noqa: F401  before Keras is imported

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with native_silence():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
