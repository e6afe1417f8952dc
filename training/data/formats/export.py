"""The form that every format is read into: pictures with shapes or with a mask file, classes, and what was left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Color
from training.data.folder.manifest import Exif
from training.data.formats.shapes import Shape
from training.data.masks import Mask, RawMask, class_table, look_up

BACKGROUND = "background"
_BACKGROUNDS = (BACKGROUND, "_background_", "__background__")


@dataclass(frozen=True)
class Picture:
    """An image and what was drawn on it.

    Attributes:
        image: its file.
        where: names the annotation in errors: a file, and what in it.
        size: (height, width) that the annotation states; None where it states none.
        shapes: in the order in which they are painted.
        mask: a mask file instead of shapes.
        split: train, val or test, where the export states it.
    """

    image: Path
    where: str
    size: tuple[int, int] | None = None
    shapes: tuple[Shape, ...] = ()
    mask: Path | None = None
    split: str | None = None


@dataclass
class Dropped:
    """Annotations that have no pixels in the masks, counted by reason.

    Attributes:
        reasons: how many, and where the first is.
    """

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one."""
        count, first = self.reasons.get(reason, (0, where))
        self.reasons[reason] = count + 1, first


@dataclass
class Export:
    """What a format's reader gives.

    Attributes:
        pictures: in any order, each image once.
        names: of the classes, in the order of their labels 0, 1, …
        colors: of some of them, by label.
        decode: from the content of a mask file to labels; None where pictures have shapes.
        dropped: annotations left out.
        notes: lines for the user.
        license: terms of the data, or "".
        exif: what annotations of a photograph that EXIF turns lie over where sizes do not tell; None if unknown.
    """

    pictures: list[Picture]
    names: list[str]
    colors: dict[int, Color] = field(default_factory=dict)
    decode: Callable[[RawMask], Mask] | None = None
    dropped: Dropped = field(default_factory=Dropped)
    notes: list[str] = field(default_factory=list)
    license: str = ""
    exif: Exif | None = None


@dataclass
class Classes:
    """Class names, numbered as they come.

    Attributes:
        names: of labels 0, 1, …
        colors: of some of them.
    """

    names: list[str] = field(default_factory=list)
    colors: dict[int, Color] = field(default_factory=dict)

    def add(self, name: str, color: Color | None = None) -> int:
        """The label of a name, a new one if need be; names of background mean the same."""
        name = BACKGROUND if name.casefold() in _BACKGROUNDS else name
        if name not in self.names:
            if len(self.names) == IGNORE_ID:
                raise InputError(f"more than {IGNORE_ID} classes; {name!r} is one too many")
            self.names.append(name)
        label = self.names.index(name)
        if color is not None:
            self.colors.setdefault(label, color)
        return label


def sort_classes(export: Export) -> Export:
    """The same export with its classes in alphabetical order, for formats that do not list them."""
    names = sorted(export.names, key=lambda name: (name != BACKGROUND, name.casefold(), name))
    label_of = {label: names.index(name) for label, name in enumerate(export.names)}

    def renamed(picture: Picture) -> Picture:
        shapes = (replace(shape, label=label_of.get(shape.label, shape.label)) for shape in picture.shapes)
        return replace(picture, shapes=tuple(shapes))

    colors = {label_of[label]: color for label, color in export.colors.items()}
    return replace(export, pictures=[renamed(picture) for picture in export.pictures], names=names, colors=colors)


def decode_values(label_of: dict[int, int], ignored: set[int], known_to: str) -> Callable[[RawMask], Mask]:
    """Reads gray masks and the indices of palette masks; transparent pixels are ignored.

    Args:
        label_of: label of each value.
        ignored: values that do not count.
        known_to: where values are defined, for errors.
    """
    table = class_table(label_of, ignored)

    def decode(raw: RawMask) -> Mask:
        if raw.values.ndim == 3:
            raise InputError(f"an RGB mask; {known_to} defines values of gray or palette masks")
        return look_up(raw.values, table, hidden=raw.hidden, known_to=known_to)

    return decode


def decode_colors(label_of: dict[Color, int], ignored: set[Color], known_to: str) -> Callable[[RawMask], Mask]:
    """Reads RGB masks, and the colors of palette masks; transparent pixels are ignored."""
    codes = np.array([_pack(color) for color in (*label_of, *ignored)], np.int64)
    labels = np.array([*label_of.values(), *(IGNORE_ID for _ in ignored)], np.int16)
    order = np.argsort(codes, kind="stable")
    codes, labels = codes[order], labels[order]

    def find(colors: NDArray[np.int64]) -> NDArray[np.int16]:
        place = np.searchsorted(codes, colors).clip(max=len(codes) - 1)
        return np.where(codes[place] == colors, labels[place], -1).astype(np.int16)

    def decode(raw: RawMask) -> Mask:
        if raw.values.ndim == 3:
            entries, index = np.unique(raw.values.astype(np.int64) @ _WEIGHTS, return_inverse=True)
            index = index.reshape(raw.values.shape[:2])
        elif raw.palette is not None:
            entries, index = raw.palette.astype(np.int64) @ _WEIGHTS, raw.values
            entries = np.concatenate([entries, np.full(256 - len(entries), -1)])
        else:
            raise InputError(f"a mask without colors; {known_to} defines colors")

        def describe(entry: int) -> str:
            code = int(entries[entry])
            return f"color {(code >> 16, code >> 8 & 255, code & 255)}" if code >= 0 else f"value {entry}"

        return look_up(index, find(entries), hidden=raw.hidden, known_to=known_to, describe=describe)

    return decode


_WEIGHTS = np.array([1 << 16, 1 << 8, 1], np.int64)


def _pack(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
