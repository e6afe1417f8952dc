"""A training that diverges ends at that step, and what is kept of it holds finite numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from segformer_tf.errors import InputError
from training.optim.optimizer import SharedLossScale

# The loss scale was halved as often: from Keras' first one, 2^15, to 2^-17.
_MOST_SKIPPED = 32


class StopAtDivergence(keras.callbacks.Callback):
    """Ends `fit` by an `InputError` after the step whose loss or gradient is no finite number.

    The optimizer made no update of such a gradient, and did not count it (`SegFormerAdamW`); that count is what is read
    here. Under loss scaling such steps are expected: they are skipped while the scale is halved, and counted; many
    in a row end the training as well. The sum of gradients is that of all replicas, so all workers end at one step.

    Args:
        epoch_steps: steps of an epoch.
        rate: the schedule, of the number of updates made before.
        kept: what is left of the training, and what to try: the end of the line.
    """

    def __init__(self, epoch_steps: int, *, rate: Callable[[int], Any], kept: Callable[[], str]) -> None:
        super().__init__()
        self.epoch_steps = epoch_steps
        self.rate = rate
        self.kept = kept
        self._in_a_row = 0

    def told(self) -> dict[str, float]:
        """``skipped_steps`` of the epoch, where the loss is scaled."""
        return {"skipped_steps": self._skipped} if self._scaled else {}

    def on_train_begin(self, logs: object = None) -> None:
        self._scaled = isinstance(self.model.optimizer, SharedLossScale)
        self._updates = self._count()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch, self._skipped = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._updates = self._updates, self._count()
        skipped, loss = self._updates == before, (logs or {}).get("loss", 0.0)
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        self._skipped += skipped
        reason = ""
        if not np.all(np.isfinite(loss)):  # several workers tell one each
            reason = "the loss is no finite number"
        elif skipped and not self._scaled:
            reason = "the gradient is no finite number"
        elif self._in_a_row >= _MOST_SKIPPED:
            reason = f"the gradient was no finite number {_MOST_SKIPPED} times in a row, however small the loss scale"
        if reason:
            step = self._epoch * self.epoch_steps + batch + 1
            raise InputError(f"step {step}, at rate {float(self.rate(before)):.3g}: {reason}; {self.kept()}")

    def _count(self) -> int:
        return int(self.model.optimizer.iterations.numpy())
