"""Verb `info`. TensorFlow is imported for a Keras model alone."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from convert.describe.keras_model import describe_keras
from convert.describe.tflite_file import describe_tflite
from segformer_tf.errors import InputError
from segformer_tf.terminal import plain_console


def info(model: Path, /, *, size: tuple[int, int] | None = None) -> None:
    """Say what a model file holds; of a run also its score, data, sizes and options.

    Of a Keras model: its layers with parameters and multiply-adds, as they are computed here and in the paper's form.
    Of a .tflite: its operations, how each installed runtime splits them, its class map, and where it was verified.

    For instance:

        segformer info model.tflite

        segformer info runs/b0-camvid --size 576 768

    Parameters
    ----------
    model
        A .tflite, .onnx or .keras file, or a run folder.
    size
        Height and width for which multiply-adds of a Keras model are counted. Default: the model's own, that of a run's
        validation, or 512 512.
    """
    if model.is_file() and model.suffix not in (".tflite", ".onnx", ".keras"):
        raise InputError(f"{model}: expected a .tflite, .onnx or .keras file, or a run folder")
    if model.suffix in (".tflite", ".onnx") and size is not None:
        raise InputError(f"--size is for Keras models: a {model.suffix} has a size of its own")
    if model.suffix == ".tflite":
        facts, tables = describe_tflite(model)
    elif model.suffix == ".onnx":
        from convert.describe.onnx_file import describe_onnx  # needs onnx

        facts, tables = describe_onnx(model), []
    else:
        facts, layers = describe_keras(model, size)
        tables = [layers]
    console, overview = plain_console(), Table(title=str(model), show_header=False)
    for key, value in facts.items():
        overview.add_row(key, value)
    console.print(overview, *tables)
