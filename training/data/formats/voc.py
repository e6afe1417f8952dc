"""PASCAL VOC's segmentation, and CVAT's "Segmentation mask 1.1", which has the same folders and labelmap.txt.

Source: the VOC 2012 development kit; docs.cvat.ai, "Segmentation Mask"; labelme's `labelme2voc.py` for class_names.txt.
Palette and RGB masks are read by color, gray ones by value: the number of the class. In VOC's own, 255 and its border
color do not count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

from segformer_tf.errors import InputError
from segformer_tf.label_sets import LABEL_SETS
from segformer_tf.labels import IGNORE_ID, Color, bit_reversed_color
from training.data.formats.export import Classes, Export, Picture, decode_colors, decode_values
from training.data.formats.fields import read_lines, read_names, rgb
from training.data.formats.pairing import by_key, mask_files, pair
from training.data.formats.source import SPLITS, Source
from training.data.masks import Mask, RawMask

_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_NOT_IMAGES = (*_MASKS, "SegmentationObject", "SegmentationObjectPNG", "SegmentationClassVisualization")
_VOC_NAME = re.compile(r"20\d\d_\d{6}")


def recognize(source: Source) -> bool:
    """Whether there is a mask in a folder SegmentationClass."""
    return any(_folder(source, file, _MASKS) is not None for file in mask_files(source))


def read(source: Source, names: list[str] | None = None) -> Export:
    """Pair files by name; raises InputError where it is unknown what the masks mean."""
    masks = by_key(((key, file) for file in mask_files(source) if (key := _folder(source, file, _MASKS))), "name")
    images: dict[str, Path] = {}
    others = [image for image in source.images if _folder(source, image, _NOT_IMAGES) is None]
    stems: dict[str, list[Path]] = defaultdict(list)
    for image in others:
        stems[source.relative(image).stem].append(image)
        if key := _folder(source, image, ("JPEGImages", "images")):
            images[key] = image
    for key in masks.keys() - images.keys():
        if len(same := stems.get(Path(key).name, [])) == 1:
            images[key] = same[0]
    listed = _read_lists(source, masks)
    masks = {key: masks[key] for key in listed} if listed else masks
    pictures = pair(images, masks, source, every_image=False)
    if listed:
        split_of = {str(masks[key]): split for key, split in listed.items()}
        pictures = [Picture(p.image, p.where, mask=p.mask, split=split_of[p.where]) for p in pictures]
    classes, decode = _meaning(source, list(masks), names)
    return Export(pictures, classes.names, classes.colors, decode=decode)


def _folder(source: Source, file: Path, folders: tuple[str, ...]) -> str | None:
    """What follows one of `folders` in a file's path, without suffix."""
    parts = source.relative(file).with_suffix("").parts
    place = next((i for i, part in enumerate(parts[:-1]) if part in folders), None)
    return None if place is None else "/".join(parts[place + 1 :])


def _read_lists(source: Source, masks: dict[str, Path]) -> dict[str, str | None]:
    """The split of each name in ImageSets/Segmentation, without those of which no mask is here; {} without lists."""
    files = [
        file
        for file in source.with_suffix(".txt")
        if source.relative(file).parts[-3:-1] == ("ImageSets", "Segmentation")
    ]
    if any(SPLITS.get(file.stem.lower()) for file in files):
        files = [file for file in files if SPLITS.get(file.stem.lower())]  # trainval repeats them
    listed: dict[str, str | None] = {}
    for file in files:
        split = SPLITS.get(file.stem.lower())
        lines = [normalize("NFC", line.strip()) for line in read_lines(file) if line.strip()]
        names = [line if line in masks else line.strip('"') for line in lines]  # CVAT's, of names with blanks
        known = [name for name in names if name in masks]
        if len(known) < len(names) and known:
            missing = next(name for name in names if name not in masks)
            raise InputError(f"{file}: no mask of {missing[:80]!r} ({len(names) - len(known)} of {len(names)})")
        for name in known:
            if listed.setdefault(name, split) != split:
                raise InputError(f"{file}: {name!r} is in another split as well")
    return listed


def _meaning(source: Source, keys: list[str], names: list[str] | None) -> tuple[Classes, Callable[[RawMask], Mask]]:
    """The classes, from labelmap.txt, class_names.txt, `names`, or VOC's where the files' names are VOC's."""
    classes, color_of, values = Classes(), dict[Color, int](), dict[int, int]()
    if labelmap := source.only("labelmap.txt"):
        for i, (name, color) in enumerate(_read_labelmap(labelmap)):
            if color in color_of:
                raise InputError(f"{labelmap}: {name!r} has the color of another label, {color}")
            values[i] = color_of[color] = classes.add(name, color)
        return classes, _decoder(color_of, set(), values, set(), str(labelmap))
    known_to = "VOC's color map"
    if table := source.only("class_names.txt"):
        known_to = str(table)
        names = [name for name in read_names(table) if name != "__ignore__"]
    elif names is None:
        if not all(_VOC_NAME.fullmatch(Path(key).name) for key in keys):
            raise InputError(
                f"{source.root}: which classes? Masks not named as VOC's own need labelmap.txt or class_names.txt; "
                "where they are VOC's, --labels voc"
            )
        names = list(LABEL_SETS["voc"].names)
    for i, name in enumerate(names):
        values[i] = color_of[bit_reversed_color(i)] = classes.add(name, bit_reversed_color(i))
    return classes, _decoder(color_of, {bit_reversed_color(IGNORE_ID)}, values, {IGNORE_ID}, known_to)


def _decoder(
    color_of: dict[Color, int], border: set[Color], values: dict[int, int], ignored: set[int], known_to: str
) -> Callable[[RawMask], Mask]:
    """Reads gray masks by value and all others by color."""
    by_color, by_value = decode_colors(color_of, border, known_to), decode_values(values, ignored, known_to)
    return lambda raw: by_value(raw) if raw.values.ndim == 2 and raw.palette is None else by_color(raw)


def _read_labelmap(file: Path) -> list[tuple[str, Color]]:
    """Names and colors: lines of ``name:red,green,blue:parts:actions``."""
    rows = []
    for i, line in enumerate(read_lines(file), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.split(":")
        if len(rest) < 1 or not name.strip():
            raise InputError(f"{file}: line {i}: expected name:red,green,blue::. Received: {line[:60]!r}")
        rows.append((name.strip(), rgb(rest[0].split(","), f"{file}: line {i}")))
    return rows
