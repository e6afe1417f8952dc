"""What pretraining without labels is worth: a short training from scratch, after `pretrain --masked`, and a longer one.

The encoder is pretrained once, on the images of all folders. Then, for each seed, a segmenter is trained on the first
folder from scratch, from that encoder, and from scratch with the steps that the pretraining took as well; all else is
the same. It is scored once, at its end, so that nothing is selected on the test split.

    pip install '.[train]'
    python -m benchmarks.masked data/nuclei data/clothing --out runs/masked

Each row is written as soon as it is scored; rows that the CSV has already, of the same options, are not trained again.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from statistics import mean
from time import process_time

from cyclopts import run
from rich.table import Table

from benchmarks.trained import trained
from segformer_tf.errors import InputError
from segformer_tf.files import atomic, make_folder
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import plain_console
from training.config import PretrainConfig, TrainConfig

Row = dict[str, str]
PRETRAINING, SCRATCH, MASKED, LONGER = "pretraining", "scratch", "masked", "scratch, longer"


def main(
    data: Path,
    /,
    *more: Path,
    out: Path,
    variant: str = "b0",
    crop: int = 128,
    seeds: int = 3,
    pretrain_steps: int = 500,
    pretrain_batch: int = 16,
    steps: int = 150,
    long_steps: int = 920,
    eval_size: tuple[int, int] | None = None,
) -> None:
    """Train and score.

    Parameters
    ----------
    data
        Segmentation data folder, with a test split.
    more
        More folders to pretrain on.
    out
        Folder for runs and masked.csv; an encoder that was pretrained there, on the same folders in any order and with
        the same options, is taken again.
    variant
        Of the network.
    crop
        Side of all crops.
    seeds
        Trainings of each kind.
    pretrain_steps, pretrain_batch
        Of the pretraining.
    steps
        Of a short training, with batches of 8.
    long_steps
        Of a training from scratch that costs as much as pretraining and short training together; 0 for none.
    eval_size
        As of `segformer train`.
    """
    import_tensorflow()
    from training.train import train

    make_folder(out)
    table = out / "masked.csv"
    rows = list(csv.DictReader(table.open(newline=""))) if table.exists() else []

    def record(**row: object) -> None:
        rows.append({name: str(value) for name, value in row.items()})
        with atomic(table) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for each in rows for name in each)))
            writer.writeheader()
            writer.writerows(rows)

    encoder, began = out / "pretrained", process_time()
    first, *others = sorted(str(place.resolve()) for place in (data, *more))
    trained(
        PretrainConfig(
            variant=variant,
            crop=(crop, crop),
            data=first,
            more_data=tuple(others),
            masked=True,
            batch_size=pretrain_batch,
            steps=pretrain_steps,
            epoch_steps=pretrain_steps,
            learning_rate=1e-3,
            drop_path=0.0,
            out=encoder,
        )
    )
    if not any(row["kind"] == PRETRAINING for row in rows):
        record(data="all", kind=PRETRAINING, steps=pretrain_steps, seconds=round(process_time() - began))
    for kind, length in ((SCRATCH, steps), (MASKED, steps), (LONGER, long_steps)):
        for seed in range(seeds if length else 0):
            names = {"data": data.name, "kind": kind, "steps": length, "eval_size": eval_size or "", "seed": seed}
            key = {name: str(value) for name, value in names.items()}
            if any(key.items() <= row.items() for row in rows):
                continue
            began, root = process_time(), out / "row"
            shutil.rmtree(root, ignore_errors=True)
            final = train(
                TrainConfig(
                    variant=variant,
                    crop=(crop, crop),
                    data=str(data),
                    val_split="test",
                    eval_size=eval_size,
                    weights=str(encoder) if kind == MASKED else None,
                    steps=length,
                    epoch_steps=length,
                    learning_rate=6e-4,
                    head_multiplier=1.0,
                    seed=seed,
                    out=root,
                )
            )
            score = float(list(csv.DictReader(final.history.open(newline="")))[-1]["val_mean_iou"])
            seconds = round(process_time() - began)
            record(**key, seconds=seconds, mean_iou=f"{score:.4f}")
    _print(rows)


def _print(rows: list[Row]) -> None:
    table = Table("data", "training", "steps", "processor s", "mean IoU, each seed", "mean")
    alike = ("data", "kind", "steps", "eval_size")
    for values in dict.fromkeys(tuple(row.get(name, "") for name in alike) for row in rows):
        own = [row for row in rows if tuple(row.get(name, "") for name in alike) == values]
        seconds = f"{mean(float(row['seconds']) for row in own):.0f}"
        scores = [row["mean_iou"] for row in own if row.get("mean_iou")]
        average = f"{mean(map(float, scores)):.4f}" if scores else ""
        table.add_row(*values[:3], seconds, " ".join(scores), average)
    plain_console().print(table)


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"masked: {error}")
