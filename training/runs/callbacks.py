"""Keras callbacks of a run: stopping, measuring, saving and drawing."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import keras
import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.keras_file import first_non_finite
from training.distributed.strategy import this_place
from training.optim.optimizer import SharedLossScale, averaged, swap_average
from training.runs.backup import Backup, Progress
from training.runs.folder import Run
from training.runs.plots import CLASS_IOU, plot_history

# In a row; by then the loss scale is halved from Keras' first one, 2^15, to 2^-17.
_MOST_SKIPPED = 32


class StopBetweenSteps(keras.callbacks.Callback):
    """Ends `fit` by KeyboardInterrupt after the current step when Ctrl-C or SIGTERM comes; at once on the second.

    Python's own handler raises wherever the code is, and inside a destructor the exception is lost. Use it as a
    context manager in the main thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopping = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._request_stop) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _request_stop(self, number: int, frame: object) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self._stopping:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end


class StopAtDivergence(keras.callbacks.Callback):
    """Ends `fit` by an `InputError` after the step whose loss or gradient is no finite number.

    `SegFormerAdamW` makes no update with such a gradient and does not count the step, which shows here. With loss
    scaling a few such steps are expected while the scale is halved; many in a row end the training too. The gradient is
    the sum over all replicas, so all workers end at the same step.

    Args:
        epoch_steps: steps of an epoch.
        rate: the learning rate after a number of updates.
        advice: end of the error's line: what the run folder keeps, and what to try.
    """

    def __init__(self, epoch_steps: int, *, rate: Callable[[int], Any], advice: Callable[[], str]) -> None:
        super().__init__()
        self.epoch_steps = epoch_steps
        self.rate = rate
        self.advice = advice
        self._in_a_row = 0

    def values(self) -> dict[str, float]:
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
        if not np.all(np.isfinite(loss)):  # one value per worker
            reason = "the loss is no finite number"
        elif skipped and not self._scaled:
            reason = "the gradient is no finite number"
        elif self._in_a_row >= _MOST_SKIPPED:
            reason = f"the gradient was no finite number {_MOST_SKIPPED} times in a row, however small the loss scale"
        if reason:
            step = self._epoch * self.epoch_steps + batch + 1
            raise InputError(f"step {step}, at rate {float(self.rate(before)):.3g}: {reason}; {self.advice()}")

    def _count(self) -> int:
        return int(self.model.optimizer.iterations.numpy())


class Throughput(keras.callbacks.Callback):
    """Measures ``images_per_second`` and ``data_wait``, the share of an epoch's time spent waiting for batches.

    A step ends when its logs have arrived, as a GPU goes on working after the call has returned. Validation, saving and
    an epoch's first step, in which TensorFlow may still be tracing, do not count.

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
        self.model.train_function = None  # `fit` makes a new one

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.steps: list[tuple[float, float]] = []

    def values(self) -> dict[str, float]:
        """Both values for the epoch so far."""
        waited, whole = (sum(times) for times in zip(*(self.steps[1:] or self.steps), strict=True))
        count = max(len(self.steps) - 1, 1)
        return {"images_per_second": count * self.batch_size / whole, "data_wait": waited / whole}


class ValidateAveraged(keras.callbacks.Callback):
    """Validates the moving average of the weights if the optimizer keeps one, as that is what is saved.

    Attributes:
        running: whether a validation is under way, or was when an error came.
    """

    running = False

    def on_test_begin(self, logs: object = None) -> None:
        self.running = True
        swap_average(self.model)

    def on_test_end(self, logs: object = None) -> None:
        swap_average(self.model)
        self.running = False


class SaveRun(keras.callbacks.Callback):
    """Saves an epoch: after its training the last weights and a backup, after its validation the best weights, the
    history, and a note beside the backup.

    So a validation that fails loses no epoch. The backup follows the weights, and the note follows the history: after a
    kill in between, the training or the validation is repeated and its files are written again. Of several workers only
    the chief writes more than a backup. It must precede `ValidateAveraged` and callbacks that read an epoch's logs.

    Args:
        run: where to save.
        progress: updated here.
        score: the metric whose best value on the validation split selects the best weights.
        size: (height, width) of validation images, if fixed; where it changed, scores of before are not compared.
        extra: functions that give more values for an epoch's logs.
        classes: gives the IoU of the classes in the validation that just ended, by name, for the history alone.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        *,
        score: str,
        size: Sequence[int] | None = None,
        extra: Sequence[Callable[[], dict[str, float]]] = (),
        classes: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        super().__init__()
        self.run = run
        self.progress = progress
        self.score = score
        self.size = list(size) if size else None
        self.extra = extra
        self.classes = classes

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch

    def on_test_begin(self, logs: object = None) -> None:
        if self.progress.trained is not None:  # saved already, but the run stopped before its validation
            return
        if broken := first_non_finite(self.model):
            raise InputError(f"{self.run.root}: epoch {self._epoch + 1} left {broken} without finite numbers; not kept")
        self.progress.epoch = self._epoch + 1
        self.progress.trained = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        for values in self.extra:
            self.progress.trained |= values()
        if this_place().chief:
            with averaged(self.model):
                self.save_weights(self.model, self.run.last)
        Backup(self.run.backup).save(self.model, self.progress)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        for name, value in (self.progress.trained or {}).items():
            logs.setdefault(name, value)
        values = {name: float(value) for name, value in logs.items()}
        self.progress.trained = None
        classes = {f"{CLASS_IOU}{name}": iou for name, iou in self.classes().items()}  # read on every worker
        self.progress.history.append({"epoch": epoch, **values, **classes})
        score = values[f"val_{self.score}"]
        if self.progress.size != self.size:
            self.progress.best, self.progress.best_epoch, self.progress.size = -1.0, 0, self.size
        # Logits of nan have an arg-max, and so a score; only the loss shows them.
        better = score > self.progress.best and np.isfinite(values["val_loss"])
        self.progress.waited += 1
        if better:
            self.progress.best, self.progress.best_epoch, self.progress.waited = score, epoch + 1, 0
        if this_place().chief:
            if better:
                with averaged(self.model):
                    self.save_weights(self.model, self.run.best)
            self._write_history()
        Backup(self.run.backup).note(self.progress)

    def _write_history(self) -> None:
        with atomic(self.run.history) as part, part.open("w", newline="") as file:
            columns = dict.fromkeys(name for row in self.progress.history for name in row)
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self.progress.history)

    @staticmethod
    def save_weights(model: keras.Model, path: Path) -> None:
        """Save the model as a ``.keras`` file; no half-written file is ever there."""
        with atomic(path) as part:
            model.save(part)


class StopEarly(keras.callbacks.Callback):
    """Ends `fit` once the score has not been better for `patience` validations; comes after `SaveRun`."""

    def __init__(self, progress: Progress, patience: int | None) -> None:
        super().__init__()
        self.progress = progress
        self.patience = patience

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if self.progress.stopped_early(self.patience):
            self.model.stop_training = True


class DrawPictures(keras.callbacks.Callback):
    """Draws curves.png (loss and score) and panel.png (by `draw`) after every epoch.

    Attributes:
        running: whether pictures are being drawn, or were when an error came.
    """

    running = False

    def __init__(self, run: Run, progress: Progress, *, score: str, draw: Callable[[keras.Model, Path], None]) -> None:
        super().__init__()
        self.run = run
        self.progress = progress
        self.score = score
        self.draw = draw

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.running = True
        plot_history(self.progress.history, self.run.root / "curves.png", score=self.score)
        with averaged(self.model):
            self.draw(self.model, self.run.root / "panel.png")
        self.running = False
