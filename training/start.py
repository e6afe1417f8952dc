"""Starting a training from the weights of another model."""

from __future__ import annotations

from pathlib import Path

from segformer_tf.checkpoint import load_segformer
from segformer_tf.config import VARIANTS
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer
from training.strategy import this_place


def read_start(path: Path, variant: str) -> SegFormer:
    """The model to start from.

    Raises:
        InputError: a file that cannot be read, or a model of another variant.
    """
    given = load_segformer(path)
    for name in ("embed_dims", "depths"):
        has, wanted = getattr(given.config, name), VARIANTS[variant][name]
        if has != wanted:
            raise InputError(
                f"{path}: another network than --variant {variant}: its {name} is {has}, expected {wanted}"
            )
    return given


def copy_weights(given: SegFormer, model: SegFormer) -> None:
    """Give `model` the weights of `given`; its classifier stays fresh where it has another number of classes."""
    fresh = given.config.num_classes != model.config.num_classes
    for theirs, ours in zip(given.weights, model.weights, strict=True):
        if not (fresh and ours.path.startswith("decoder/linear_pred/")):
            ours.assign(theirs)
    if fresh and this_place().chief:
        counts = f"{given.config.num_classes} classes, the data has {model.config.num_classes}"
        print(f"starting from {counts}: a fresh classifier")
