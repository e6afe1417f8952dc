"""Everything a training needs to go on after a kill, in one file per worker."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from training.distributed.strategy import this_place

_KEPT = 2  # workers are killed at different moments, but all of them have the epoch before the last


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: number of epochs that were trained.
        samples: number of training samples; with another number their order would be another.
        best: best validation score so far, 0..1, or -1.
        best_epoch: number of the epoch that had it, from 1; 0 without one and in old backups.
        waited: validations in a row since then, without a better score.
        steps: steps in all that the run had meanwhile; when they grow, `waited` begins anew.
        size: (height, width) that images had for it, or None in old backups and in classification.
        history: logs of each epoch that was validated.
        trained: logs of the last epoch while it waits for its validation, else None.
    """

    epoch: int = 0
    samples: int = 0
    best: float = -1.0
    best_epoch: int = 0
    waited: int = 0
    steps: int = 0
    size: list[int] | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    trained: dict[str, float] | None = None

    def stopped_early(self, patience: int | None) -> bool:
        """Whether the score has not been better for `patience` validations; never for None."""
        return patience is not None and self.waited >= patience

    def lengthen(self, steps: int) -> None:
        """Take note of the steps in all that the run has now."""
        if self.steps != steps:
            self.steps, self.waited = steps, 0


class Backup:
    """``RUN/backup/worker0-epoch12.npz``: model, optimizer, random states and `Progress`, written by rename.

    It is written after the epoch's training, before the validation, which only changes the `Progress`: the note
    ``worker0-epoch12.json`` beside it holds the `Progress` after the validation.

    Unlike Keras' weight files it holds the states of the random generators of drop path and dropout. The position in
    the data needs no state: the i-th training sample is a function of (seed, i).

    Args:
        folder: holds the newest two backups of each worker.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = f"worker{this_place().index}-epoch"

    def save(self, model: keras.Model, progress: Progress) -> None:
        """Write the present state; raises InputError if it cannot be written."""
        arrays = {name: np.asarray(variable.value) for name, variable in _variables(model).items()}
        self._note(progress.epoch).unlink(missing_ok=True)  # of a backup that was removed by hand
        with atomic(self._path(progress.epoch)) as part:
            np.savez(part, progress=np.array(json.dumps(asdict(progress))), **arrays)
        for epoch in self._epochs()[:-_KEPT]:
            self._remove(epoch)

    def note(self, progress: Progress) -> None:
        """Write the note that the newest epoch was validated; raises InputError if it cannot be written."""
        with atomic(self._note(progress.epoch)) as part:
            part.write_text(json.dumps(asdict(progress)), "utf-8")

    def restore(self, model: keras.Model) -> Progress:
        """Restore the newest epoch that every worker has; returns a fresh `Progress` if there is none.

        Raises:
            InputError: a backup that is damaged or of another model.
        """
        own = max(self._epochs(), default=0)
        # One number per worker, which grows with the epoch, and when that epoch is validated.
        newest = _of_all_workers(2 * own + self._note(own).exists(), model.distribute_strategy)
        epoch, validated = divmod(min(newest), 2)
        if max(newest) == 0:
            return Progress()
        if epoch == 0:
            without = ", ".join(str(i) for i, number in enumerate(newest) if number == 0)
            raise InputError(
                f"{self.folder}: worker {without} has no backup, others have one of epoch {max(newest) // 2}; bring it "
                "back (any worker's will do under its name), or start a new run"
            )
        progress, arrays = self._read(epoch)
        variables = _variables(model)
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        if odd := sorted(set(shapes.items()) ^ {(name, array.shape) for name, array in arrays.items()}):
            raise InputError(f"{self._path(epoch)}: a backup of another model; first difference at {odd[0][0]}")
        if validated:
            progress = self._read_note(epoch)
        for name, variable in variables.items():
            variable.assign(arrays[name])
        for later in self._epochs():
            if later > epoch:  # it will be trained again
                self._remove(later)
        return progress

    def _read(self, epoch: int) -> tuple[Progress, dict[str, Any]]:
        path = self._path(epoch)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                progress = Progress(**json.loads(str(file["progress"])))
                return progress, {name: file[name] for name in file.files if name != "progress"}
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: not a usable backup ({error}); remove it to resume from the one before"
            ) from None

    def _read_note(self, epoch: int) -> Progress:
        path = self._note(epoch)
        try:
            return Progress(**json.loads(path.read_text("utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a usable note ({error}); remove it to validate that epoch again") from None

    def exists(self) -> bool:
        """Whether this worker has a backup here."""
        return bool(self._epochs())

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{self._name}{epoch}.npz"

    def _note(self, epoch: int) -> Path:
        return self._path(epoch).with_suffix(".json")

    def _remove(self, epoch: int) -> None:
        self._note(epoch).unlink(missing_ok=True)
        self._path(epoch).unlink()

    def _epochs(self) -> list[int]:
        """Epochs that this worker has a backup of, in order."""
        numbers = (path.stem.removeprefix(self._name) for path in self.folder.glob(f"{self._name}*.npz"))
        return sorted(int(number) for number in numbers if number.isdigit())


def _variables(model: keras.Model) -> dict[str, Any]:
    """Every variable that training changes, random states too, by a name that is the same in every process."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"{i:05d}_{variable.name}": variable for i, variable in enumerate(variables)}


def _of_all_workers(number: int, strategy: tf.distribute.Strategy) -> list[int]:
    """The `number` of every worker, in order; all of them must call this."""
    if this_place().count == 1:
        return [number]

    @tf.function
    def gather() -> Any:
        def own() -> Any:
            return tf.distribute.get_replica_context().all_gather(tf.constant([number]), axis=0)

        return strategy.experimental_local_results(strategy.run(own))[0]

    per_replica = np.asarray(gather())
    return per_replica.reshape(this_place().count, -1)[:, 0].tolist()
