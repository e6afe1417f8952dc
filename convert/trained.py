"""The trained model that an export starts from."""

from __future__ import annotations

from typing import Any

from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer


def refuse_one_class(config: SegFormerConfig) -> None:
    """Raises InputError for a model of one class, whose answer is always that class."""
    if config.num_classes == 1:
        raise InputError(
            "a model of one class gives that class everywhere; train or import it anew with two, background and its own"
        )


def float32_copy(model: SegFormer, **changes: Any) -> SegFormer:
    """The model in float32, whatever precision it was trained in; `changes` to the arguments of `SegFormer`."""
    arguments: dict[str, Any] = {"config": model.config, "image_size": model.image_size, "preprocess": model.preprocess}
    arguments |= {"dtype": "float32", **changes}
    copy = SegFormer(**arguments)
    copy.set_weights(model.get_weights())
    return copy
