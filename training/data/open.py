"""Opens a data set: a folder, or ``tfds:NAME``."""

from __future__ import annotations

from pathlib import Path

from segformer_tf.errors import InputError
from training.data.folder.source import FolderSource
from training.data.source import Source


def open_source(data: str, split: str) -> Source:
    """Open `split` of a folder, or of a TFDS data set given as ``tfds:NAME``.

    Raises:
        InputError: no such data set or split, an empty one, or a manifest that does not say what it must.
    """
    source: Source
    if data.startswith("tfds:"):
        from training.data.tfds.source import TfdsSource  # TFDS takes seconds to import

        source = TfdsSource(data.removeprefix("tfds:"), split)
    else:
        source = FolderSource(Path(data), split)
    if not len(source):
        raise InputError(f"{data}: split {split} is empty")
    return source
