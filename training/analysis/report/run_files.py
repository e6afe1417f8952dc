"""What a run folder says of itself, as far as it is there."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError, first_line

_LARGEST = 1 << 26  # bytes of a file that is read


@dataclass(frozen=True)
class RunFiles:
    """A run folder.

    Attributes:
        root: the folder.
        config: the options; {} where they are missing.
        environment: of the process that trained last; {} where it is missing.
        history: an epoch each, numbers alone.
        missing: (part of the page, why it is not there).
    """

    root: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, float]]
    missing: list[tuple[str, str]]

    @property
    def data(self) -> str | None:
        """The data it was trained on: the manifest in the folder, if there is one, else what the options say."""
        manifest = self.root / "dataset.json"
        data = str(manifest) if manifest.is_file() else self.config.get("data")
        return data if isinstance(data, str) and data else None

    @property
    def validation_split(self) -> str:
        """The split that it was validated on."""
        split = self.config.get("val_split")
        return split if isinstance(split, str) and split else "val"


def read_run(root: Path) -> RunFiles:
    """Read what is there.

    Raises:
        InputError: a folder that is no run's at all, or the run of a pretraining.
    """
    names = ("config.json", "history.csv", "environment.json", "weights")
    if not any((root / name).exists() for name in names):
        raise InputError(f"{root}: expected a run folder or a model file; it holds none of {', '.join(names)}")
    missing = list[tuple[str, str]]()

    def read(name: str, part: str, parse: Any, default: Any) -> Any:
        path = root / name
        try:
            if path.stat().st_size > _LARGEST:
                raise ValueError(f"more than {_LARGEST >> 20} MiB")
            return parse(path)
        except FileNotFoundError:
            missing.append((part, f"{name} is not there"))
        except (OSError, AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
            missing.append((part, f"{name} cannot be read ({first_line(error)})"))
        return default

    config = read("config.json", "Options of the training", _mapping, {})
    if config.get("task", "segmentation") != "segmentation":
        raise InputError(f"{root}: a pretrained encoder has no masks to report on; expected a run of segformer train")
    environment = read("environment.json", "Versions of the training", _last, {})
    history = read("history.csv", "Curves", read_history, [])
    return RunFiles(root, config, environment, history, missing)


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a ``history.csv``, without empty cells.

    Raises:
        OSError, ValueError: it cannot be read, holds something else than numbers, or no epoch.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: float(cell) for name, cell in row.items() if name and cell} for row in csv.DictReader(file)]
    if not rows or any("epoch" not in row for row in rows):
        raise ValueError("expected a row for each epoch")
    return rows


def _mapping(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError("expected an object")
    return content


def _last(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    if not (isinstance(content, list) and content and isinstance(content[-1], dict)):
        raise ValueError("expected a list of objects")
    return content[-1]
