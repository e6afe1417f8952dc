"""CVAT for images 1.1: one XML file, with polygons, boxes, ellipses and masks.

Source: docs.cvat.ai, "XML annotation format". As in CVAT's own export of masks, boxes and ellipses are filled. Shapes
are painted by z_order, those of one order as they come. CVAT turns photographs upright since 2.1; sizes tell which it
did.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.labels import Color
from training.data.formats.export import Classes, Dropped, Export, Picture
from training.data.formats.fields import field, numeral, points, read_xml
from training.data.formats.shapes import Ellipse, Geometry, Polygon, Runs, Shape, rectangle
from training.data.formats.source import SPLITS, Source

_HEAD = 1 << 12  # bytes in which the root element begins


def recognize(source: Source) -> bool:
    """Whether an XML file is CVAT's."""
    return any(_is_cvat(file) for file in source.with_suffix(".xml")[:20])


def _is_cvat(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return b"<annotations>" in opened.read(_HEAD)  # VOC's boxes have <annotation>
    except OSError:
        return False


def read(source: Source) -> Export:
    """Read every XML file of this format; raises InputError where one does not fit."""
    classes, dropped, pictures = Classes(), Dropped(), list[Picture]()
    files = source.with_suffix(".xml")
    for file in [file for file in files if _is_cvat(file)] or files:
        root = read_xml(file)
        if root.tag != "annotations":
            raise InputError(f"{file}: expected <annotations>. Received: <{root.tag}>")
        if root.find("track") is not None:
            raise InputError(f"{file}: CVAT for video; export the task as 'CVAT for images 1.1'")
        named = _read_labels(root, file, classes)
        for i, element in enumerate(root.iter("image")):
            pictures.append(_picture(source, file, element, f"{file}: image {i}", classes, dropped, named))
    return Export(pictures, classes.names, classes.colors, dropped=dropped)


def _read_labels(root: Element, file: Path, classes: Classes) -> set[str]:
    """The labels that the head of the file names, if any."""
    named = set()
    for element in root.iterfind("meta/*/labels/label"):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{file}: a <label> without <name>")
        classes.add(name, _color(element.findtext("color"), f"{file}: label {name!r}"))
        named.add(name)
    return named


def _color(text: str | None, where: str) -> Color | None:
    if not text:
        return None
    digits = text.strip().removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise InputError(f"{where}: expected a color such as #33ddff. Received: {text[:40]!r}") from None
    return red, green, blue


def _picture(
    source: Source, file: Path, element: Element, where: str, classes: Classes, dropped: Dropped, named: set[str]
) -> Picture:
    name = field(element.attrib, "name", str, where)
    where = f"{where} ({name[:80]!r})"
    size = (
        numeral(element.get("height"), int, f"{where}: 'height'"),
        numeral(element.get("width"), int, f"{where}: 'width'"),
    )
    layers = []
    for i, child in enumerate(element):
        at = f"{where}: <{child.tag}> {i}"
        if geometry := _geometry(child, at, dropped):
            label = field(child.attrib, "label", str, at)
            if named and label not in named:
                dropped.add(f"unknown label {label[:40]!r}", at)
                continue
            order = numeral(child.get("z_order", "0"), int, f"{at}: 'z_order'")
            layers.append((order, Shape(classes.add(label), geometry)))
    shapes = tuple(shape for _, shape in sorted(layers, key=lambda layer: layer[0]))
    subset = element.get("subset", "")  # images/SUBSET/NAME in an export of a project
    image, split = source.image(f"{subset}/{name}", file, where), SPLITS.get(subset.lower())
    return Picture(image, where, size, shapes, split=split)


def _geometry(element: Element, where: str, dropped: Dropped) -> Geometry | None:
    def number(key: str, default: Any = None, kind: type = float) -> Any:
        return numeral(element.get(key, default), kind, f"{where}: {key!r}")

    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair]
        corners = points(
            [[numeral(v, float, f"{where}: 'points'") for v in pair] for pair in pairs], f"{where}: 'points'"
        )
        if len(corners) >= 3:
            return Polygon((corners,))
        dropped.add("polygon of fewer than 3 points", where)
    elif element.tag == "box":
        return rectangle(number("xtl"), number("ytl"), number("xbr"), number("ybr"), number("rotation", "0"))
    elif element.tag == "ellipse":
        return Ellipse((number("cx"), number("cy")), (number("rx"), number("ry")), number("rotation", "0"))
    elif element.tag == "mask":
        counts = [numeral(v, int, f"{where}: 'rle'") for v in element.get("rle", "").split(",")]
        lengths = np.array([min(max(count, -1), 1 << 40) for count in counts], np.int64)
        top, left = number("top", kind=int), number("left", kind=int)
        return Runs(top, left, number("height", kind=int), number("width", kind=int), lengths, by_column=False)
    else:
        dropped.add(f"{element.tag[:40]}: covers no pixels", where)
    return None
