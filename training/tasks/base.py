"""What differs between the tasks a run can have; `training.train` does the rest, the same for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from pathlib import Path
from typing import Any, ClassVar, Protocol

import keras
import tensorflow as tf

from training.config import RunConfig
from training.optim.losses import MeanOverValid
from training.runs.folder import Run


class Data(Sized, Protocol):
    """One split, of whatever samples."""

    name: str


class Task(ABC):
    """Data, model, loss, metrics and pictures of a run.

    Args:
        config: what was asked, its common options checked.

    Attributes:
        score: the metric whose best value on the validation split makes the best weights.
        head_multiplier: rate of the decoder over the encoder's.
        source, validation: the two splits, once `open` was called.

    Raises:
        InputError: an option of this task that cannot be used.
    """

    score: ClassVar[str]
    head_multiplier = 1.0
    source: Data
    validation: Data

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def open(self, run: Run | None) -> None:
        """Open the data and the weights to start from, and put into `config` what depends on them.

        Args:
            run: one that goes on, or None.

        Raises:
            InputError: data or weights that cannot be used.
        """

    @abstractmethod
    def model(self) -> keras.Model:
        """The model, not compiled; called once, in the strategy's scope."""

    @abstractmethod
    def loss(self) -> MeanOverValid:
        """The loss; called in the strategy's scope, as is `metrics`."""

    @abstractmethod
    def metrics(self) -> list[keras.metrics.Metric]:
        """What is told of each epoch; one of them has the name `score`."""

    @abstractmethod
    def train_batches(self, start: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Endless augmented batches from sample number `start` on, see `training.data.pipeline.endless_batches`."""

    @abstractmethod
    def eval_batches(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Every validation sample once, in order, the last batch filled up with ignored ones."""

    @abstractmethod
    def draw(self, model: Any, out: Path) -> None:
        """A picture of what the model makes of a few validation samples."""
