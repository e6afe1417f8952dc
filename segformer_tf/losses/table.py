"""The losses of `segformer train --loss` by name; no TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class LossChoice:
    """One name of `--loss`.

    Attributes:
        path: module in this package, and class.
        summary: what it is, for help and manual.
        options: arguments of the class.
    """

    path: tuple[str, str]
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)


_DICE, _LOVASZ = ("images", "DiceLoss"), ("images", "LovaszLoss")

LOSSES: Mapping[str, LossChoice] = {
    "ce": LossChoice(("pixels", "SegmentationLoss"), "cross-entropy, the paper's"),
    "focal": LossChoice(("pixels", "FocalLoss"), "cross-entropy in which pixels that are right already count less"),
    "ohem": LossChoice(("images", "OhemLoss"), "cross-entropy of each image's hard pixels alone"),
    "dice": LossChoice(_DICE, "soft Dice: overlap, every class of an image the same, however small"),
    "lovasz": LossChoice(_LOVASZ, "Lovász-softmax: IoU itself, made smooth; to fine-tune with"),
    "ce+dice": LossChoice(_DICE, "the sum of the two", {"cross_entropy": 1.0}),
    "ce+lovasz": LossChoice(_LOVASZ, "the sum of the two", {"cross_entropy": 1.0}),
}


def make_loss(name: str, *, class_weights: Sequence[float] | None = None) -> Any:
    """The loss of a name in `LOSSES`, a `MeanOverValid`.

    Args:
        name: key of `LOSSES`.
        class_weights: weight of each class, or None for 1.
    """
    choice = LOSSES[name]
    module, kind = choice.path
    loss = getattr(import_module(f"segformer_tf.losses.{module}"), kind)
    return loss(class_weights=class_weights, **choice.options)
