"""Layers and models that refuse Keras' own quantization."""

from __future__ import annotations

from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
from keras import layers

from segformer_tf.errors import InputError

_INSTEAD = "`segformer export --recipe int8` makes a quantized file of the model, and compares it with Keras"


class Unquantized:
    """Mixin of a layer or a model that refuses ``quantize`` in any mode.

    Keras replaces the kernels of a Dense layer by integers and a scale. The decoder multiplies its kernels, and weight
    files and exports contain them: all would take the integers for the weights.
    """

    def quantize(self, *_: Any, **__: Any) -> None:
        raise InputError(f"Keras' quantize is not for SegFormer, which reads its kernels; {_INSTEAD}")


class Dense(Unquantized, layers.Dense):
    """Keras' Dense, by the same name in weight files, in floating point only.

    Raises:
        InputError: a dtype policy that quantizes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            raise InputError(f"dtype must be of floats. Received: {self.dtype_policy.name}; {_INSTEAD}")
