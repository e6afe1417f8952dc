"""What helps a training from scratch: one option changed at a time, at a fixed number of steps, beside a baseline.

Every row begins with fresh weights. The score is of the last weights, once, on the validation split and on the test
split, so that nothing is selected on either while a row is trained.

    pip install '.[train]'
    python -m benchmarks.ablation --data data/camvid --out runs/ablation
    taskset -c 1 python -m benchmarks.ablation --data data/camvid --out runs/ablation --rows lovasz --seeds 1 2

Rows are written as they are finished: one that is there is not trained again, one that was stopped begins again.
Several processes may share `--out` if they have other rows or seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from time import process_time
from typing import Annotated, Any

import keras
from cyclopts import Parameter, run
from rich.table import Table

from benchmarks.trained import trained
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder
from segformer_tf.terminal import plain_console
from training.config import TrainConfig
from training.data.open import open_source
from training.evaluate import evaluate, open_predictor
from training.protocols import EvalProtocol

STEPS = 700
SIZE = (288, 384)  # that validation and test images are stretched to

BASELINE: dict[str, Any] = {
    "variant": "b0",
    "crop": (192, 192),
    "scale": (0.5, 1.1),
    "batch_size": 8,
    "steps": STEPS,
    "learning_rate": 6e-4,
    "head_multiplier": 1.0,
    "weight_decay": 0.05,
    "warmup_steps": 70,
    "drop_path": 0.0,
    "class_weights": 0.25,
    "ema": 0.99,
    "precision": "mixed_bfloat16",
    "eval_size": SIZE,
}
ROWS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "twice": {"steps": 2 * STEPS},
    "jitter": {"scale": (0.35, 1.6)},
    "ohem": {"loss": "ohem"},
    "lovasz": {"loss": "ce+lovasz"},
    "dice": {"loss": "ce+dice"},
    "balance": {"balance": 0.3},
    "drop-path": {"drop_path": 0.1},
    "mix": {"mix": 0.5},
    "color": {"color": 1.6, "stretch": 1.25},
    "teacher": {"teacher": "models/camvid_b0.keras", "distill": (1.0, 1.0)},  # of twice the size
}
Row = dict[str, Any]


def score(name: str, seed: int, data: str, out: Path) -> Row:
    """A row, trained and scored unless it is there.

    Raises:
        InputError: a row of other options or data is there, or for the same reasons as `training.train.train`.
    """
    options = BASELINE | ROWS[name]
    place, asked = out / f"{name}-{seed}.json", {"row": name, "seed": seed, "data": Path(data).name, "options": options}
    asked = json.loads(json.dumps(asked))
    if place.exists():
        row: Row = json.loads(place.read_text("utf-8"))
        if row | asked != row:
            raise InputError(f"{place}: a row of other options or data is there. Give another --out, or remove it")
        return row
    keras.backend.clear_session()
    config = TrainConfig(data=data, out=out / f"{name}-{seed}", epoch_steps=options["steps"], seed=seed, **options)
    before, new = process_time(), not (out / f"{name}-{seed}").exists()
    done = trained(config)
    row = asked | {"processor_seconds": round(process_time() - before) if new else None}
    for split in ("val", "test"):
        source = open_source(data, split)
        with open_predictor(done.root, runtime=None, labels=source.labels, protocol=EvalProtocol(size=SIZE)) as predict:
            result = evaluate(predict, source, indices=range(len(source)))
        row[split] = round(result.mean_iou, 5)
    with atomic(place) as part:
        part.write_text(json.dumps(row), "utf-8")
    return row


def main(
    *,
    data: str,
    out: Path,
    rows: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = tuple(ROWS),
    seeds: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (0,),
) -> None:
    """Train and score the rows that are not there yet, and print the table.

    Parameters
    ----------
    data
        Folder of images and masks with the splits train, val and test.
    out
        Folder of all rows.
    rows
        Names of rows, all by default.
    seeds
        A training for each.
    """
    if unknown := [name for name in rows if name not in ROWS]:
        raise InputError(f"--rows must be of {', '.join(ROWS)}. Received: {unknown[0]}")
    make_folder(out)
    for seed in seeds:
        for name in rows:
            row = score(name, seed, data, out)
            print(f"{name}, seed {seed}: val {row['val']:.4f}, test {row['test']:.4f}", flush=True)
    _print([json.loads(place.read_text("utf-8")) for place in sorted(out.glob("*-*.json"))])


def _print(results: list[Row]) -> None:
    table = Table("row", "changed", "CPU min", "val", "test", "test of each seed")
    for name, changed in ROWS.items():
        own = sorted((row for row in results if row["row"] == name), key=lambda row: row["seed"])
        if not own:
            continue
        val, test = (mean(row[key] for row in own) for key in ("val", "test"))
        seconds = [row["processor_seconds"] for row in own if row["processor_seconds"]]
        minutes = f"{mean(seconds) / 60:.0f}" if seconds else "-"
        options = ", ".join(f"{key} {value}" for key, value in changed.items())
        each = " ".join(f"{row['test']:.4f}" for row in own)
        table.add_row(name, options, minutes, f"{val:.4f}", f"{test:.4f}", each)
    plain_console().print(table)


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"ablation: {error}")
