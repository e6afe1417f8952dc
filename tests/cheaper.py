"""What TensorFlow and Keras do anew for each model, done once or not at all; no value depends on it."""

from __future__ import annotations

import typing
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
from keras.src.saving import saving_lib
from tensorflow.python.ops import gen_resource_variable_ops as variables

from segformer_tf.edge import runtime


def make_cheaper() -> None:
    """For all tests of this process."""
    _predict_without_a_graph()
    _handles_without_a_name()
    _try_a_file_once()
    # Keras keeps it under one name and looks for it under another: each layer saved or read makes a layer to look at.
    saving_lib.get_attr_skipset = cache(saving_lib.get_attr_skipset)
    # Python before 3.12 lists a protocol's members at each isinstance, of which TensorFlow has several an operation.
    if hasattr(typing, "_get_protocol_attrs"):
        typing._get_protocol_attrs = cache(typing._get_protocol_attrs)


def _predict_without_a_graph() -> None:
    """Tracing a prediction, for each model and size anew, takes seven times as long as computing it op by op."""
    traced = keras.Model.make_predict_function

    @wraps(traced)
    def make(model: keras.Model, force: bool = False) -> object:
        before, model.run_eagerly = model.run_eagerly, True
        try:
            return traced(model, force)
        finally:
            model.run_eagerly = before

    keras.Model.make_predict_function = make


def _handles_without_a_name() -> None:
    """A variable's name for error messages is an attribute of its handle's operation: each new name has its own kernel.

    To make one takes 0.5 ms, in all 6% of the time of the tests of runs.
    """
    handle = variables.var_handle_op

    @wraps(handle)
    def var_handle_op(*arguments: Any, debug_name: str = "", **options: Any) -> Any:
        return handle(*arguments, **options)

    variables.var_handle_op = var_handle_op


def _try_a_file_once() -> None:
    """What has run in a process of its own, which takes 0.4 s to start, is not tried there again. Failures are."""
    try_elsewhere, tried = runtime._try_elsewhere, set()

    @wraps(try_elsewhere)
    def once(path: str | Path, name: str, shape: tuple[int, ...] | None) -> None:
        content = Path(path).read_bytes() if Path(path).is_file() else b""
        if (key := (sha256(content).digest(), name, shape)) not in tried:
            try_elsewhere(path, name, shape)
            tried.add(key)

    runtime._try_elsewhere = once
