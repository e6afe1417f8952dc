"""Imports TensorFlow for the command."""

from __future__ import annotations

import os

from segformer_tf.native_log import native_silence
from segformer_tf.scratch import begin_scratch


def import_tensorflow() -> None:
    """Import TensorFlow without its greeting about absent devices; what it leaves in temporary files will go.

    Raises:
        InputError: Keras is set to another backend.
    """
    from segformer_tf import keras_backend  # noqa: F401  before Keras is imported

    begin_scratch()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with native_silence():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
