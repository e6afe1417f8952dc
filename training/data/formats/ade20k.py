"""ADE20K's 150 classes (SceneParsing): images/{training,validation} and annotations/{training,validation}.

Source: the challenge's toolkit, `objectInfo150`. Masks hold 0 for "other", which does not count (`reduce_zero_label`),
and 1 to 150 for the classes.
"""

from __future__ import annotations

from pathlib import Path

from segformer_tf.labels import IGNORE_ID
from training.data.formats.export import Classes, Export, decode_values
from training.data.formats.pairing import by_key, mask_files, pair
from training.data.formats.source import Source
from training.data.tfds.data_sets import DATA_SETS


def recognize(source: Source) -> bool:
    """Whether its two folders hold files of its naming; others may keep classes of their own in the same folders."""
    return any(_key(source, file, "annotations") and file.name.startswith("ADE_") for file in mask_files(source))


def _key(source: Source, file: Path, kind: str) -> str | None:
    """What follows the folder `kind` in a file's path, without suffix."""
    parts = source.relative(file).with_suffix("").parts
    return "/".join(parts[parts.index(kind) + 1 :]) if kind in parts[:-1] else None


def read(source: Source) -> Export:
    """Pair files by name."""
    pictures = pair(
        by_key(((key, image) for image in source.images if (key := _key(source, image, "images"))), "name"),
        by_key(((key, file) for file in mask_files(source) if (key := _key(source, file, "annotations"))), "name"),
        source,
    )
    ade, classes = DATA_SETS["ade20k"], Classes()
    for name, color in zip(ade.labels.names, ade.labels.colors, strict=True):
        classes.add(name, color)
    label_of = {value: label for label, value in enumerate(ade.ids)}
    decode = decode_values(label_of, {*ade.ignored, IGNORE_ID}, "ADE20K's 150 classes")
    return Export(pictures, classes.names, classes.colors, decode=decode, license=ade.license)
