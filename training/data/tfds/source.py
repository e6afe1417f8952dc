"""One split of a TFDS data set: for segmentation, for classification, or its images alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from segformer_tf.errors import InputError, first_line
from segformer_tf.image import Pixels
from segformer_tf.labels import Labels
from training.data.masks import Sample, look_up, raw_mask
from training.data.tfds.data_sets import DATA_SETS, DataSet
from training.data.tfds.prepare import open_builder, open_records

Item = TypeVar("Item")


class _Split(ABC, Generic[Item]):
    """A split with one RGB image, and one target where there is to be one, among its features; see `_item`.

    Splits are those of the data set, or any that TFDS reads, such as ``train[:10%]``.
    """

    images: ClassVar[Sequence[Path]] = ()  # no files
    bits: int | None = None  # of an image in color, Pillow reads the upper 8 alone

    def __init__(self, name: str, target: str = "", is_target: Callable[[Any], bool] = lambda _: False) -> None:
        self._builder = open_builder(name)
        self.name = self._builder.info.name
        features = self._builder.info.features
        images = [key for key, feature in features.items() if _channels(feature) == 3]
        targets = [key for key, feature in features.items() if is_target(feature)]
        if len(images) != 1 or (target and len(targets) != 1):
            expected, received = (f" and one {target}", f", {target.split()[0]}s {targets}") if target else ("", "")
            raise InputError(
                f"tfds:{name}: expected one RGB image{expected}. "
                f"Received: images {images}{received} among {sorted(features)}"
            )
        self._image_key, self._target_key = images[0], targets[0] if target else ""
        self._records: Any = None  # opened by subclasses, after checks that need no download

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Item:
        try:
            record = self._records[index]
            with Image.open(BytesIO(record[self._image_key])) as opened:
                image = np.asarray(opened.convert("RGB"))
            return self._item(image, record)
        except InputError as error:
            raise InputError(f"{self.name} sample {index}: {error}") from None
        except Exception as error:  # readers of records and pictures raise anything for a broken file
            raise InputError(f"{self.name} sample {index}: not readable ({first_line(error)})") from None

    @abstractmethod
    def _item(self, image: Pixels, record: Any) -> Item:
        """``split[i]``, of record i and its image."""


class TfdsSource(_Split[Sample]):
    """A split with one RGB image and one mask, whose values `DATA_SETS` or a LabeledImage feature explains."""

    def __init__(self, name: str, split: str) -> None:
        super().__init__(name, "mask of one channel", lambda feature: _channels(feature) == 1)
        mask = self._builder.info.features[self._target_key]
        row = DATA_SETS.get(self._builder.name) or _from_feature(name, mask)
        self.license, self.labels, self._table = row.license, row.labels, row.table()
        self._records = open_records(name, self._builder, split, splits=row.splits)

    def _item(self, image: Pixels, record: Any) -> Sample:
        with Image.open(BytesIO(record[self._target_key])) as opened:
            mask = raw_mask(opened)
        if mask.values.shape != image.shape[:2]:
            raise InputError(f"mask is {mask.values.shape}, its image {image.shape[:2]}")
        return image, look_up(mask.values, self._table, known_to=self.name, hidden=mask.hidden)


class TfdsClasses(_Split[tuple[Pixels, int]]):
    """A split with one RGB image and one label."""

    skipped = ""

    def __init__(self, name: str, split: str) -> None:
        super().__init__(name, "label", lambda feature: isinstance(feature, tfds.features.ClassLabel))
        self.names = tuple(self._builder.info.features[self._target_key].names)
        self._records = open_records(name, self._builder, split)

    def _item(self, image: Pixels, record: Any) -> tuple[Pixels, int]:
        label = int(record[self._target_key])
        if not 0 <= label < len(self.names):
            raise InputError(f"label {label} is outside its classes")
        return image, label


class TfdsImages(_Split[Pixels]):
    """A split with one RGB image, whatever else it has."""

    notes = ()

    def __init__(self, name: str, split: str) -> None:
        super().__init__(name)
        row = DATA_SETS.get(self._builder.name)
        self.license = f"trained on {self.name}: {row.license}" if row and row.license else ""
        self._records = open_records(name, self._builder, split, splits=row.splits if row else None)

    def _item(self, image: Pixels, record: Any) -> Pixels:
        return image


def _channels(feature: Any) -> int | None:
    return feature.shape[-1] if isinstance(feature, tfds.features.Image) else None


def _from_feature(name: str, mask: Any) -> DataSet:
    """What a LabeledImage feature says of its values."""
    names = getattr(mask, "names", None)
    if names is None:
        raise InputError(
            f"tfds:{name}: its mask names no classes; expected a LabeledImage feature, or one of {', '.join(DATA_SETS)}"
        )
    if len(names) < 2:
        raise InputError(f"tfds:{name}: expected two classes or more. Received: {', '.join(names)}")
    return DataSet(labels=Labels.named(names), ids=tuple(range(len(names))), splits={}, license="")
