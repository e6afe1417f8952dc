"""`python -m benchmarks.on_jax.keras_file RUN --data DATA --out MODEL.keras`: a run's weights for Keras."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from convert.interchange.to_keras import export_keras
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer, build_segformer
from training.data.folder.source import FolderSource
from training.tasks.segmentation import joined_terms


def read_model(run: Path, data: Path, inherited: str | None = None) -> SegFormer:
    """The Keras model of a run, with the labels of its data, and the terms of data and of other weights.

    Args:
        run: folder of `benchmarks.on_jax.train`.
        data: that it was trained on.
        inherited: the terms of the weights that it began with or learned from, "" for none; None if there are no such.

    Raises:
        InputError: there are such weights, whose files do not say their terms.
    """
    recipe, source = json.loads((run / "recipe.json").read_text("utf-8")), FolderSource(data, "train")
    if inherited is None and (others := _others(recipe)):
        raise InputError(f"{run}: was trained with {' and '.join(others)}: state the terms of these weights, --license")
    own = f"trained on {source.name}: {source.license}" if source.license else ""
    model = build_segformer(
        recipe["variant"],
        labels=source.labels,
        license=joined_terms([inherited or "", own]),
        drop_path_rate=recipe["drop_path"],
        dropout_rate=recipe["dropout"],
    )
    fill(model, run / "weights.npz")
    return model


def _others(recipe: dict[str, Any]) -> list[str]:
    """What a run began with and learned from."""
    one = [recipe.get("start"), recipe.get("teacher")]  # runs of before had a single teacher
    return [*filter(None, one), *recipe.get("teachers", [])]


def fill(model: SegFormer, weights: Path) -> None:
    """Assign every variable of the model, each by its path."""
    with np.load(weights) as file:
        values = {name: file[name] for name in file.files}
    for variable in model.weights:
        if "seed_generator" not in variable.path:
            variable.assign(values.pop(variable.path))
    if values:
        raise ValueError(f"{weights} has weights that the model has not: {', '.join(values)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--license", help='terms of the weights that it began with or learned from, "" for none')
    given = parser.parse_args()
    try:
        export_keras(read_model(given.run, given.data, given.license), given.out)
    except InputError as error:
        sys.exit(f"keras_file: {error}")
