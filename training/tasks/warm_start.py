"""Starts a training from the weights of another model."""

from __future__ import annotations

from pathlib import Path

from segformer_tf import keras_file
from segformer_tf.classifier import MixTransformerClassifier
from segformer_tf.config import VARIANTS
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer
from training.distributed.strategy import this_place

_SIZES = ("embed_dims", "depths")

StartModel = SegFormer | MixTransformerClassifier


def read_start(path: Path, variant: str) -> StartModel:
    """The model to start from, a segmenter or a pretrained classifier.

    Raises:
        InputError: a file that cannot be read, or a model of another variant.
    """
    model = keras_file.load_encoder(path)
    for name in _SIZES:
        has, wanted = getattr(model.config, name), VARIANTS[variant][name]
        if has != wanted:
            fits = [v for v, sizes in VARIANTS.items() if all(getattr(model.config, n) == sizes[n] for n in _SIZES)]
            hint = f"; give --variant {fits[0]}" if fits else ""
            raise InputError(
                f"{path}: another network than --variant {variant}: its {name} is {has}, expected {wanted}{hint}"
            )
    return model


def copy_weights(start: StartModel, model: SegFormer) -> None:
    """Copy the weights of `start` into `model`.

    The decoder stays fresh if `start` is a classifier, its last layer if the number or the names of classes differ.
    """
    before, now = start.config, model.config
    if isinstance(start, MixTransformerClassifier):
        for theirs, ours in zip(start.encoder.weights, model.encoder.weights, strict=True):
            ours.assign(theirs)
        message = f"starting from the encoder of a classifier of {before.num_classes} classes: a fresh decoder"
    else:
        fresh = keras_file.copy_weights(start, model)
        unnamed = " by number, for its classes have no names" if before.labels is None else ""
        kept = "other classes, so a fresh classifier" if fresh else f"its classifier too{unnamed}"
        message = f"starting from weights of {before.num_classes} classes, the data has {now.num_classes}: {kept}"
    if this_place().chief:
        print(message)
