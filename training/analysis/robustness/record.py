"""What was scored so far, in a file that is whole after every corruption and severity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from training.analysis.robustness.corruptions import Cell
from training.data.open import Source

FORMAT = 1


@dataclass(frozen=True)
class Score:
    """One model on all images of one cell: mean IoU, and that of each class, 0..1; nan where there is none."""

    mean_iou: float
    per_class: tuple[float, ...]


@dataclass
class Record:
    """The results file.

    Attributes:
        path: of the file.
        setting: what the scores depend on, as plain JSON: models, data, images, sizes, the package that corrupts.
        scores: of each cell that is finished, by its name, one for each model in order.
    """

    path: Path
    setting: dict[str, Any]
    scores: dict[str, tuple[Score, ...]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, setting: dict[str, Any]) -> Record:
        """The scores in `path` where they are of the same setting; none where there is no file.

        Raises:
            InputError: a file of another setting, naming what differs; or one that is not such a file.
        """
        if not path.exists():
            return cls(path, setting)
        try:
            saved = json.loads(path.read_text("utf-8"))
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}, expected {FORMAT}")
            theirs = dict(saved["setting"])
            models, classes = len(setting["models"]), len(setting["classes"])
            if differing := [name for name in setting if theirs.get(name) != setting[name]]:
                name = differing[0]
                raise InputError(
                    f"{path}: holds results for another setting: {name} {_short(theirs.get(name))}. Received: "
                    f"{_short(setting[name])}; another --out, or --overwrite to begin anew"
                )
            scores = {str(name): _read(each, models, classes) for name, each in saved["scores"].items()}
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}: not the results of `segformer robustness` ({error}); another --out, or --overwrite"
            ) from None
        return cls(path, setting, scores)

    def add(self, cell: Cell, scores: Sequence[Score]) -> None:
        """Add a finished cell and write the file, whole or not at all."""
        self.scores[cell.name] = tuple(scores)
        plain = {
            name: [
                {"mean_iou": _plain(each.mean_iou), "per_class": [_plain(iou) for iou in each.per_class]}
                for each in cell_scores
            ]
            for name, cell_scores in self.scores.items()
        }
        with atomic(self.path) as part:
            part.write_text(json.dumps({"format": FORMAT, "setting": self.setting, "scores": plain}, indent=1), "utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_digest(source: Source, indices: Iterable[int]) -> str:
    """SHA-256 of the pixels and masks of some samples, as hex digits."""
    digest = hashlib.sha256()
    for i in indices:
        for array in source[i]:
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _read(saved: Any, models: int, classes: int) -> tuple[Score, ...]:
    scores = tuple(Score(_iou(each["mean_iou"]), tuple(map(_iou, each["per_class"]))) for each in saved)
    if len(scores) != models or any(len(each.per_class) != classes for each in scores):
        raise ValueError(f"expected scores of {models} models and {classes} classes")
    return scores


def _plain(value: float) -> float | None:
    return None if isnan(value) else value  # whole, so that a run that was stopped ends like one that was not


def _iou(value: Any) -> float:
    number = nan if value is None else float(value)
    if not isnan(number) and not 0 <= number <= 1:
        raise ValueError(f"expected an IoU of 0 to 1. Received: {value}")
    return number


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
