"""Recipes of quantisation, and the converter settings behind each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from segformer_tf.edge.image import Pixels


@dataclass(frozen=True)
class Recipe:
    """How a file is made and how far its logits may be from Keras'.

    Attributes:
        name: as the command spells it.
        input_dtype: of the pixels, np.uint8 or np.float32.
        needs_calibration: whether activations are quantised beforehand, on images.
        tolerance: largest relative error, see `convert.verify`.
        configure: sets a `tf.lite.TFLiteConverter` up, given calibration images of the model's size.
    """

    name: str
    input_dtype: Any
    needs_calibration: bool
    tolerance: float
    configure: Callable[[Any, list[Pixels]], None]


def _fp32(converter: Any, images: list[Pixels]) -> None:
    pass


def _fp16(converter: Any, images: list[Pixels]) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic_int8(converter: Any, images: list[Pixels]) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    # Per-channel dense layers become FULLY_CONNECTED version 12, which tflite-runtime 2.14 refuses.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _int8(converter: Any, images: list[Pixels]) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.asarray(image[None])] for image in images)
    # Ops without an int8 kernel stay in float.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]


# A silently wrong file is off by 0.4 to 1.0; tolerances stand well below that, and above what rounding costs.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp32", np.float32, False, 1e-4, _fp32),
        Recipe("fp16", np.float32, False, 1e-2, _fp16),
        Recipe("dynamic_int8", np.float32, False, 0.1, _dynamic_int8),
        Recipe("int8", np.uint8, True, 0.2, _int8),
    )
}
