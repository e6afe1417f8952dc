"""What teacher and student are compared by: the patch embeddings and features of the four stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from segformer_tf.model import STAGES, SegFormer


@dataclass(frozen=True)
class View:
    """Output of a network, with what it came from.

    Attributes:
        logits: (B, ⌈H/4⌉, ⌈W/4⌉, classes).
        embeddings: of each stage, c1 to c4, its patches before the first block, (B, h, w, C); or empty.
        features: of each stage, its output, in the same shape; or empty.
    """

    logits: Any
    embeddings: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)


def view(model: SegFormer, images: Any, *, stages: bool, training: bool) -> View:
    """Run a network that does not normalize.

    Args:
        model: whose `preprocess` is False.
        images: (B, H, W, 3), normalized.
        stages: whether embeddings and features are wanted.
        training: whether dropout, drop path and batch normalization are as in training.
    """
    if not stages:
        return View(model.decoder(model.encoder(images, training=training), training=training))
    embeddings, features, x = {}, {}, images
    for name, stage in zip(STAGES, model.encoder.stages, strict=True):
        embeddings[name] = stage.patch_embed(x)
        x = features[name] = stage.transform(embeddings[name], training=training)
    return View(model.decoder(features, training=training), embeddings, features)
