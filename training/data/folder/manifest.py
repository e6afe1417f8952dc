"""A manifest, such as ``dataset.json``: what a folder's masks mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segformer_tf.config import check_bits
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Color, Labels, twins
from training.data.folder.cut import Cut
from training.data.folder.layouts import layout_hint
from training.data.folder.manifest_file import MANIFESTS, import_command, read_plain
from training.data.masks import Mask, RawMask, class_table, look_up

Exif = Literal["apply", "ignore"]

_KEYS = ("name", "license", "classes", "ignore", "exif", "bits", "validation", "path")
_CLASS_KEYS = ("id", "name", "color")
_CUT_KEYS = ("share", "seed")
_EXAMPLE = '{"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, …], "ignore": [255]}'


@dataclass(frozen=True)
class Reading:
    """The classes of a mask's entries: its values, or its colors.

    Attributes:
        entries: (N,) the values 0..255, or the colors of the mask, 0xRRGGBB.
        index: (H, W) each pixel's place in `entries`.
        classes: (N,) int16 class of each entry, `IGNORE_ID`, or -1 where the manifest does not know it.
        by_color: whether colors decide; False where values mean the same.
        other: (N,) int16 for a palette mask: `classes` if it were read the other way, by value or by color.
    """

    entries: NDArray[Any]
    index: NDArray[Any]
    classes: NDArray[np.int16]
    by_color: bool
    other: NDArray[np.int16] | None = None

    def describe(self, index: int) -> str:
        """An entry in words."""
        entry = int(self.entries[index])
        return f"color {unpack(entry)}" if self.by_color else f"value {entry}"


@dataclass(frozen=True)
class Manifest:
    """``{"classes": [{"id", "name", "color"}], "ignore": [ids or colors], …}``, see ``dataset.schema.json`` for all.

    A class may have several ids and several colors, as lists; pictures show its first color.

    Attributes:
        name: of the data set.
        license: its terms in a few words, or "".
        labels: names and colors, in the order of each class's lowest id.
        ignores_255: whether 255 is ignored only because the manifest does not mention it.
        class_of_value: (256,) int16, see `class_table`.
        class_of_color: class or `IGNORE_ID` of each color 0xRRGGBB; None where two classes share a color.
        exif: what the mask of a photograph that EXIF turns lies over: the upright picture ("apply") or the pixels as
            stored ("ignore"); None where the manifest does not say.
        bits: of images of more than 8 bits; None where the manifest does not say.
        cut: how validation is cut from train; None where it has a folder of its own.
        path: the manifest's file.
        root: the folder that holds the splits: the manifest's own, unless it names another one as "path".
    """

    name: str
    license: str
    labels: Labels
    ignores_255: bool
    class_of_value: NDArray[np.int16]
    class_of_color: dict[int, int] | None
    exif: Exif | None
    bits: int | None
    cut: Cut | None
    path: Path
    root: Path

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the file; raises InputError where it is missing, neither JSON nor YAML, or invalid."""
        return cls._from(path, lambda: read_plain(path))

    @classmethod
    def of(cls, data: Any, path: Path) -> Manifest:
        """The manifest that `path` would hold with such data; raises InputError as `read` does."""
        return cls._from(path, lambda: data)

    @classmethod
    def _from(cls, path: Path, data: Callable[[], Any]) -> Manifest:
        try:
            content = data()
            if path.name not in MANIFESTS and not (isinstance(content, dict) and "classes" in content):
                raise InputError(f'no manifest, which has "classes"; to convert an export: {import_command(path)}')
            return cls._parse(content, path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise InputError(f"{path.parent}: no such folder") from None
            raise InputError(f"{path}: no manifest{layout_hint(path.parent)}. Expected {_EXAMPLE}") from None
        except KeyError as error:
            raise InputError(f"{path}: missing key {error}") from None
        except (AttributeError, IndexError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a usable manifest ({error})") from None

    @classmethod
    def _parse(cls, data: Any, path: Path) -> Manifest:
        _refuse_misspelt(data, _KEYS)
        if not isinstance(data["classes"], list) or not all(isinstance(row, dict) for row in data["classes"]):
            raise InputError(f'"classes" must be a list of objects. Expected {_EXAMPLE}')
        for row in data["classes"]:
            _refuse_misspelt(row, _CLASS_KEYS)
        rows = sorted(data["classes"], key=lambda row: min(_ids(row["id"])))
        ids = [_ids(row["id"]) for row in rows]
        ignore = data.get("ignore", [])
        ignored = {_integer(i) for i in ignore if not isinstance(i, list)}
        flat = [i for own in ids for i in own]
        if any(not 0 <= i <= 255 for i in (*flat, *ignored)) or len(set(flat)) != len(flat) or set(flat) & ignored:
            raise InputError(
                "ids must be distinct, 0..255 and not both a class and ignored. "
                f"Received: {flat}, ignored {sorted(ignored)}"
            )
        for key in ("name", "color"):
            if lacking := [own[0] for own, row in zip(ids, rows, strict=True) if key not in row]:
                raise InputError(f"class {lacking[0]}: missing key {key!r}")
        lists = [row["color"] if _is_list_of_lists(row["color"]) else [row["color"]] for row in rows]
        colors = [[_color(color) for color in own] for own in lists]
        names = [_text(row["name"], "a class name") for row in rows]
        if same := twins(names):
            merged = json.dumps({"id": [i for k in same for i in ids[k]], "name": names[same[0]]})
            raise InputError(
                f"class names must be distinct, in any case. Received: {' and '.join(repr(names[k]) for k in same)}; "
                f"several ids of one class are a list: {merged[:-1]}, …}}"
            )
        labels = Labels(tuple(names), tuple(own[0] for own in colors))
        if len(rows) == 1:
            raise InputError(_lone_class(labels.names[0], set(flat), ignored))
        if (exif := data.get("exif")) not in (None, *get_args(Exif)):
            raise InputError(f'"exif" must be "apply" or "ignore". Received: {exif!r}')
        ignores_255 = IGNORE_ID not in flat and IGNORE_ID not in ignored
        class_of = {value: i for i, own in enumerate(ids) for value in own}
        by_value = class_table(class_of, {*ignored, IGNORE_ID} if ignores_255 else ignored)
        by_color = _classes_by_color(colors, [_color(c) for c in ignore if isinstance(c, list)])
        return cls(
            _text(data.get("name", path.parent.name), '"name"'),
            _text(data.get("license", ""), '"license"'),
            labels,
            ignores_255,
            by_value,
            by_color,
            exif,
            bits=check_bits(data.get("bits")),
            cut=_cut(data.get("validation")),
            path=path,
            root=path.parent / _text(data.get("path", ""), '"path"'),
        )

    def mask(self, raw: RawMask) -> Mask:
        """(H, W) uint8 classes and `IGNORE_ID`.

        Raises:
            InputError: a value or color that the manifest does not know.
        """
        reading = self.reading(raw)
        return look_up(
            reading.index, reading.classes, hidden=raw.hidden, known_to="the manifest", describe=reading.describe
        )

    def reading(self, raw: RawMask) -> Reading:
        """How to read a mask: RGB by color, others by value unless the palette has the manifest's colors.

        Programs that shrink files sort and cut palettes, after which an index alone means nothing.

        Raises:
            InputError: an RGB mask where two classes share a color.
        """
        if raw.values.ndim == 3:
            if self.class_of_color is None:
                raise InputError("an RGB mask, but the manifest gives one color to two classes")
            packed = raw.values.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
            entries, index = np.unique(packed, return_inverse=True)
            classes = np.array([self.class_of_color.get(code, -1) for code in entries.tolist()], np.int16)
            return Reading(entries, index.reshape(packed.shape), classes, True)
        entries, by_value = np.arange(256), self.class_of_value
        if raw.palette is None or self.class_of_color is None:
            return Reading(entries, raw.values, by_value, False)
        by_color = np.full(256, -1, np.int16)
        by_color[: len(raw.palette)] = [self.class_of_color.get(_pack(color), -1) for color in raw.palette.tolist()]
        by_color[(by_color < 0) & (by_value == IGNORE_ID)] = IGNORE_ID  # the border that VOC draws
        occurs = raw.histogram() > 0
        if (by_color[occurs] >= 0).all() and (by_color != by_value)[occurs].any():
            return Reading(entries, raw.values, by_color, True, by_value)
        return Reading(entries, raw.values, by_value, False, by_color)


def unpack(code: int) -> Color:
    """The color of a code 0xRRGGBB."""
    return code >> 16, code >> 8 & 255, code & 255


def _pack(color: Iterable[int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool | str) or number != value:
        raise ValueError(f"expected a whole number, not {value!r}")
    return number


def _ids(value: Any) -> tuple[int, ...]:
    ids = tuple(map(_integer, value)) if isinstance(value, list) else (_integer(value),)
    if not ids:
        raise InputError("a class without an id")
    return ids


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _color(value: Any) -> Color:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"a color must be three numbers, [red, green, blue]. Received: {value!r}")
    red, green, blue = map(_integer, value)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise InputError(f"a color is three integers 0..255. Received: {value}")
    return red, green, blue


def _text(value: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):  # such as YAML's no, for "no"
        raise InputError(f"{what} is a text. Received: {value!r}")
    return str(value)


def _cut(value: Any) -> Cut | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() <= set(_CUT_KEYS):
        raise InputError(f'"validation" must be {{"share": 0.1, "seed": 0}}. Received: {value!r}')
    share, seed = value["share"], _integer(value.get("seed", 0))
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1 or seed < 0:
        raise InputError(f'"validation" must have a share above 0 and below 1, and a seed from 0. Received: {value!r}')
    return Cut(share, seed)


def _classes_by_color(colors: list[list[Color]], ignored: list[Color]) -> dict[int, int] | None:
    classes: dict[int, int] = {}
    for i, own in [*enumerate(colors), (IGNORE_ID, ignored)]:
        for color in own:
            if classes.setdefault(_pack(color), i) != i:
                return None
    return classes


def _lone_class(name: str, ids: set[int], ignored: set[int]) -> str:
    free = min(ignored or {i for i in range(3) if i not in ids})
    instead = f" instead of ignoring {free}" if ignored else ""
    background = f'{{"id": {free}, "name": "background", "color": [0, 0, 0]}}'
    return (
        f"one class, {name!r}, and nothing else that counts: a network of one class says it of every pixel. "
        f"Give the rest a class of its own, {background}{instead}"
    )


def _refuse_misspelt(keys: Iterable[str], known: tuple[str, ...]) -> None:
    """Raises InputError for a key that is nearly one of `known`; others may belong to other programs."""
    for key in keys:
        if key not in known and (near := get_close_matches(str(key).lower(), known, 1, 0.75)):
            raise InputError(f"unknown key {key!r}; is {near[0]!r} meant?")
