"""Fields of a stranger's files: of the expected type, or refused in a line that names file and field."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError, first_line
from segformer_tf.labels import Color

Points = NDArray[np.float64]  # (N, 2): x and y in pixels, (0, 0) the outer corner of the first pixel
T = TypeVar("T")

_WORDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}
_FARTHEST = 1e7  # pixels
_LARGEST = (1 << 63) - 1
_REQUIRED: Any = object()


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises InputError where it is none."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not readable JSON ({first_line(error)})") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; raises InputError where it is none."""
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable text file ({first_line(error)})") from None


def read_names(path: Path) -> list[str]:
    """Class names, one a line; an empty line among them, which would move the numbers of the rest, is refused."""
    names = [line.strip() for line in read_lines(path)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise InputError(f"{path}: line {names.index('') + 1}: expected a class name. Received: an empty line")
    return names


def read_table(path: Path) -> list[list[str]]:
    """The rows of a CSV file, without blanks around cells and without empty rows."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(read_lines(path))]
    except csv.Error as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    return [row for row in rows if any(row)]


def read_xml(path: Path) -> Element:
    """The root of an XML file. A DOCTYPE, and so every entity of its own, is refused.

    Raises:
        InputError: not XML, or with a DOCTYPE.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data

    def refuse_doctype(*_: Any) -> None:
        raise InputError(f"{path}: has a DOCTYPE; no labeling tool writes one, and it is not read")

    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except InputError:
        raise
    except (OSError, expat.ExpatError, ParseError, LookupError, AssertionError, ValueError) as error:
        raise InputError(f"{path}: not readable XML ({first_line(error)})") from None


def field(record: Mapping[str, Any], key: str, kind: type[T], where: str, default: Any = _REQUIRED) -> T:
    """`record[key]`, of type `kind`; a float may be written as a whole number.

    Raises:
        InputError: missing without a default, or of another type.
    """
    if key not in record and default is not _REQUIRED:
        return default
    if key not in record:
        raise InputError(f"{where}: missing {key!r}")
    return of_kind(record[key], kind, f"{where}: {key!r}")


def of_kind(value: Any, kind: type[T], where: str) -> T:
    """`value` if it is of type `kind`; raises InputError otherwise."""
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if fits and kind in (int, float):
        fits = abs(value) <= (_FARTHEST if kind is float else _LARGEST)  # not so for NaN
    if not fits:
        raise InputError(f"{where}: expected {_WORDS[kind]}. Received: {shorten(value)}")
    return value


def numeral(text: Any, kind: Callable[[Any], T], where: str) -> T:
    """A number that is written as text, in XML, CSV and text files."""
    try:
        number: Any = kind(text)
    except (TypeError, ValueError):
        number = text
    return of_kind(number, kind, where)  # type: ignore[arg-type]


def points(value: Any, where: str) -> Points:
    """``[[x, y], …]`` as (N, 2) float64; raises InputError for anything else."""
    pairs = of_kind(value, list, where)
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{where}: expected points [x, y]. Received: {shorten(pair)}")
        for number in pair:
            of_kind(number, float, where)
    return np.array(pairs, np.float64).reshape(-1, 2)


def rgb(values: list[Any], where: str) -> Color:
    """Three numbers 0..255; raises InputError for anything else."""
    if len(values) != 3:
        raise InputError(f"{where}: expected red, green and blue. Received: {shorten(values)}")
    red, green, blue = (numeral(value, int, where) for value in values)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise InputError(f"{where}: a color is three numbers 0..255. Received: {shorten(values)}")
    return red, green, blue


def shorten(value: Any) -> str:
    """A value in a message: one line, not too long."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict | list) for v in value)):
        return f"{len(value)} entries"  # which a YAML file may repeat within each other
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
