"""A run folder: what was asked, where it ran, what came of it."""

from __future__ import annotations

import csv
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from training.backup import Backup, Progress
from training.config import RunConfig
from training.optimizer import averaged
from training.pictures import plot_history
from training.strategy import this_place

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


class Run:
    """Paths and records of one training.

    ::

        runs/NAME/  config.json  environment.json  history.csv  curves.png  panel.png
                    weights/{last,best}.keras  backup/workerI-epochN.npz  tensorboard/
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
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
                made = Path(folder) / root.name
                (made / "weights").mkdir(parents=True)
                write_json(made / "config.json", replace(config, out=root).to_dict())
                write_json(made / "environment.json", [environment()])
                made.rename(root)
        except OSError as error:
            raise InputError(f"{root}: cannot be made ({error.strerror})") from None
        return cls(root)

    @classmethod
    def reopen(cls, root: Path, kind: type[AnyConfig]) -> tuple[Run, AnyConfig]:
        """A run that was stopped, and what was asked of it; notes in environment.json where it goes on.

        Raises:
            InputError: no run folder, or one of another task than `kind`'s.
        """
        config = kind.read(root / "config.json")
        if this_place().chief:
            record = root / "environment.json"
            with suppress(OSError, ValueError, TypeError):
                write_json(record, [*json.loads(record.read_text("utf-8")), environment()])
        return cls(root), replace(config, out=root)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a run folder, so that no second process trains into it; raises InputError where one does.

    The kernel lets go of it when the process ends, however that ends. Without `fcntl` (Windows), or on a disk that
    knows no locks, nothing is held.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    descriptor = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{root}: another process is training it") from None
        yield
    finally:
        os.close(descriptor)


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
    """Validates the moving average of the weights, where the optimizer keeps one, as it is what is kept."""

    def on_test_begin(self, logs: object = None) -> None:
        self._swapped = averaged(self.model)
        self._swapped.__enter__()

    def on_test_end(self, logs: object = None) -> None:
        self._swapped.__exit__(None, None, None)


class Keep(keras.callbacks.Callback):
    """Keeps the run folder after every epoch: history, last and best weights, and then the backup.

    The backup comes last, so that a kill in between repeats the epoch, and what it wrote is written again.
    Of several workers, only the chief writes more than a backup.

    Args:
        run, progress: what is kept.
        score: the metric whose best value on the validation split makes the best weights.
    """

    def __init__(self, run: Run, progress: Progress, *, score: str) -> None:
        super().__init__()
        self.run = run
        self.progress = progress
        self.score = score

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        told = {name: float(value) for name, value in (logs or {}).items()}
        self.progress.epoch = epoch + 1
        self.progress.history.append({"epoch": epoch, **told})
        score = told.get(f"val_{self.score}", np.nan)
        better = score > self.progress.best
        self.progress.best = score if better else self.progress.best
        if this_place().chief:
            self._write_history()
            with averaged(self.model):
                self.save_weights(self.model, self.run.last)
                if better:
                    self.save_weights(self.model, self.run.best)
        Backup(self.run.backup).save(self.model, self.progress)

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
    """curves.png, of loss and score, and panel.png, by `draw`, after every epoch."""

    def __init__(self, run: Run, progress: Progress, *, score: str, draw: Callable[[keras.Model, Path], None]) -> None:
        super().__init__()
        self.run = run
        self.progress = progress
        self.score = score
        self.draw = draw

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        plot_history(self.progress.history, self.run.root / "curves.png", score=self.score)
        with averaged(self.model):
            self.draw(self.model, self.run.root / "panel.png")


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
        part.write_text(json.dumps(data, indent=1, default=str) + "\n", "utf-8")
