"""A run folder: what was asked, where it ran, what came of it."""

from __future__ import annotations

import csv
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.checkpoint import first_non_finite
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, new_folder
from training.runs.backup import Backup, Progress
from training.config import RunConfig
from training.optim.optimizer import averaged, swap_average
from training.runs.plots import plot_history
from training.lock import locked
from training.distributed.strategy import this_place

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


class Run:
    """Paths and records of one training.

    ::

        runs/NAME/  config.json  environment.json  history.csv  curves.png  panel.png
                    weights/{last,best}.keras  backup/workerI-epochN.{npz,json}  tensorboard/
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.last = root / "weights" / "last.keras"
        self.best = root / "weights" / "best.keras"
        self.history = root / "history.csv"
        self.backup = root / "backup"
        self.tensorboard = root / "tensorboard"

    @classmethod
    def create(cls, root: Path, config: RunConfig) -> Run:
        """Make the folder, whole or not at all, with what was asked and where it runs.

        Raises:
            InputError: it exists, or cannot be made.
        """
        if root.exists():
            raise InputError(f"{root}: exists already; go on with --resume {root}, or choose another --out")
        with new_folder(root) as part:
            (part / "weights").mkdir()
            write_json(part / "config.json", replace(config, out=root).to_dict())
            write_json(part / "environment.json", [environment()])
        return cls(root)

    @classmethod
    def reopen(cls, root: Path, kind: type[AnyConfig]) -> tuple[Run, AnyConfig]:
        """A run that was stopped, and what was asked of it.

        Raises:
            InputError: no run folder, or one of another task than `kind`'s.
        """
        config = kind.read(root / "config.json")
        return cls(root), replace(config, out=root)

    def go_on(self, before: RunConfig, config: RunConfig) -> None:
        """Record that the run goes on here: versions and changes in environment.json, what holds now in config.json.

        Args:
            before: what was asked of it when it stopped.
            config: what is asked now.
        """
        was, now = (json.loads(_as_json(each.to_dict())) for each in (before, config))
        changed = {name: [was[name], value] for name, value in now.items() if value != was[name]}
        record = self.root / "environment.json"
        with suppress(OSError, ValueError, TypeError):
            here = {**environment(), **({"changed": changed} if changed else {})}
            write_json(record, [*json.loads(record.read_text("utf-8")), here])
        self.ask(config)

    def ask(self, config: RunConfig) -> None:
        """Let config.json say what is asked, where it does not."""
        path = self.root / "config.json"
        if path.read_text("utf-8") != _as_json(config.to_dict()):
            write_json(path, config.to_dict())


def alone_in(root: Path) -> AbstractContextManager[None]:
    """Hold a run folder, so that no second process trains into it; raises InputError where one does."""

    def refuse() -> None:
        raise InputError(f"{root}: another process is training it")

    return locked(root / "backup" / ".lock", when_busy=refuse)


class StopBetweenSteps(keras.callbacks.Callback):
    """Ends `fit` by KeyboardInterrupt after the step in hand when Ctrl-C or SIGTERM comes; at once on the second.

    Python raises its own wherever it is, and loses it inside a destructor. A context manager; of the main thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self._asked:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end


class ValidateAveraged(keras.callbacks.Callback):
    """Validates the moving average of the weights, where the optimizer keeps one, as it is what is kept.

    Attributes:
        running: whether a validation has begun and not ended.
    """

    running = False

    def on_test_begin(self, logs: object = None) -> None:
        self.running = True
        swap_average(self.model)

    def on_test_end(self, logs: object = None) -> None:
        swap_average(self.model)
        self.running = False


class Keep(keras.callbacks.Callback):
    """Keeps the run folder: of an epoch that is trained the last weights and the backup, of one that is validated too
    the best weights, the history, and a note in the backup.

    So no validation can lose an epoch. The backup comes after the weights, and the note after the history: a kill in
    between repeats the training, or the validation, and what it wrote is written again. Of several workers, only the
    chief writes more than a backup. Comes before `ValidateAveraged`, and before who reads what is told of an epoch.

    Args:
        run, progress: what is kept.
        score: the metric whose best value on the validation split makes the best weights.
        size: (height, width) that it is scored at, if any; at another one than before, the best is looked for anew.
        told: what else to tell of an epoch's training.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        *,
        score: str,
        size: Sequence[int] | None = None,
        told: Sequence[Callable[[], dict[str, float]]] = (),
    ) -> None:
        super().__init__()
        self.run = run
        self.progress = progress
        self.score = score
        self.size = list(size) if size else None
        self.told = told

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch

    def on_test_begin(self, logs: object = None) -> None:
        if self.progress.trained is not None:  # kept already: this validation was missed
            return
        if broken := first_non_finite(self.model):
            raise InputError(f"{self.run.root}: epoch {self._epoch + 1} left {broken} without finite numbers; not kept")
        self.progress.epoch = self._epoch + 1
        self.progress.trained = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        for more in self.told:
            self.progress.trained |= more()
        if this_place().chief:
            with averaged(self.model):
                self.save_weights(self.model, self.run.last)
        Backup(self.run.backup).save(self.model, self.progress)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        for name, value in (self.progress.trained or {}).items():
            logs.setdefault(name, value)
        told = {name: float(value) for name, value in logs.items()}
        self.progress.trained = None
        self.progress.history.append({"epoch": epoch, **told})
        score = told[f"val_{self.score}"]
        if self.progress.size != self.size:
            self.progress.best, self.progress.size = -1.0, self.size
        # Logits that are no numbers have an arg-max, and a score; the loss tells them.
        better = score > self.progress.best and np.isfinite(told["val_loss"])
        self.progress.best = score if better else self.progress.best
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
        """The model as a ``.keras`` file, by rename."""
        with atomic(path) as part:
            model.save(part)


class Pictures(keras.callbacks.Callback):
    """curves.png, of loss and score, and panel.png, by `draw`, after every epoch.

    Attributes:
        running: whether pictures have begun and not ended.
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


def environment() -> dict[str, Any]:
    """Versions and devices of this process, as plain JSON types."""
    versions = {}
    for name in ("segformer_tf", "tensorflow", "keras", "tensorflow-datasets", "numpy", "Pillow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "devices": [f"{d.device_type}:{d.name}" for d in tf.config.list_physical_devices()],
        "versions": versions,
    }


def write_json(path: Path, data: Any) -> None:
    """`data` as JSON; paths become strings."""
    with atomic(path) as part:
        part.write_text(_as_json(data), "utf-8")


def _as_json(data: Any) -> str:
    return json.dumps(data, indent=1, default=str) + "\n"
