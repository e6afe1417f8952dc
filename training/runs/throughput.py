"""How fast a training is, and whether its data keeps up."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import keras


class Throughput(keras.callbacks.Callback):
    """Tells of each epoch ``images_per_second`` and ``data_wait``, the share of a step spent waiting for a batch.

    A step ends when its logs are there, for a GPU works on when the call has returned. Validation, saving and an
    epoch's first step, in which TensorFlow may still be tracing, do not count.

    Args:
        batch_size: samples per step, over all replicas.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def on_train_begin(self, logs: object = None) -> None:
        step = getattr(self.model.train_function, "untimed", self.model.train_function)

        def timed(iterator: Any) -> Any:
            self.started = perf_counter()
            batch = next(iterator)
            self.ready = perf_counter()
            return step(iter([batch]))

        timed.untimed = step  # type: ignore[attr-defined]  # for a `fit` after one that ended in an error
        self.model.train_function = timed

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.steps.append((self.ready - self.started, perf_counter() - self.started))

    def on_train_end(self, logs: object = None) -> None:
        self.model.train_function = None  # `fit` makes its own again

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.steps: list[tuple[float, float]] = []

    def told(self) -> dict[str, float]:
        """Both, of the epoch so far."""
        waited, whole = (sum(times) for times in zip(*(self.steps[1:] or self.steps), strict=True))
        count = max(len(self.steps) - 1, 1)
        return {"images_per_second": count * self.batch_size / whole, "data_wait": waited / whole}
