"""Label Studio: its JSON export, with polygons and brush strokes.

Source: labelstud.io, "JSON format" and the tags BrushLabels and PolygonLabels. Polygons are in percent of the picture.
Results are painted in their order. Of a task's annotations the first that was not skipped counts. Boxes, ellipses and
keypoints are left out, as in Label Studio's own export of masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.image import IMAGE_SUFFIXES
from training.data.formats.brush import Brush
from training.data.formats.export import Classes, Dropped, Export, Picture, sort_classes
from training.data.formats.fields import field, of_kind, points, read_json
from training.data.formats.shapes import Geometry, Polygon, Shape
from training.data.formats.source import Source

_LABELS = ("brushlabels", "polygonlabels", "labels")  # the last by separate tags for shape and label


def recognize(source: Source) -> bool:
    """Whether one of the first JSON files is Label Studio's."""
    return any(_is_export(source, file) for file in source.with_suffix(".json")[:3])


def _is_export(source: Source, file: Path) -> bool:
    kind, keys = source.json_outline(file)
    return kind == "list" and (keys >= {"data", "annotations"} or "annotation_id" in keys)


def read(source: Source) -> Export:
    """Read every JSON file of this format; raises InputError where one does not fit."""
    classes, dropped, pictures = Classes(), Dropped(), list[Picture]()
    files = source.with_suffix(".json")
    for file in [file for file in files if _is_export(source, file)] or files:
        for i, value in enumerate(of_kind(read_json(file), list, str(file))):
            where = f"{file}: task {i}"
            task = of_kind(value, dict, where)
            if "data" not in task:
                raise InputError(f"{where}: missing 'data'; is this JSON-MIN? Export the project as JSON")
            if picture := _picture(source, file, task, where, classes, dropped):
                pictures.append(picture)
    return sort_classes(Export(pictures, classes.names, dropped=dropped))


def _picture(
    source: Source, file: Path, task: dict[str, Any], where: str, classes: Classes, dropped: Dropped
) -> Picture | None:
    rows = [of_kind(row, dict, f"{where}: 'annotations'") for row in field(task, "annotations", list, where)]
    done = [row for row in rows if not row.get("was_cancelled")]
    if not done:
        dropped.add("task without an annotation: its image is left out", where)
        return None
    for _ in done[1:]:
        dropped.add("second annotation of a task", where)
    size, shapes = None, []
    for i, value in enumerate(field(done[0], "result", list, f"{where}: annotations")):
        at = f"{where}: result[{i}]"
        result = of_kind(value, dict, at)
        if "original_width" not in result:  # a relation, or a choice for the whole picture
            dropped.add(f"{str(result.get('type'))[:40]}: covers no pixels", at)
            continue
        own = field(result, "original_height", int, at), field(result, "original_width", int, at)
        if size not in (None, own):
            raise InputError(f"{at}: 'original_height' and 'original_width' are {own}; before they were {size}")
        size = own
        content = field(result, "value", dict, at)
        if geometry := _geometry(result, content, own, at, dropped):
            shapes += [Shape(classes.add(name), geometry) for name in _names(content, at, dropped)]
    return Picture(source.image(_reference(task, where), file, where), where, size, tuple(shapes))


def _names(content: Mapping[str, Any], where: str, dropped: Dropped) -> list[str]:
    """The one label of a result; none where it has none."""
    names = next((field(content, key, list, where) for key in _LABELS if key in content), [])
    if len(names) > 1:
        raise InputError(f"{where}: {len(names)} labels; a pixel has one class")
    if not names:
        dropped.add("no label", where)
    return [of_kind(name, str, f"{where}: label") for name in names]


def _geometry(
    result: dict[str, Any], content: dict[str, Any], size: tuple[int, int], where: str, dropped: Dropped
) -> Geometry | None:
    if field(result, "image_rotation", float, where, 0.0):
        raise InputError(f"{where}: 'image_rotation': the picture was turned while it was labeled, which is not read")
    if "rle" in content:
        if content.get("format", "rle") != "rle":
            raise InputError(f"{where}: 'format': expected rle. Received: {str(content['format'])[:40]!r}")
        numbers = field(content, "rle", list, where)
        if not all(type(number) is int and 0 <= number <= 255 for number in numbers):
            raise InputError(f"{where}: 'rle': expected numbers 0..255")
        return Brush(bytes(numbers), size)
    if "points" in content:
        corners = points(field(content, "points", list, where), f"{where}: 'points'")
        if len(corners) >= 3:
            return Polygon((corners * np.array(size[::-1]) / 100,))
        dropped.add("polygon of fewer than 3 points", where)
        return None
    dropped.add(f"{str(result.get('type'))[:40]}: no outline", where)
    return None


def _reference(task: dict[str, Any], where: str) -> str:
    """The image of a task: the one text in its data that names an image, or that under "image"."""
    data = field(task, "data", dict, where)
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    images = [value for value in texts.values() if _suffix(value) in IMAGE_SUFFIXES]
    if len(images) == 1:
        return images[0]
    if "image" in texts:
        return texts["image"]
    raise InputError(f"{where}: 'data' names {len(images)} images; expected one, or one under 'image'")


def _suffix(reference: str) -> str:
    try:
        path = reference if "?d=" in reference else urlsplit(reference).path
    except ValueError:
        path = reference
    return PurePosixPath(path).suffix.lower()
