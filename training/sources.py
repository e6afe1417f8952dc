"""Where samples come from: a folder (`training.folder`) or a TFDS data set (`training.tfds_source`), of one face."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from training.folder import FolderSource
from training.mapping import Sample


class Source(Protocol):
    """One split of a data set, read at random.

    ``source[i]`` is (image, mask): (H, W, 3) uint8 RGB and (H, W) uint8 with class ids
    0..C-1 and `IGNORE_ID`. `license` is its terms in a few words, or "". `bits`, as `load_image` takes them, may be
    set, and of folders is the manifest's until then.
    """

    name: str
    license: str
    labels: Labels
    bits: int | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def open_source(data: str, split: str) -> Source:
    """Open `split` of a folder, or of a TFDS data set given as ``tfds:NAME``.

    Raises:
        InputError: no such data set or split, an empty one, or a manifest that does not say what it must.
    """
    source: Source
    if data.startswith("tfds:"):
        from training.tfds_source import TfdsSource  # TFDS takes seconds to import

        source = TfdsSource(data.removeprefix("tfds:"), split)
    else:
        source = FolderSource(Path(data), split)
    if not len(source):
        raise InputError(f"{data}: split {split} is empty")
    return source
