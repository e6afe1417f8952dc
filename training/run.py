"""A run folder: what was asked, where it ran, what came of it."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.edge.draw import overlay
from segformer_tf.edge.mask import logits_to_mask
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from training.pictures import plot_history, plot_panel
from training.pipeline import eval_batches
from training.sources import Source


class Run:
    """Paths and records of one training.

    ::

        runs/NAME/  config.json  environment.json  history.csv  curves.png  panel.png
                    weights/{last,best}.keras  tensorboard/
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.last = root / "weights" / "last.keras"
        self.best = root / "weights" / "best.keras"
        self.history = root / "history.csv"
        self.tensorboard = root / "tensorboard"

    @classmethod
    def create(cls, root: Path, config: Any) -> Run:
        """Make the folder and write what was asked and where it runs; raises InputError where it exists."""
        if root.exists():
            raise InputError(f"{root}: a run is there already; remove it or choose another --out")
        run = cls(root)
        try:
            run.last.parent.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{root}: cannot be made ({error.strerror})") from None
        write_json(root / "config.json", asdict(config))
        write_json(root / "environment.json", environment())
        return run

    def callbacks(self, source: Source, size: tuple[int, int]) -> list[keras.callbacks.Callback]:
        """Keras callbacks that keep this folder: last and best weights, CSV, TensorBoard, pictures."""
        return [
            keras.callbacks.CSVLogger(str(self.history)),
            keras.callbacks.TensorBoard(str(self.tensorboard), write_graph=False),
            SaveWeights(self),
            Pictures(self, source, size),
        ]


class SaveWeights(keras.callbacks.Callback):
    """last.keras after every epoch, best.keras when validation mean IoU rises; each by rename."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.best = -np.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._save(self.run.last)
        score = (logs or {}).get("val_mean_iou", np.nan)
        if score > self.best:
            self.best = score
            self._save(self.run.best)

    def _save(self, path: Path) -> None:
        with atomic(path) as part:
            self.model.save(part)


class Pictures(keras.callbacks.Callback):
    """curves.png and panel.png (image, truth, prediction of a few validation samples) after every epoch."""

    def __init__(self, run: Run, source: Source, size: tuple[int, int], *, samples: int = 4) -> None:
        super().__init__()
        self.run = run
        self.labels = source.labels
        indices = np.unique(np.linspace(0, len(source) - 1, samples).astype(int))
        self.samples = [source[int(i)] for i in indices]
        self.batch = next(iter(eval_batches(self.samples, size=size, batch_size=len(self.samples))))[0]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        plot_history(self.run.history, self.run.root / "curves.png")
        rows = []
        for (image, truth), logits in zip(
            self.samples, np.asarray(self.model(self.batch, training=False)), strict=True
        ):
            prediction = logits_to_mask(logits, (image.shape[0], image.shape[1]))
            rows.append([image, overlay(image, truth, self.labels), overlay(image, prediction, self.labels)])
        plot_panel(rows, self.run.root / "panel.png", titles=("image", "truth", "prediction"))


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
