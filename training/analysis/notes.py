"""Notes on models and data, on standard error, before they are scored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from segformer_tf.errors import InputError
from training.data.check_masks import check_split
from training.data.open import Source
from training.evaluate import Predictor, set_bits


def prepare(models: Sequence[Path], predictors: Sequence[Predictor], source: Source) -> None:
    """Print licenses and notes, check the masks of `source`, and read its images as deep as the models take them.

    Raises:
        InputError: models that take images of different bits, or masks that cannot be scored.
    """
    for model, each in zip(models, predictors, strict=True):
        for text in filter(None, (each.license, each.note, each.match.note)):
            print(f"{model}: {text}", file=sys.stderr)
    bits = {each.bits for each in predictors}
    if len(bits) > 1:
        raise InputError(f"the models take images of different bits: {', '.join(map(str, bits))}; score them apart")
    for note in (set_bits(source, bits.pop()), *check_split(source)):
        if note:
            print(note, file=sys.stderr)


def model_names(models: Sequence[Path]) -> list[str]:
    """File names where they differ, else whole paths."""
    names = [path.name for path in models]
    return names if len(set(names)) == len(names) else [str(path) for path in models]
