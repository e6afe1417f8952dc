"""Roboflow's semantic masks: a.jpg and a_mask.png side by side, and _classes.csv in each split.

Source: an export, "Semantic Segmentation Masks". Masks are gray; the table gives the class of each value.
"""

from __future__ import annotations

from pathlib import Path

from segformer_tf.errors import InputError
from training.data.formats.export import Classes, Export, decode_values
from training.data.formats.fields import numeral, read_table
from training.data.formats.pairing import by_key, mask_files, pair
from training.data.formats.source import Source

_TABLE = "_classes.csv"
_MASK = "_mask"


def recognize(source: Source) -> bool:
    """Whether there is a table, and a mask."""
    return bool(source.named(_TABLE)) and any(_is_mask(file) for file in source.files)


def _is_mask(file: Path) -> bool:
    return file.name.endswith(f"{_MASK}.png")


def read(source: Source) -> Export:
    """Pair files by name; raises InputError where tables differ."""
    tables = source.named(_TABLE)
    if not tables:
        raise InputError(f"{source.root}: expected {_TABLE}")
    classes, label_of = Classes(), _read_classes(tables[0])
    for table in tables[1:]:
        if _read_classes(table) != label_of:
            raise InputError(f"{table}: other classes than in {tables[0]}")
    labels = {value: classes.add(name) for value, name in sorted(label_of.items())}
    masks = [file for file in mask_files(source) if _is_mask(file)]
    images = [image for image in source.images if not _is_mask(image)]
    pictures = pair(
        by_key(((str(source.relative(image).with_suffix("")), image) for image in images), "name"),
        by_key(((str(source.relative(mask).with_suffix("")).removesuffix(_MASK), mask) for mask in masks), "name"),
        source,
    )
    return Export(pictures, classes.names, decode=decode_values(labels, set(), str(tables[0])))


def _read_classes(table: Path) -> dict[int, str]:
    classes: dict[int, str] = {}
    for i, row in enumerate(read_table(table)[1:], 2):
        where = f"{table}: row {i}"
        if len(row) != 2 or not row[1]:
            raise InputError(f"{where}: expected a pixel value and a class. Received: {','.join(row)[:60]}")
        value = numeral(row[0], int, where)
        if not 0 <= value <= 255 or value in classes:
            raise InputError(f"{where}: pixel values are distinct and 0..255. Received: {value}")
        classes[value] = row[1]
    return classes
