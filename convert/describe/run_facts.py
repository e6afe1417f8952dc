"""What a run folder says about its training, in short: score, data, sizes, options."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError, first_line

# Name, form, and options that the form needs; a run of another version may lack some.
_FACTS = {
    "data": ("{data}, {train_split} and {val_split}", "data train_split val_split"),
    "training": (
        "{steps} steps of {batch_size} images, rate {learning_rate}, seed {seed}",
        "steps batch_size learning_rate seed",
    ),
    "crop": ("{crop}", "crop"),
    "validated at": ("{eval_size}", "eval_size"),
    "began with": ("{weights}", "weights"),
}
_SCORES = {"val_mean_iou": "mean IoU", "val_top_1": "top 1"}


def run_facts(root: Path) -> dict[str, str]:
    """Score, progress, data, sizes and rate of a run, by name; {} for a folder without ``config.json``.

    Raises:
        InputError: a damaged ``config.json`` or ``history.csv``.
    """
    path = root / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
        found = {key: _text(value) for key, value in config.items() if value is not None}
        facts = {
            name: form.format_map(found) for name, (form, keys) in _FACTS.items() if found.keys() >= set(keys.split())
        }
        path = root / "history.csv"
        return {**_score(path), **facts} if path.is_file() else facts
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a run's ({first_line(error)})") from None


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _score(history: Path) -> dict[str, str]:
    """The best validation, and how far the run is."""
    with history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for key, name in _SCORES.items():
        if scored := [row for row in rows if row.get(key)]:
            best = max(scored, key=lambda row: float(row[key]))
            last = scored[-1]
            return {
                "score": f"{name} {float(best[key]):.4f} on validation, after epoch {int(best['epoch']) + 1} of "
                f"{int(last['epoch']) + 1}; at last {float(last[key]):.4f}"
            }
    return {}
