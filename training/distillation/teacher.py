"""The teacher of `segformer train --teacher`: which file it is, whether it fits, and what it says of a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError
from segformer_tf.keras_file import keras_file, load_segformer, read_config
from segformer_tf.labels import Labels
from training.data.match_names import match_names
from training.distillation.stages import View, view

RECORD = "teacher.json"  # in the run folder


@dataclass(frozen=True)
class TeacherFile:
    """A file that fits the data and the student.

    Attributes:
        path: the ``.keras`` file, absolute.
        sha256: of its bytes.
        config: of its network.
        order: (C,), the data's class for each of the teacher's; None where they are the same.
        notes: lines for the user.
    """

    path: Path
    sha256: str
    config: SegFormerConfig
    order: NDArray[np.uint8] | None
    notes: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """What a run folder keeps of it, as plain JSON types."""
        return {"file": str(self.path), "sha256": self.sha256, "parameters": self.config.parameter_count}

    def check_bits(self, bits: int | None) -> None:
        """Raises InputError if deep images come to the student on another scale than the teacher learned on."""
        own = self.config.image_bits
        if own and bits and own != bits:
            raise InputError(
                f"--teacher {self.path}: learned on images of {own} bits, these are taken for {bits}; --bits {own} "
                "takes them for as many"
            )


def find_teacher(name: str, labels: Labels, student: SegFormerConfig) -> TeacherFile:
    """Find a teacher's file and see that it fits.

    Args:
        name: a ``.keras`` file, or a run folder, of which the best weights are taken.
        labels: classes of the data.
        student: sizes of the network that is to be taught.

    Raises:
        InputError: no such file, another kind of file, other classes than the data, or stages on other grids than the
            student's.
    """
    try:
        path = keras_file(Path(name)).resolve()
        config = read_config(path)
    except InputError as error:
        hint = "`segformer import` makes a .keras file of a PyTorch checkpoint or a name on the hub"
        raise InputError(f"--teacher {error}" + ("" if "segformer import" in str(error) else f"; {hint}")) from None
    try:
        match = match_names(config.labels, labels, count=config.num_classes)
    except InputError as error:
        raise InputError(f"--teacher {path}: {error}") from None
    if config.strides != student.strides:
        raise InputError(
            f"--teacher {path}: its stages have strides {config.strides}, the student's {student.strides}: their "
            "features lie on different grids"
        )
    notes = [f"teacher: {path}, {config.parameter_count:,} parameters"]
    if match.note:
        notes.append(f"teacher: {match.note}")
    if config.license:
        notes.append(f"the teacher's license, which what it teaches inherits: {config.license}")
    return TeacherFile(path, _digest(path), config, match.order, tuple(notes))


def refuse_other_teacher(file: TeacherFile, run: Path) -> None:
    """Raises InputError unless the file is the one that the run in the folder `run` began with."""
    path = run / RECORD
    try:
        before = str(json.loads(path.read_text("utf-8"))["sha256"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the record of a teacher ({error}); bring it back, or start a new run") from None
    if file.sha256 != before:
        raise InputError(
            f"{file.path}: not the teacher that {run} began with: sha256 {file.sha256[:12]}.. instead of "
            f"{before[:12]}..; bring that file back, or start a new run"
        )


class Teacher:
    """A network that is never trained, called with images that are normalized for the student.

    It is no Keras layer, so that what holds it neither trains nor saves it.

    Args:
        file: of the network.
        student: by whose normalization images come.
        precision: dtype policy that it runs in, whatever it was trained in.

    Raises:
        InputError: a file that cannot be read, or that changed since it was found.
    """

    def __init__(self, file: TeacherFile, student: SegFormerConfig, *, precision: str) -> None:
        self.config = file.config
        self.model = load_segformer(file.path, preprocess=False, dtype=precision)
        if _digest(file.path) != file.sha256:
            raise InputError(f"{file.path}: changed while it was read")
        self.model.trainable = False
        std, mean = np.asarray(file.config.image_std), np.asarray(file.config.image_mean)
        self._scale = (np.asarray(student.image_std) / std).astype(np.float32)
        self._offset = ((np.asarray(student.image_mean) - mean) / std).astype(np.float32)
        self._channels = None if file.order is None else np.argsort(file.order)  # of its logits, in the data's order

    def __call__(self, images: Any, *, stages: bool) -> View:
        """What it says of images; no gradient goes into it. See `view`."""
        if np.any(self._scale != 1) or np.any(self._offset != 0):
            images = images * self._scale + self._offset
        seen = view(self.model, images, stages=stages, training=False)
        logits = seen.logits if self._channels is None else tf.gather(seen.logits, self._channels, axis=-1)
        embeddings, features = (
            {name: tf.stop_gradient(value) for name, value in each.items()} for each in (seen.embeddings, seen.features)
        )
        return View(tf.stop_gradient(logits), embeddings, features)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
