"""COCO: a JSON file for each split, with polygons and run-length encoded masks.

Source: cocodataset.org's format, and `maskApi.c` for the compressed runs. They are decoded here because pycocotools
returns uninitialized memory for runs that do not add up to the picture. Several polygons of one annotation are united,
as there; an annotation within another (``iscrowd``) shows many objects without outlines, so its pixels are ignored
unless others cover them. Annotations are painted in the order of the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError, counted
from segformer_tf.labels import IGNORE_ID
from training.data.formats.export import Classes, Dropped, Export, Picture
from training.data.formats.fields import field, of_kind, points, read_json, shorten
from training.data.formats.shapes import Geometry, Polygon, Runs, Shape
from training.data.formats.source import SPLITS, Source

_KEYS = {"images", "annotations", "categories"}
_NO_OUTLINE = "a box or keypoints without an outline"


def recognize(source: Source) -> bool:
    """Whether one of the first JSON files is COCO's."""
    files = sorted(source.with_suffix(".json"), key=lambda file: (len(file.parts), "instances" not in file.name))
    outlines = map(source.json_outline, files[:3])
    return any(kind == "object" and keys >= _KEYS for kind, keys in outlines)


def read(source: Source) -> Export:
    """Read every JSON file of this format, or those named ``instances…`` where there are some."""
    files = source.with_suffix(".json")
    instances = [file for file in files if file.name.startswith("instances")]
    classes, dropped, pictures, skipped = (
        Classes(),
        Dropped(),
        list[Picture](),
        sum(not file.name.startswith("instances") and file.name != "predictions.json" for file in files),
    )
    licenses: set[str] = set()
    for file in instances or files:
        data = of_kind(read_json(file), dict, str(file))
        if not data.keys() >= _KEYS and not instances and len(files) > 1:
            continue
        pictures += _read_file(source, file, data, classes, dropped)
        licenses |= _licenses(data)
    notes = [f"skipped: {counted(skipped, 'JSON file')} not named instances…"] if instances and skipped else []
    license = licenses.pop() if len(licenses) == 1 else ""
    return Export(pictures, classes.names, dropped=dropped, notes=notes, license=license)


def _licenses(data: dict[str, Any]) -> set[str]:
    """The names of licenses, for what they are worth."""
    rows = data.get("licenses")
    names = [row.get("name") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    texts = (re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", name) for name in names if isinstance(name, str))
    return {" ".join(text.split())[:200] for text in texts}


def _read_file(source: Source, file: Path, data: dict[str, Any], classes: Classes, dropped: Dropped) -> list[Picture]:
    label_of: dict[int, int] = {}
    rows = [
        of_kind(row, dict, f"{file}: categories[{i}]")
        for i, row in enumerate(field(data, "categories", list, str(file)))
    ]
    ids = [field(row, "id", int, f"{file}: categories[{i}]") for i, row in enumerate(rows)]
    annotations = [row for row in field(data, "annotations", list, str(file)) if isinstance(row, dict)]
    used = {row.get("category_id") for row in annotations if isinstance(row.get("category_id"), int)}
    parents = {row["supercategory"] for row in rows if isinstance(row.get("supercategory"), str)}
    for i in sorted(range(len(rows)), key=ids.__getitem__):
        where = f"{file}: categories[{i}]"
        if ids[i] in label_of:
            raise InputError(f"{where}: 'id' {ids[i]} is that of another category")
        name = field(rows[i], "name", str, where)
        if ids[i] in used or name not in parents or rows[i].get("supercategory") == name:
            label_of[ids[i]] = classes.add(name)  # Roboflow puts the project's name above all, as a class of its own
    images: dict[int, dict[str, Any]] = {}
    for i, row in enumerate(field(data, "images", list, str(file))):
        where = f"{file}: images[{i}]"
        identity = field(of_kind(row, dict, where), "id", int, where)
        if identity in images:
            raise InputError(f"{where}: 'id' {identity} is that of another image")
        images[identity] = {**row, "where": where, "shapes": [], "crowds": []}
    for i, value in enumerate(data["annotations"]):
        where = f"{file}: annotations[{i}]"
        annotation = of_kind(value, dict, where)
        identity = field(annotation, "image_id", int, where)
        if identity not in images:
            raise InputError(f"{where}: 'image_id' {identity} is no image's")
        label = label_of.get(field(annotation, "category_id", int, where))
        if label is None:
            dropped.add("unknown category_id", where)
            continue
        if (crowd := annotation.get("iscrowd", 0)) not in (0, 1):
            raise InputError(f"{where}: 'iscrowd' must be 0 or 1. Received: {shorten(crowd)}")
        if crowd:
            label = IGNORE_ID
            dropped.add("iscrowd: its pixels are ignored", where)
        shapes = [Shape(label, geometry) for geometry in _geometries(annotation, where, dropped)]
        images[identity]["crowds" if crowd else "shapes"] += shapes
    return [_picture(source, file, row) for row in images.values()]


def _picture(source: Source, file: Path, row: dict[str, Any]) -> Picture:
    where = row["where"]
    size = field(row, "height", int, where), field(row, "width", int, where)
    words = re.split(r"[^a-z0-9]+", file.stem.lower())
    split = next((SPLITS[word] for word in words if word in SPLITS), None) or source.split_of(file)
    image = source.image(field(row, "file_name", str, where), file, where, split=split)
    return Picture(image, where, size, (*row["crowds"], *row["shapes"]), split=split)


def _geometries(annotation: dict[str, Any], where: str, dropped: Dropped) -> list[Geometry]:
    value, where = annotation.get("segmentation"), f"{where}: 'segmentation'"
    if value is None or value == []:
        dropped.add(_NO_OUTLINE, where)
        return []
    if isinstance(value, dict):
        return [_runs(value, where)]
    polygons: list[Geometry] = []
    for i, flat in enumerate(of_kind(value, list, where)):
        part = f"{where}[{i}]"
        if len(of_kind(flat, list, part)) % 2:
            raise InputError(f"{part}: expected x and y in turn. Received: {len(flat)} numbers")
        if len(flat) < 6:
            dropped.add("polygon of fewer than 3 points", part)
            continue
        polygons.append(Polygon((points([flat[j : j + 2] for j in range(0, len(flat), 2)], part),)))
    return polygons


def _runs(value: dict[str, Any], where: str) -> Runs:
    size = field(value, "size", list, where)
    if len(size) != 2:
        raise InputError(f"{where}: 'size' must be [height, width]. Received: {len(size)} numbers")
    height, width = (of_kind(side, int, f"{where}: 'size'") for side in size)
    counts = value.get("counts")
    if isinstance(counts, list):
        numbers = [min(max(of_kind(count, int, f"{where}: 'counts'"), -1), 1 << 40) for count in counts]
        return Runs(0, 0, height, width, np.array(numbers, np.int64), by_column=True)
    return Runs(0, 0, height, width, decode_counts(field(value, "counts", str, where), where), by_column=True)


def decode_counts(text: str, where: str) -> NDArray[np.int64]:
    """Run lengths of COCO's compressed text: 5 bits per character, from 48 on, 32 more where another follows.

    From the fourth on, a length is stored as its difference from the length before the last one. Raises InputError for
    other text.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            raise InputError(f"{where}: 'counts' is not COCO's compressed text")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(min(max(value + (counts[-2] if len(counts) > 2 else 0), -1), 1 << 40))
            value = shift = 0
    if shift:
        raise InputError(f"{where}: 'counts' ends within a number")
    return np.array(counts, np.int64)
