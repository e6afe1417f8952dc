"""Verbs `train` and `evaluate`. TensorFlow is imported when a verb runs, so that --help is quick."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from training.config import TrainConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train(config: Annotated[TrainConfig, Parameter(name="*")]) -> None:
    """Train a SegFormer and keep everything in a run folder.

    The folder gets config.json, environment.json, weights/{last,best}.keras, history.csv, curves.png,
    panel.png and TensorBoard logs.

    Examples
    --------
    No download, a few minutes:

        segformer train --data tfds:toy_shapes --variant b0 --crop 128 128 --steps 600 --epoch-steps 100

    Your folder, with dataset.json and {train,val,test}/{images,masks}:

        segformer train --data path/to/folder --variant b0 --crop 256 256 --learning-rate 6e-4
    """
    from training.train import train as run_training

    run = run_training(config)
    print(f"run folder: {run.root}")
