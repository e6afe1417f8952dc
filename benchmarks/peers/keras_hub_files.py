"""keras-hub's SegFormer with random weights, exported by itself and by ours, and the logits that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.files import CLASSES
from benchmarks.peers.files import keras_hub_model
from benchmarks.picture import SIZE, normalized
from segformer_tf.config import variant_config

THEIRS, OURS, EXPECTED, BY_DEFAULT = "theirs.tflite", "ours.tflite", "expected.npy", "by_default.npy"


def make_files(variant: str, folder: Path) -> None:
    """Write both files, and keras-hub's logits of the picture; for a process of its own."""
    from convert.export import export_tflite
    from segformer_tf.checkpoints.importer import read_checkpoint, to_keras

    model = keras_hub_model(variant_config(variant, num_classes=CLASSES), SIZE)
    move_weights(model)
    model.save(folder / "model.keras")
    image = normalized().transpose(0, 2, 3, 1)
    np.save(folder / EXPECTED, np.asarray(model(image, training=False)))
    model.export(folder / THEIRS, format="litert", verbose=False)
    np.save(folder / BY_DEFAULT, np.asarray(model(image)))  # last: it moves statistics
    ours = to_keras(read_checkpoint(folder / "model.keras"))
    (folder / OURS).unlink(missing_ok=True)
    export_tflite(ours, folder / OURS, recipe="fp32", size=SIZE, runtimes=["litert"])


def move_weights(model: Any) -> None:
    """Give every weight a random value off its default; the same ones each time."""
    dice = np.random.default_rng(0)
    for variable in model.weights:
        value = np.asarray(variable.value)
        if variable.path.endswith(("gamma", "moving_variance")):
            value = value * dice.uniform(0.6, 1.5, value.shape)
        elif value.ndim == 1:
            value = value + dice.normal(0, 0.1, value.shape)
        elif value.ndim > 1:
            inputs = 9 if "depthwise" in variable.path else value[..., 0].size
            value = dice.normal(0, inputs**-0.5, value.shape)
        if value.dtype.kind == "f":
            variable.assign(value)
