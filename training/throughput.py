"""How fast a training is, and whether its data keeps up."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import keras


class Throughput(keras.callbacks.Callback):
    """Adds to each epoch's logs ``images_per_second`` and ``data_wait``, the share of a step spent waiting for a batch.

    Validation, saving and an epoch's first step, in which TensorFlow may still be tracing, do not count. Comes before
    the callbacks that write logs.

    Args:
        batch_size: samples per step, over all replicas.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def on_train_begin(self, logs: object = None) -> None:
        step = self.model.train_function

        def timed(iterator: Any) -> Any:
            started = perf_counter()
            batch = next(iterator)
            ready = perf_counter()
            result = step(iter([batch]))
            self.steps.append((ready - started, perf_counter() - started))
            return result

        self.model.train_function = timed

    def on_train_end(self, logs: object = None) -> None:
        self.model.train_function = None  # `fit` makes its own again

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.steps: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        waited, whole = (sum(times) for times in zip(*(self.steps[1:] or self.steps), strict=True))
        count = max(len(self.steps) - 1, 1)
        if logs is not None:
            logs["images_per_second"] = count * self.batch_size / whole
            logs["data_wait"] = waited / whole
