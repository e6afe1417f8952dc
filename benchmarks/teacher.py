"""What a teacher brings: the tiny network alone and taught by a B0, with several seeds.

All students of a seed get the same steps, data and first weights; the score is the mean IoU on the test split, of the
weights that were best on the validation split. Runs that are there are not made again, and one that was stopped goes
on.

    python -m benchmarks.teacher --data data/nuclei --out runs/teacher
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import keras
from cyclopts import run
from rich.table import Table

from benchmarks.trained import trained
from segformer_tf.errors import InputError
from segformer_tf.terminal import plain_console
from training.config import TrainConfig
from training.data.open import open_source
from training.evaluate import evaluate, open_predictor

STUDENTS: dict[str, dict[str, Any]] = {
    "alone": {},
    "logits and features": {"distill": (1.0, 1.0)},
    "logits": {"distill": (1.0, 0.0)},
}
EPOCH_STEPS = 300


def scored(out: Path, data: str, **options: Any) -> tuple[float, float]:
    """Test mean IoU of a run, made or finished first, and the processor seconds that took, or 0."""
    config = TrainConfig(
        data=data,
        out=out,
        crop=(64, 64),
        eval_size=(256, 256),
        warmup_steps=50,
        learning_rate=1e-3 if options["variant"] == "b0" else 3e-3,
        head_multiplier=1.0,
        epoch_steps=EPOCH_STEPS,
        **options,
    )
    keras.backend.clear_session()
    before, new = process_time(), not out.exists()
    trained(config)
    seconds = process_time() - before if new else 0.0
    test = open_source(data, "test")
    with open_predictor(out, runtime=None, labels=test.labels) as predict:
        return evaluate(predict, test, indices=range(len(test))).mean_iou, seconds


def main(*, data: str, out: Path, seeds: int = 3, steps: int = 300, teacher_steps: int = 600) -> None:
    """Train the teacher and all students, and print a table.

    Parameters
    ----------
    data
        Folder of images and masks, or tfds:toy_shapes, with splits train, val and test.
    out
        Folder of all runs.
    seeds
        Students of each kind.
    steps
        Optimizer steps of a student, a multiple of 300.
    teacher_steps
        Optimizer steps of the teacher, a multiple of 300.
    """
    teacher, _ = scored(out / "teacher", data, variant="b0", steps=teacher_steps)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in STUDENTS}
    for seed in range(seeds):  # one of each kind after another: what disturbs the machine disturbs all of them
        for name, options in STUDENTS.items():
            taught = {"teacher": str(out / "teacher"), **options} if options else {}
            folder = out / f"{name.replace(' ', '-')}-{seed}"
            results[name].append(scored(folder, data, variant="tiny", steps=steps, seed=seed, **taught))
            print(f"{folder.name}: {results[name][-1][0]:.4f}", flush=True)
    table = Table("student", "test mean IoU of each seed", "mean", "deviation", "CPU s", title=f"teacher {teacher:.4f}")
    for name, rows in results.items():
        scores, seconds = [score for score, _ in rows], [each for _, each in rows if each]
        table.add_row(
            name,
            " ".join(f"{score:.4f}" for score in scores),
            f"{mean(scores):.4f}",
            f"{stdev(scores):.4f}" if seeds > 1 else "-",
            f"{mean(seconds):.0f}" if seconds else "-",
        )
    plain_console().print(table)


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"teacher: {error}")
