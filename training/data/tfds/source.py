"""A TFDS data set as a `Source`: what its masks mean."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError, first_line
from segformer_tf.labels import IGNORE_ID, Labels
from training.data.class_lookup import Sample, class_indices, mapping_table
from training.data.masks import raw_mask
from training.data.tfds.prepare import open_builder, open_records, prepare, rgb
from training.data.tfds.table import DATA_SETS, DataSet


class TfdsSource:
    """A split of a TFDS data set that has one RGB image and one mask among its features.

    What its mask values mean is told by `DATA_SETS`, or by a LabeledImage feature. Splits are train, val, test, or
    any that TFDS reads, such as ``train[:10%]``.
    """

    def __init__(self, name: str, split: str) -> None:
        builder = open_builder(name)
        row = DATA_SETS.get(builder.name)
        features = builder.info.features
        self.name = builder.info.name
        self.license = row.license if row else ""
        self.bits: int | None = None  # pictures in colour, of which Pillow reads the upper 8 alone
        self._image_key, self._mask_key = _image_and_mask_keys(name, features)
        self.labels, self._table = _meaning(name, row, features[self._mask_key])
        builder = prepare(name, builder)
        splits = row.splits if row else {each: each for each in builder.info.splits}
        pictures = self._image_key, self._mask_key
        self._records = open_records(name, builder, split, splits=splits, pictures=pictures)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        try:
            record = self._records[index]
            image = rgb(record[self._image_key])
            with Image.open(BytesIO(record[self._mask_key])) as opened:
                mask = raw_mask(opened)
        except Exception as error:  # readers of records and pictures raise whatever a broken file leads them to
            raise InputError(f"{self.name} sample {index}: not readable ({first_line(error)})") from None
        if mask.values.shape != image.shape[:2]:
            raise InputError(f"{self.name} sample {index}: mask is {mask.values.shape}, its image {image.shape[:2]}")
        try:
            return image, class_indices(mask.values, self._table, known_to=self.name, hidden=mask.hidden)
        except InputError as error:
            raise InputError(f"{self.name} sample {index}: {error}") from None


def _image_and_mask_keys(name: str, features: Any) -> tuple[str, str]:
    channels = {key: f.shape[-1] for key, f in features.items() if isinstance(f, tfds.features.Image)}
    images = [key for key, c in channels.items() if c == 3]
    masks = [key for key, c in channels.items() if c == 1]
    if len(images) != 1 or len(masks) != 1:
        raise InputError(
            f"tfds:{name}: expected one RGB image and one mask of one channel. "
            f"Received: images {images}, masks {masks} among {sorted(features)}"
        )
    return images[0], masks[0]


def _meaning(name: str, row: DataSet | None, feature: Any) -> tuple[Labels, NDArray[np.int16]]:
    if row:
        return row.labels, row.table()
    names = getattr(feature, "names", None)
    if names is None:
        raise InputError(
            f"tfds:{name}: its mask names no classes; expected a LabeledImage feature, or one of {', '.join(DATA_SETS)}"
        )
    if len(names) < 2:
        raise InputError(f"tfds:{name}: expected two classes or more. Received: {', '.join(names)}")
    return Labels.named(names), mapping_table({i: i for i in range(len(names))}, (IGNORE_ID,))
