"""CamVid and what is stored like it: folders of images and masks, and a table of colors.

Source: class_dict.csv (name,r,g,b) of the copy on Kaggle, label_colors.txt of the authors and of CVAT's "CamVid 1.0",
and the folders train and trainannot of the SegNet tutorial, whose 11 classes have the values 0 to 10. Void does not
count.
"""

from __future__ import annotations

import re
from pathlib import Path

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Color
from training.data.formats.export import Classes, Export, decode_colors, decode_values
from training.data.formats.fields import read_lines, read_table, rgb
from training.data.formats.pairing import mask_files
from training.data.formats.pairs import Naming, pair_files
from training.data.formats.pairs import recognize as has_masks
from training.data.formats.source import Source
from training.data.tfds.data_sets import DATA_SETS

_TABLES = ("class_dict.csv", "label_colors.txt")
_VOID = {"void", "unlabelled", "unlabeled"}
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_.+")


def recognize(source: Source) -> bool:
    """Whether there is a table of colors, or SegNet's folders with CamVid's frames."""
    return any(map(source.named, _TABLES)) or (_is_segnet(source) and has_masks(source, Naming()))


def _is_segnet(source: Source) -> bool:
    masks = [file for file in mask_files(source) if file.parent.name in ("trainannot", "valannot", "testannot")]
    return any(_FRAME.fullmatch(mask.stem) for mask in masks)


def read(source: Source) -> Export:
    """Pair files by name, also ``a_L.png`` with ``a.png``."""
    marked = any(file.stem.endswith("_L") for file in mask_files(source))
    pictures = pair_files(source, Naming(suffix="_L" if marked else ""))
    classes, camvid = Classes(), DATA_SETS["camvid"]
    if not (table := source.only(*_TABLES)):
        if not _is_segnet(source):
            raise InputError(f"{source.root}: expected class_dict.csv or label_colors.txt")
        for name, color in zip(camvid.labels.names, camvid.labels.colors, strict=True):
            classes.add(name, color)
        labels = {value: label for label, value in enumerate(camvid.ids)}
        decode = decode_values(labels, {*camvid.ignored, IGNORE_ID}, "CamVid's 11 classes")
        return Export(pictures, classes.names, classes.colors, decode=decode, license=camvid.license)
    label_of: dict[Color, int] = {}
    for where, name, color in _read_colors(table):
        if color in label_of:
            raise InputError(f"{where}: {color} is the color of another class")
        label_of[color] = IGNORE_ID if name.casefold() in _VOID else classes.add(name, color)
    void = {color for color, label in label_of.items() if label == IGNORE_ID}
    notes = [f"{len(void)} void class{'es' if len(void) > 1 else ''} ignored"] if void else []
    decode = decode_colors({c: label for c, label in label_of.items() if c not in void}, void, str(table))
    return Export(pictures, classes.names, classes.colors, decode=decode, notes=notes)


def _read_colors(table: Path) -> list[tuple[str, str, Color]]:
    """Where each row is, its name and its color."""
    rows = []
    if table.suffix == ".csv":
        for i, row in enumerate(read_table(table)[1:], 2):
            where = f"{table}: row {i}"
            if len(row) < 4 or not row[0]:
                raise InputError(f"{where}: expected name,r,g,b. Received: {','.join(row)[:60]}")
            rows.append((where, row[0], rgb(list(row[1:4]), where)))
    else:
        for i, line in enumerate(read_lines(table), 1):
            where, words = f"{table}: line {i}", line.split(maxsplit=3)
            if words and len(words) < 4:
                raise InputError(f"{where}: expected red green blue name. Received: {line[:60]!r}")
            if words:
                rows.append((where, words[3].strip(), rgb(list(words[:3]), where)))
    if not rows:
        raise InputError(f"{table}: no class")
    return rows
