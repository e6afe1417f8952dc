"""``dataset.json``: what a folder's masks mean."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segformer_tf.config import check_bits
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Labels, twins
from training.data.class_lookup import Mask, mapping_table, where
from training.data.folder.layouts import recognize
from training.data.masks import RawMask

Drawn = Literal["apply", "ignore"]

_KEYS = ("name", "license", "classes", "ignore", "exif", "bits")
_CLASS_KEYS = ("id", "name", "color")
_EXAMPLE = '{"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, …], "ignore": [255]}'


@dataclass(frozen=True)
class Reading:
    """What a mask's entries (its values, or its colours) mean.

    Attributes:
        entries: (N,) what may occur: 0..255, or packed colours 0xRRGGBB.
        index: (H, W) of each pixel, into `entries`.
        meaning: (N,) int16 class index of each entry, `IGNORE_ID`, or -1 for one that the manifest does not know.
        by_color: whether colours decide; not where values say the same.
        other: of a palette PNG, (N,) int16, what the way that was not taken makes of each entry; else None.
    """

    entries: NDArray[Any]
    index: NDArray[Any]
    meaning: NDArray[np.int16]
    by_color: bool
    other: NDArray[np.int16] | None = None

    def counts(self, raw: RawMask) -> NDArray[np.int64]:
        """(N,) pixels of each entry, transparent ones left out."""
        if raw.values.ndim == 3:
            shown = self.index.ravel() if raw.hidden is None else self.index[~raw.hidden]
            return np.bincount(shown, minlength=len(self.entries))
        return raw.histogram()


@dataclass(frozen=True)
class Manifest:
    """``{"name", "license", "classes": [{"id", "name", "color"}], "ignore": [ids or colours], "exif", "bits"}``.

    A class may have several ids and several colours, as lists; its first colour is what pictures show.

    Attributes:
        name: of the data set.
        license: its terms in a few words, or "".
        labels: names and colours, in order of each class's lowest id.
        ids: of each class.
        spare: whether 255 is ignored only because no class has that id and nothing is said of it.
        table: (256,) int16, class index of every raw mask value, `IGNORE_ID` for ignored ones, -1 for unknown ones.
        palette: class index, or `IGNORE_ID`, of every colour, packed as 0xRRGGBB; None where two classes share one.
        exif: how masks of photographs that EXIF turns were drawn: over the upright picture ("apply") or over the
            pixels as stored ("ignore"); None where the manifest does not say.
        bits: that images of more than 8 have, or None where that is not said.
    """

    name: str
    license: str
    labels: Labels
    ids: tuple[tuple[int, ...], ...]
    spare: bool
    table: NDArray[np.int16]
    palette: dict[int, int] | None
    exif: Drawn | None
    bits: int | None

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises InputError where the file is missing, is no JSON, lacks a key or makes no sense."""
        try:
            return cls._parse(json.loads(path.read_text("utf-8-sig")), path.parent.name)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise InputError(f"{path.parent}: no such folder") from None
            raise InputError(f"{path}: no manifest{recognize(path.parent)}. Expected {_EXAMPLE}") from None
        except KeyError as error:
            raise InputError(f"{path}: missing key {error}") from None
        except (AttributeError, IndexError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a usable manifest ({error})") from None

    @classmethod
    def _parse(cls, data: Any, folder: str) -> Manifest:
        _refuse_misspelt(data, _KEYS)
        for row in data["classes"]:
            _refuse_misspelt(row, _CLASS_KEYS)
        rows = sorted(((_ids(row["id"]), row) for row in data["classes"]), key=lambda each: min(each[0]))
        ids, classes = tuple(each for each, _ in rows), [row for _, row in rows]
        ignore = data.get("ignore", [])
        ignored = {_integer(i) for i in ignore if not isinstance(i, list)}
        flat = [i for each in ids for i in each]
        if any(not 0 <= i <= 255 for i in (*flat, *ignored)) or len(set(flat)) != len(flat) or set(flat) & ignored:
            raise InputError(
                "ids must be distinct, 0..255 and not both a class and ignored. "
                f"Received: {flat}, ignored {sorted(ignored)}"
            )
        for key in ("name", "color"):
            if lacking := [i[0] for i, row in rows if key not in row]:
                raise InputError(f"class {lacking[0]}: missing key {key!r}")
        colors = [_colors(row["color"]) for row in classes]
        if odd := [row["name"] for row in classes if not isinstance(row["name"], str | int)]:
            raise InputError(f"a class name is a text. Received: {odd[0]!r}")
        names = [str(row["name"]) for row in classes]
        if same := twins(names):
            merged = json.dumps({"id": [i for k in same for i in ids[k]], "name": names[same[0]]})
            raise InputError(
                f"class names must be distinct, in any case. Received: {' and '.join(repr(names[k]) for k in same)}; "
                f"several ids of one class are a list: {merged[:-1]}, …}}"
            )
        labels = Labels(tuple(names), tuple(each[0] for each in colors))
        if len(classes) == 1:
            raise InputError(_alone(labels.names[0], set(flat), ignored))
        if (exif := data.get("exif")) not in (None, *get_args(Drawn)):
            raise InputError(f'"exif" must be "apply" or "ignore". Received: {exif!r}')
        spare = IGNORE_ID not in flat and IGNORE_ID not in ignored
        class_of = {raw: i for i, each in enumerate(ids) for raw in each}
        table = mapping_table(class_of, {*ignored, IGNORE_ID} if spare else ignored)
        palette = _palette(colors, [_color(c) for c in ignore if isinstance(c, list)])
        name, license = str(data.get("name", folder)), str(data.get("license", ""))
        return cls(name, license, labels, ids, spare, table, palette, exif, check_bits(data.get("bits")))

    def classes(self, raw: RawMask) -> Mask:
        """(H, W) class indices and `IGNORE_ID` of a mask's file.

        Raises:
            InputError: a value or colour that the manifest does not know.
        """
        reading = self.reading(raw)
        mask = reading.meaning[reading.index]
        if raw.hidden is not None:
            mask[raw.hidden] = IGNORE_ID
        if (odd := mask < 0).any():
            entry = int(reading.entries[reading.index[odd][0]])
            if reading.by_color:
                told = f"colour {unpacked(entry)} is neither a class's"
            else:
                told = f"value {entry} is neither a class"
            raise InputError(f"mask {told} nor ignored in the manifest{where(odd)}")
        return mask.astype(np.uint8)

    def reading(self, raw: RawMask) -> Reading:
        """How a mask is read: colours by colour; values by value, unless a palette's colours are the manifest's.

        Programs that make files smaller sort and cut palettes, after which an index means nothing by itself.

        Raises:
            InputError: a mask in colours where two classes share one.
        """
        if raw.values.ndim == 3:
            if self.palette is None:
                raise InputError("a mask in colours, but the manifest gives one colour to two classes")
            packed = raw.values.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
            entries, index = np.unique(packed, return_inverse=True)
            meaning = np.array([self.palette.get(code, -1) for code in entries.tolist()], np.int16)
            return Reading(entries, index.reshape(packed.shape), meaning, True)
        entries = np.arange(256)
        if raw.palette is None or self.palette is None:
            return Reading(entries, raw.values, self.table, False)
        by_color = np.full(256, -1, np.int16)
        by_color[: len(raw.palette)] = [self.palette.get(_packed(color), -1) for color in raw.palette.tolist()]
        by_color[(by_color < 0) & (self.table == IGNORE_ID)] = IGNORE_ID  # the border that VOC draws
        occurs = raw.histogram() > 0
        if (by_color[occurs] >= 0).all() and (by_color != self.table)[occurs].any():
            return Reading(entries, raw.values, by_color, True, self.table)
        return Reading(entries, raw.values, self.table, False, by_color)


def unpacked(code: int) -> tuple[int, int, int]:
    """The colour of a code 0xRRGGBB."""
    return code >> 16, code >> 8 & 255, code & 255


def _packed(color: Iterable[int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != number):
        raise ValueError(f"expected a whole number, not {value!r}")
    return number


def _ids(given: Any) -> tuple[int, ...]:
    ids = tuple(map(_integer, given)) if isinstance(given, list) else (_integer(given),)
    if not ids:
        raise InputError("a class without an id")
    return ids


def _color(given: Any) -> tuple[int, int, int]:
    red, green, blue = map(_integer, given)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise InputError(f"a colour is three integers 0..255. Received: {given}")
    return red, green, blue


def _colors(given: Any) -> list[tuple[int, int, int]]:
    return [_color(each) for each in (given if isinstance(given[0], list) else [given])]


def _palette(colors: list[list[tuple[int, int, int]]], ignored: list[tuple[int, int, int]]) -> dict[int, int] | None:
    meanings: dict[int, set[int]] = {}
    for i, each in [*enumerate(colors), (IGNORE_ID, ignored)]:
        for color in each:
            meanings.setdefault(_packed(color), set()).add(i)
    if any(len(each) > 1 for each in meanings.values()):
        return None
    return {code: each.pop() for code, each in meanings.items()}


def _alone(name: str, ids: set[int], ignored: set[int]) -> str:
    free = min(ignored or {i for i in range(3) if i not in ids})
    instead = f" instead of ignoring {free}" if ignored else ""
    background = f'{{"id": {free}, "name": "background", "color": [0, 0, 0]}}'
    return (
        f"one class, {name!r}, and nothing else that counts: a network of one class says it of every pixel. "
        f"Give what is not {name!r} a class of its own, {background}{instead}"
    )


def _refuse_misspelt(found: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raises InputError for a key that is nearly one of `known`; others may be of other programs."""
    for key in found:
        if key not in known and (near := get_close_matches(key.lower(), known, 1, 0.75)):
            raise InputError(f"unknown key {key!r}; is {near[0]!r} meant?")
