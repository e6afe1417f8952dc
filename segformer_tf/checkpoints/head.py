"""The classes of a checkpoint's head: their names, and a head of one logit as two classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segformer_tf.checkpoints.dialects import Dialect
from segformer_tf.checkpoints.state_dict import Tensors
from segformer_tf.errors import InputError, printable
from segformer_tf.labels import Labels


def class_names(
    path: Path, settings: dict[str, Any], labels: Labels | None, classes: int, *, one_logit: bool
) -> Labels | None:
    """The names of `classes` classes: `labels`, else those of transformers' config.json, or None.

    Raises:
        InputError: another number of them, or names that cannot be.
    """
    try:
        names = labels or _labels(settings, 1 if one_logit else classes)
        names = _with_background(names) if one_logit else names
    except InputError as error:
        raise InputError(f"{path}: config.json: {error}; --labels names them otherwise") from None
    if names is not None and len(names.names) != classes:
        raise InputError(f"{path}: has {classes} classes. Received: {len(names.names)} labels")
    return names


def two_logits(tensors: Tensors, dialect: Dialect) -> bool:
    """Give a head of one logit a row of zeros before its own, so that it gives (0, x); returns whether it was one."""
    keys = [dialect.decoder["linear_pred"] + name for name in ("weight", "bias")]
    if any(key not in tensors or tensors[key].shape[:1] != (1,) for key in keys):
        return False
    for key in keys:
        tensors[key] = np.concatenate([np.zeros_like(tensors[key]), tensors[key]])
    return True


def _with_background(names: Labels | None) -> Labels:
    """Names of the classes of a head of one logit, whether both were given, its own or none."""
    if names is not None and len(names.names) > 1:
        return names
    one = names.names[0] if names is not None and names.names[0].lower() != "background" else "foreground"
    return Labels.named(["background", one])


def _labels(settings: dict[str, Any], count: int) -> Labels | None:
    names = settings.get("id2label")
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(count))):
        return None
    return Labels.named([printable(str(names[str(i)])) for i in range(count)])
