"""A run folder: its paths, its options, and where and when it ran."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tensorflow as tf

from segformer_tf.errors import InputError
from segformer_tf.files import atomic, new_folder
from training.config import RunConfig
from training.distributed.strategy import this_place
from training.lock import locked
from training.runs.backup import Backup


class Run:
    """Paths and records of a training.

    ::

        runs/NAME/  config.json  environment.json  history.csv  curves.png  panel.png
                    weights/{last,best}.keras  backup/workerI-epochN.{npz,json}  tensorboard/
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = root / "dataset.json"  # of a data folder that has none and cannot be written
        self.last = root / "weights" / "last.keras"
        self.best = root / "weights" / "best.keras"
        self.history = root / "history.csv"
        self.backup = root / "backup"
        self.tensorboard = root / "tensorboard"

    @classmethod
    def create(cls, root: Path, config: RunConfig, records: Mapping[str, Any] | None = None) -> Run:
        """Make the folder, whole or not at all, with the options and the environment.

        Args:
            root: the folder.
            config: the final options.
            records: data of more JSON files, by name.

        Raises:
            InputError: it exists, or cannot be made.
        """
        cls.refuse_existing(root)
        with new_folder(root) as part:
            (part / "weights").mkdir()
            write_json(part / "config.json", config.to_dict())
            write_json(part / "environment.json", [environment()])
            for name, data in (records or {}).items():
                write_json(part / name, data)
        return cls(root)

    @staticmethod
    def refuse_existing(root: Path) -> None:
        """Raises InputError where something stands in the way of a new run."""
        if root.exists():
            resume = f"go on with --resume {root}, or " if (root / "config.json").exists() else ""
            raise InputError(f"{root}: exists already; {resume}choose another --out")

    @classmethod
    def join(cls, root: Path, config: RunConfig, records: Mapping[str, Any] | None = None) -> Run:
        """The folder that the chief made; on a worker that shares no disk with the chief, a folder of its own.

        Raises:
            InputError: an older run of this worker is there.
        """
        if not root.exists():
            return cls.create(root, config, records)
        run, index = cls(root), this_place().index
        if Backup(run.backup).exists():
            raise InputError(f"{root}: exists already on worker {index}; choose another --out on all of them")
        return run

    def write_changes(self, before: RunConfig, config: RunConfig, *, chief: bool) -> None:
        """Write changed options into config.json; the chief adds them and its environment to environment.json."""
        old, new = (json.loads(_as_json(each.to_dict())) for each in (before, config))
        changed = {name: [old[name], value] for name, value in new.items() if value != old[name]}
        record = self.root / "environment.json"
        if chief:
            with suppress(OSError, ValueError, TypeError):
                here = {**environment(), **({"changed": changed} if changed else {})}
                write_json(record, [*json.loads(record.read_text("utf-8")), here])
        path = self.root / "config.json"
        if path.read_text("utf-8") != _as_json(config.to_dict()):
            write_json(path, config.to_dict())


def alone_in(root: Path) -> AbstractContextManager[None]:
    """Lock a run folder while this process trains into it; raises InputError if another process has locked it."""

    def refuse() -> None:
        raise InputError(f"{root}: another process is training it")

    return locked(root / "backup" / ".lock", when_busy=refuse)


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
    """Write `data` as JSON, with paths as strings."""
    with atomic(path) as part:
        part.write_text(_as_json(data), "utf-8")


def _as_json(data: Any) -> str:
    return json.dumps(data, indent=1, default=str) + "\n"
