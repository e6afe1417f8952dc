"""The network that is looked into: a Keras model in float32, and its outputs from the first stage to the classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError, printable
from segformer_tf.keras_file import load_segformer
from segformer_tf.model import STAGES, SegFormer

STAGE_NAMES = tuple(f"stage {i}" for i in range(1, len(STAGES) + 1))


def open_network(model: Path) -> SegFormer:
    """A ``.keras`` file, or the best weights of a run folder, in float32, for RGB of 0..255; prints its terms.

    Raises:
        InputError: a ``.tflite``, which shows neither gradients nor features, or anything else that is no such file.
    """
    if model.suffix == ".tflite":
        raise InputError(
            f"{model}: a .tflite shows neither gradients nor what is inside; expected the .keras file or the run "
            "folder that it was exported from"
        )
    loaded = load_segformer(model, preprocess=True, dtype="float32")
    if loaded.config.license:
        print(f"{model}: {printable(loaded.config.license)}", file=sys.stderr)
    return loaded


def stage_outputs(model: SegFormer, pixels: Any) -> dict[str, Any]:
    """The outputs of a model of `open_network`, of images of any size.

    Args:
        model: which normalizes by itself.
        pixels: (B, H, W, 3) float32 RGB of 0..255.

    Returns:
        "stage 1" to "stage 4", on the 1/4 to the 1/32 grid, and "decoder": the decoder's features on the 1/4 grid, as
        the classifier sees them. The classifier itself is a 1x1 map, and looks no further.
    """
    features = model.encoder(model.get_layer("normalization")(pixels))
    outputs = {name: features[stage] for name, stage in zip(STAGE_NAMES, STAGES, strict=True)}
    return {**outputs, "decoder": model.decoder.hidden(features)}
