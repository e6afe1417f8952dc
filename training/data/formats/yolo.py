"""YOLO segmentation, as ultralytics reads it: data.yaml, and for each image a text file of outlines.

Source: docs.ultralytics.com, "Instance Segmentation Datasets". A line is a class and x, y in turn, in shares of the
upright picture. Lines are painted in their order. An image without a text file shows background alone.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segformer_tf.errors import InputError, counted, first_line
from segformer_tf.image import read_head
from training.data.folder.manifest_file import read_plain
from training.data.formats.export import Classes, Dropped, Export, Picture
from training.data.formats.fields import numeral, of_kind, read_lines, read_names, shorten
from training.data.formats.shapes import Polygon, Shape
from training.data.formats.source import SPLITS, Source

_SLACK = 0.01  # ultralytics takes outlines that leave the picture by that much
_KEYS = ("train", "val", "test")


def recognize(source: Source) -> bool:
    """Whether there is a text file in a folder named labels, and an image."""
    texts = (source.relative(file).parts[:-1] for file in source.with_suffix(".txt"))
    return bool(source.images) and any("labels" in folders for folders in texts)


def read(source: Source) -> Export:
    """Read data.yaml and the text files; raises InputError where one does not fit."""
    config, file = _read_config(source)
    classes, dropped = Classes(), Dropped()
    label_of = [classes.add(name) for name in _names(config, file)]
    labels = {source.relative(text).with_suffix(""): text for text in source.with_suffix(".txt")}
    pictures, without, read_texts = [], 0, set[Path | None]()
    for image, split in _images(source, config, file).items():
        text = labels.get(_label_key(source.relative(image)))
        without += text is None
        read_texts.add(text)
        size = read_head(image).upright
        shapes = _read_shapes(text, size, label_of, dropped) if text else ()
        pictures.append(Picture(image, str(text or image), size, shapes, split=split))
    if without == len(pictures):
        raise InputError(f"{file}: no image has a text file; labels/…/a.txt belongs to images/…/a.jpg")
    notes = [f"{counted(without, 'image')} without a text file: background alone, as in ultralytics"] if without else []
    if lone := [text for key, text in labels.items() if "labels" in key.parts[:-1] and text not in read_texts]:
        notes.append(f"left out: {len(lone)} text files whose images are not there; the first is {lone[0]}")
    return Export(pictures, classes.names, dropped=dropped, notes=notes, exif="apply")


def _read_config(source: Source) -> tuple[dict[str, Any], Path]:
    """The content of the YAML file; of classes.txt where there is none, as Label Studio exports it."""
    files = sorted(source.with_suffix(".yaml", ".yml"), key=lambda file: (len(file.parts), file.name != "data.yaml"))
    if not files:
        if not (table := source.only("classes.txt")):
            raise InputError(f"{source.root}: expected data.yaml or classes.txt, for the names of the classes")
        return {"names": read_names(table)}, table
    file = source.only(files[0].name) or files[0]
    try:
        config = of_kind(read_plain(file), dict, "the file")
    except (InputError, OSError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{file}: {first_line(error)}") from None
    if "kpt_shape" in config:
        raise InputError(f"{file}: 'kpt_shape': a data set of keypoints, without outlines")
    return config, file


def _names(config: dict[str, Any], file: Path) -> list[str]:
    names = config.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(f"{file}: 'names': expected keys 0..{len(names) - 1}. Received: {shorten(list(names))}")
        names = [names[i] for i in range(len(names))]
    texts = []
    for name in of_kind(names, list, f"{file}: 'names'"):
        texts.append(str(name) if type(name) is int else of_kind(name, str, f"{file}: 'names'"))
    if len({name.casefold() for name in texts}) < len(texts):
        raise InputError(f"{file}: 'names' has a name twice")
    return texts


def _images(source: Source, config: dict[str, Any], file: Path) -> dict[Path, str | None]:
    """The split of each image: as data.yaml says, or as its folders say where it names none."""
    stated = {key: config[key] for key in (*_KEYS, "valid") if config.get(key)}
    if not stated:
        return {image: source.split_of(image) for image in source.images}
    images: dict[Path, str | None] = {}
    prefix = str(config.get("path") or "")
    for key, value in stated.items():
        for entry in value if isinstance(value, list) else [value]:
            where = f"{file}: {key!r}"
            found = _listed(source, prefix, of_kind(entry, str, where), file, where)
            if twice := next((image for image in found if images.get(image, SPLITS[key]) != SPLITS[key]), None):
                raise InputError(f"{where}: {twice} is in another split as well")
            images |= dict.fromkeys(found, SPLITS[key])
    return images


def _listed(source: Source, prefix: str, entry: str, file: Path, where: str) -> list[Path]:
    """Images of a folder, or of a text file that lists them; folders are looked up among those of the images."""
    own, below = (_folders(text) for text in (entry, f"{prefix}/{entry}"))
    if entry.endswith(".txt"):
        named = source.named(own[-1]) if own else []
        exact = [text for text in named if source.relative(text).parts in (own, below)]
        if len(exact or named) != 1:
            raise InputError(f"{where}: expected one file {entry}. Received: {len(named)} of that name")
        (text,) = exact or named
        lines = enumerate(read_lines(text), 1)
        return [source.image(line.strip(), text, f"{text}: line {i}") for i, line in lines if line.strip()]
    for folder in (below, own, *(own[i:] for i in range(1, len(own)))):
        found = [image for image in source.images if source.relative(image).parts[: len(folder)] == folder]
        if folder and found:
            return found
    raise InputError(f"{where}: no image in {entry!r} below {source.root}")


def _folders(text: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(text.replace("\\", "/")).parts if part not in ("..", ".", "/"))


def _label_key(image: PurePosixPath) -> PurePosixPath:
    """Where an image's text file lies: the last folder named images is labels there."""
    parts = list(image.with_suffix("").parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return PurePosixPath(*parts)


def _read_shapes(file: Path, size: tuple[int, int], label_of: list[int], dropped: Dropped) -> tuple[Shape, ...]:
    shapes = []
    for i, line in enumerate(read_lines(file), 1):
        where, words = f"{file}: line {i}", line.split()
        if not words:
            continue
        label = numeral(words[0], int, f"{where}: class")
        shares = [numeral(word, float, where) for word in words[1:]]
        if len(shares) == 4:
            dropped.add("a box without an outline", where)
        elif len(shares) < 6 or len(shares) % 2:
            raise InputError(f"{where}: expected a class and at least 3 points x y. Received: {len(words)} numbers")
        elif not -_SLACK <= min(shares) <= max(shares) <= 1 + _SLACK:
            raise InputError(f"{where}: points are shares of the picture, 0..1. Received: {min(shares)}..{max(shares)}")
        elif not 0 <= label < len(label_of):
            dropped.add(f"unknown class {label}", where)
        else:
            shapes.append(Shape(label_of[label], Polygon((np.array(shares).reshape(-1, 2) * size[::-1],))))
    return tuple(shapes)
