"""Where labelled images come from: a folder of classes, or a TFDS data set, behind one random-access face."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.image import IMAGE_SUFFIXES, Pixels, load_image
from training.data.tfds.prepare import open_builder, open_records, prepare, rgb

Labelled = tuple[Pixels, int]


class ClassSource(Protocol):
    """One split of a data set, read at random.

    ``source[i]`` is (image, class): (H, W, 3) uint8 RGB and 0..C-1. `bits`, as `load_image` takes them, may be set.
    """

    name: str
    names: tuple[str, ...]
    bits: int | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Labelled: ...


def open_classes(data: str, *splits: str) -> list[ClassSource]:
    """Open splits of a folder, or of a TFDS data set given as ``tfds:NAME``.

    Raises:
        InputError: no such data set or split, an empty one, fewer than two classes, or classes that differ between
            the splits.
    """
    opened: list[ClassSource] = []
    for split in splits:
        source = (
            TfdsClasses(data.removeprefix("tfds:"), split) if data.startswith("tfds:") else ClassFolder(data, split)
        )
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
    """``root/split/CLASS/*.jpg``: every folder is a class of its name, in the order of names; hidden files are left."""

    def __init__(self, root: str | Path, split: str) -> None:
        self._folder = Path(root) / split
        if not self._folder.is_dir():
            raise InputError(f"{self._folder}: no such folder; expected {root}/{split}/CLASS/*.jpg")
        self.name = Path(root).resolve().name
        self.bits: int | None = None
        self.names = tuple(sorted(e.name for e in os.scandir(self._folder) if e.is_dir() and e.name[0] != "."))
        if not self.names:
            raise InputError(f"{self._folder}: no folder of a class in it; expected {self._folder}/CLASS/*.jpg")
        files = [self._files(name) for name in self.names]
        self._ends = np.cumsum([len(each) for each in files])
        self._file_names = [name for each in files for name in each]  # a million paths would be large

    def __len__(self) -> int:
        return len(self._file_names)

    def __getitem__(self, index: int) -> Labelled:
        label = int(np.searchsorted(self._ends, index, side="right"))
        return load_image(self.path(index), bits=self.bits), label

    def path(self, index: int) -> Path:
        """The image's file."""
        label = int(np.searchsorted(self._ends, index, side="right"))
        return self._folder / self.names[label] / self._file_names[index]

    def _files(self, name: str) -> list[str]:
        entries = os.listdir(self._folder / name)
        files = sorted(e for e in entries if e.lower().endswith(IMAGE_SUFFIXES) and e[0] != ".")
        if not files:
            raise InputError(f"{self._folder / name}: no image ({', '.join(IMAGE_SUFFIXES)})")
        return files


class TfdsClasses:
    """A split of a TFDS data set that has one RGB image and one label among its features."""

    def __init__(self, name: str, split: str) -> None:
        builder = open_builder(name)
        self._image_key, self._label_key = _image_and_label_keys(name, builder.info.features)
        self.names = tuple(builder.info.features[self._label_key].names)
        self.name = builder.info.name
        self.bits: int | None = None
        builder = prepare(name, builder)
        splits = {each: each for each in builder.info.splits}
        self._records = open_records(name, builder, split, splits=splits, pictures=[self._image_key])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Labelled:
        record = self._records[index]
        label = int(record[self._label_key])
        if not 0 <= label < len(self.names):
            raise InputError(f"{self.name} sample {index}: label {label} is outside its classes")
        return rgb(record[self._image_key]), label


def _image_and_label_keys(name: str, features: Any) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    images = [key for key, f in features.items() if isinstance(f, tfds.features.Image) and f.shape[-1] == 3]
    labels = [key for key, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise InputError(
            f"tfds:{name}: expected one RGB image and one label. "
            f"Received: images {images}, labels {labels} among {sorted(features)}"
        )
    return images[0], labels[0]
