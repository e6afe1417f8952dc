"""Opens a data set for classification: a folder of classes, or ``tfds:NAME``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.image import IMAGE_SUFFIXES, Pixels, load_image, skipped_files
from training.data.folder.splits import OTHER_NAME
from training.data.open import Split

Labeled = tuple[Pixels, int]


class ClassSource(Split[Labeled], Protocol):
    """A split for classification; ``source[i]`` is (image, class): (H, W, 3) uint8 RGB, and 0..C-1.

    Attributes:
        skipped: how many files are no images, in words, or "".
    """

    names: tuple[str, ...]
    skipped: str


def open_classes(data: str, *splits: str) -> list[ClassSource]:
    """Open splits of a folder, or of the TFDS data set ``tfds:NAME``.

    Raises:
        InputError: no such data set or split, an empty split, fewer than two classes, or splits of different
            classes.
    """
    opened: list[ClassSource] = []
    for split in splits:
        source: ClassSource
        if data.startswith("tfds:"):
            from training.data.tfds.source import TfdsClasses  # TFDS takes seconds to import

            source = TfdsClasses(data.removeprefix("tfds:"), split)
        else:
            source = ClassFolder(data, split)
        if not len(source):
            raise InputError(f"{data}: split {split} is empty")
        if len(source.names) < 2:
            raise InputError(f"{data}: expected two classes or more in split {split}. Received: {source.names[0]}")
        opened.append(source)
        first = opened[0]
        if odd := sorted(set(first.names) ^ set(source.names)):
            where = splits[0] if odd[0] in first.names else split
            raise InputError(
                f"{data}: splits {splits[0]} and {split} must have the same classes; "
                f"{len(odd)} only in one, such as {odd[0]} in {where}"
            )
    return opened


class ClassFolder:
    """``root/split/CLASS/*.jpg``: every folder is a class, in the order of names; hidden files are skipped."""

    def __init__(self, root: str | Path, split: str) -> None:
        self._folder = Path(root) / split
        if not self._folder.is_dir() and (other := Path(root) / OTHER_NAME.get(split, split)).is_dir():
            self._folder = other
        if not self._folder.is_dir():
            raise InputError(f"{self._folder}: no such folder; expected {root}/{split}/CLASS/*.jpg")
        self.name = Path(root).resolve().name
        self.bits: int | None = None
        self.names = tuple(sorted(e.name for e in os.scandir(self._folder) if e.is_dir() and e.name[0] != "."))
        if not self.names:
            raise InputError(f"{self._folder}: no folder of a class in it; expected {self._folder}/CLASS/*.jpg")
        files = [self._class_files(name) for name in self.names]
        note = skipped_files(self._folder / name for name in self.names)
        self.skipped = f"{self._folder}: {note}" if note else ""
        self._ends = np.cumsum([len(own) for own in files])
        self._files = [file for own in files for file in own]  # a million paths would be large

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Labeled:
        label = int(np.searchsorted(self._ends, index, side="right"))
        return load_image(self._folder / self._files[index], bits=self.bits), label

    @property
    def images(self) -> Iterator[Path]:
        """The image files."""
        return (self._folder / file for file in self._files)

    def _class_files(self, name: str) -> list[str]:
        files = sorted(os.listdir(self._folder / name))
        images = [f"{name}/{file}" for file in files if file.lower().endswith(IMAGE_SUFFIXES) and file[0] != "."]
        if not images:
            raise InputError(f"{self._folder / name}: no image ({', '.join(IMAGE_SUFFIXES)})")
        return images
