"""labelme: one JSON file per image, with polygons, rectangles, circles and masks.

Source: labelme's `label_file.py` and `utils/shape.py`. Shapes are painted in their order, as its own `labelme2voc.py`
does. A label of ``__ignore__`` does not count, ``_background_`` is the background: names from its examples. labelme
shows photographs upright since 2019 (version 3.6), so shapes lie over the upright picture.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from segformer_tf.errors import InputError, counted
from segformer_tf.image import open_picture
from segformer_tf.labels import IGNORE_ID
from training.data.formats.export import Classes, Dropped, Export, Picture, sort_classes
from training.data.formats.fields import field, of_kind, points, read_json
from training.data.formats.shapes import Ellipse, Geometry, Polygon, Region, Shape, rectangle
from training.data.formats.source import Source

_POLYGONS = ("polygon", "rotation", "oriented_rectangle")  # the last two by programs that share the format


def recognize(source: Source) -> bool:
    """Whether the first JSON files are labelme's."""
    outlines = map(source.json_outline, source.with_suffix(".json")[:3])
    return any(kind == "object" and keys >= {"shapes", "imagePath"} for kind, keys in outlines)


def read(source: Source) -> Export:
    """Read every JSON file; raises InputError where one does not fit."""
    classes, dropped, pictures, modern = Classes(), Dropped(), [], True
    other = 0
    for file in source.with_suffix(".json"):
        data = read_json(file)
        if not (isinstance(data, dict) and "shapes" in data):
            other += file.name != "predictions.json"  # which `segformer predict` writes beside its label files
            continue
        shapes = []
        for i, value in enumerate(field(data, "shapes", list, str(file))):
            where = f"{file}: shapes[{i}]"
            shape = of_kind(value, dict, where)
            if geometry := _geometry(shape, where, dropped):
                name = field(shape, "label", str, where)
                label = IGNORE_ID if name == "__ignore__" else classes.add(name)
                shapes.append(Shape(label, geometry))
        size = None
        if data.get("imageHeight") is not None and data.get("imageWidth") is not None:
            size = field(data, "imageHeight", int, str(file)), field(data, "imageWidth", int, str(file))
        image = source.image(field(data, "imagePath", str, str(file)), file, str(file))
        modern &= _major(data.get("version")) >= 4
        pictures.append(Picture(image, str(file), size, tuple(shapes), split=source.split_of(file)))
    notes = [f"skipped: {counted(other, 'JSON file')} of another kind than labelme's"] if other else []
    exif: Any = "apply" if modern else None
    return sort_classes(Export(pictures, classes.names, dropped=dropped, notes=notes, exif=exif))


def _major(version: object) -> int:
    first = str(version).split(".")[0]
    return int(first) if first.isdecimal() and len(first) < 4 else 0


def _geometry(shape: dict[str, Any], where: str, dropped: Dropped) -> Geometry | None:
    kind = field(shape, "shape_type", str, where, "polygon")  # files before 2018 have polygons alone
    if kind not in (*_POLYGONS, "rectangle", "circle", "mask"):
        dropped.add(f"{kind}: covers no pixels", where)
        return None
    corners = points(field(shape, "points", list, where), f"{where}: 'points'")
    if kind == "circle" and len(corners) == 2:
        radius = float(np.hypot(*(corners[1] - corners[0])))
        return Ellipse((float(corners[0, 0]), float(corners[0, 1])), (radius, radius))
    if kind == "mask" and len(corners) == 2:
        return _Stamp(field(shape, "mask", str, where), int(corners[:, 1].min()), int(corners[:, 0].min()))
    if kind == "rectangle" and len(corners) == 2:
        (x0, y0), (x1, y1) = corners
        return rectangle(x0, y0, x1, y1)
    if kind in ("circle", "mask") or len(corners) < 3:
        if kind in ("circle", "mask"):
            raise InputError(f"{where}: a {kind} has 2 points. Received: {len(corners)}")
        dropped.add(f"{kind} of fewer than 3 points", where)
        return None
    return Polygon((corners,))


@dataclass(frozen=True)
class _Stamp:
    """A mask: a PNG in base64, whose first pixel lies at row `top`, column `left`."""

    png: str
    top: int
    left: int

    def region(self, size: tuple[int, int]) -> Region:
        """See `training.data.formats.shapes.Geometry`."""
        try:
            data = base64.b64decode(self.png, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("'mask' is not a PNG in base64") from None
        with open_picture(BytesIO(data), formats=("PNG",), kind="mask") as opened:
            if (
                self.top < 0
                or self.left < 0
                or self.top + opened.height > size[0]
                or self.left + opened.width > size[1]
            ):
                raise InputError(
                    f"'mask' of {opened.height}x{opened.width} at row {self.top}, column {self.left} is outside its "
                    f"picture of {size[0]}x{size[1]} (height x width)"
                )
            return Region(self.top, self.left, np.asarray(opened.convert("L")) > 0)
