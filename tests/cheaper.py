"""What TensorFlow and Keras do anew for each model, done once or not at all; no value depends on it."""

from __future__ import annotations

import inspect
import random
import sys
import typing
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import h5py
import keras
import tensorflow as tf
from keras.src.layers import layer
from keras.src.ops import operation
from keras.src.saving import saving_lib
from tensorflow.python.eager.context import Context
from tensorflow.python.ops import gen_resource_variable_ops as variables

from segformer_tf.edge import child_process, runtime


def make_cheaper() -> None:
    """For all tests of this process."""
    _predict_without_a_graph()
    _handles_without_a_name()
    _keep_kernels()
    _tune_no_data()
    _try_a_file_once()
    _fork_children()
    _keep_plain_attributes()
    _list_a_file_once()
    _read_signatures_once()
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


def _keep_kernels() -> None:
    """Each test sets the seed, which forgets the kernels of all operations, a tenth of the time.

    For the sake of TensorFlow's random operations with a state, which neither Keras nor this project has.
    """

    def _set_global_seed(self: Any, seed: int) -> None:
        self._seed, self._rng = seed, random.Random(seed)

    Context._set_global_seed = _set_global_seed


def _tune_no_data() -> None:
    """The thread that tunes an iterator, of `fit` on arrays too, is waited for at its end: up to 20 s."""
    options = tf.data.Options()
    options.autotune.enabled = False
    tf.data.Dataset._apply_debug_options = lambda data: data.with_options(options)  # of each iterator's data set


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


def _fork_children() -> None:
    """But those of tests that undo it: `real_children`."""
    if sys.platform == "linux":  # elsewhere a forked process may not load every library
        from tests import children

        child_process.subprocess = children


def _keep_plain_attributes() -> None:
    """Keras and TensorFlow each look for layers, variables and lists in what a layer's attribute is set to.

    In numbers, strings and None there are none: they are set as in any object. A model takes four fifths of the time.
    What the class has under that name, such as the property `trainable`, is Keras' to set.
    """
    plain = frozenset((bool, int, float, str, type(None)))
    tracked = keras.layers.Layer.__setattr__

    @wraps(tracked)
    def __setattr__(owner: keras.layers.Layer, name: str, value: Any) -> None:
        if type(value) in plain and "_tracker" in owner.__dict__ and not hasattr(type(owner), name):
            object.__setattr__(owner, name, value)
        else:
            tracked(owner, name, value)

    keras.layers.Layer.__setattr__ = __setattr__


def _list_a_file_once() -> None:
    """For each attribute of each layer Keras asks the file whether it holds such a group.

    A damaged file may be listed in part: tests of them undo this.
    """

    class Listed(h5py.File):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._names: set[str] | None = None

        def __contains__(self, name: str) -> bool:
            if self.mode != "r":
                return super().__contains__(name)
            if self._names is None:
                self._names = set()
                self.visit_links(self._names.add)
            return name.strip("/") in self._names

    saving_lib.h5py = SimpleNamespace(**{**vars(h5py), "File": Listed})


def _read_signatures_once() -> None:
    """Keras reads those of a class anew for each layer."""
    of_function, arguments = cache(inspect.signature), cache(inspect.getfullargspec)
    of_method = cache(lambda function: inspect.signature(MethodType(function, layer)))

    def signature(of: Any) -> inspect.Signature:
        return of_method(of.__func__) if isinstance(of, MethodType) else of_function(of)

    once = SimpleNamespace(**{**vars(inspect), "signature": signature, "getfullargspec": arguments})
    layer.inspect = operation.inspect = once
