"""Imports TensorFlow for the command."""

from __future__ import annotations

import gc
import os

from segformer_tf.native_log import native_silence
from segformer_tf.scratch import begin_scratch


def import_tensorflow() -> None:
    """Import TensorFlow without its log of absent devices, and let its temporary files be removed at exit.

    Raises:
        InputError: Keras is set to another backend.
    """
    from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

    begin_scratch()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    collecting = gc.isenabled()
    gc.disable()  # looking for garbage among a million objects that stay would be a fifth of the import
    try:
        with native_silence():
            import keras  # noqa: F401
            import tensorflow as tf

            tf.config.list_physical_devices()
    finally:
        if collecting:
            gc.enable()
