"""Cityscapes: leftImg8bit and gtFine, with labelIds or labelTrainIds.

Source: cityscapesScripts, `labels.py`. Its 19 classes of the benchmark count, all other ids do not. The masks of its
test split are blank, so that split is left out.
"""

from __future__ import annotations

import re

from segformer_tf.errors import InputError, counted
from segformer_tf.labels import IGNORE_ID
from training.data.formats.export import Classes, Export, decode_values
from training.data.formats.pairing import by_key, mask_files, pair
from training.data.formats.source import Source
from training.data.tfds.data_sets import DATA_SETS

_IMAGE = re.compile(r"(.+)_leftImg8bit")
_MASK = re.compile(r"(.+)_gtFine_label(Train)?Ids")


def recognize(source: Source) -> bool:
    """Whether there is a mask of its naming."""
    return any(_MASK.fullmatch(file.stem) for file in mask_files(source))


def read(source: Source) -> Export:
    """Pair files by name; labelIds where both kinds of masks are there."""
    matches = [(match, file) for file in mask_files(source) if (match := _MASK.fullmatch(file.stem))]
    raw = [(match[1], file) for match, file in matches if not match[2]]
    train_ids = not raw
    masks = by_key(raw or [(match[1], file) for match, file in matches], "name")
    images = [(match[1], image) for image in source.images if (match := _IMAGE.fullmatch(image.stem))]
    pictures = pair(by_key(images, "name"), masks, source, every_image=False)
    tested = [picture for picture in pictures if picture.split == "test"]
    pictures = [picture for picture in pictures if picture.split != "test"]
    if not pictures:
        raise InputError(f"{source.root}: the test split alone, whose masks are blank")
    city, classes = DATA_SETS["cityscapes"], Classes()
    for name, color in zip(city.labels.names, city.labels.colors, strict=True):
        classes.add(name, color)
    values = range(len(classes.names)) if train_ids else city.ids
    label_of = {value: label for label, value in enumerate(values)}
    ignored = {IGNORE_ID} if train_ids else {*city.ignored, IGNORE_ID}
    decode = decode_values(label_of, ignored, f"Cityscapes' {'train ids' if train_ids else 'label ids'}")
    notes = [f"left out: {counted(len(tested), 'image')} of the test split, whose masks are blank"] if tested else []
    return Export(pictures, classes.names, classes.colors, decode=decode, notes=notes, license=city.license)
