"""Class names and colors, and the mask value of pixels that do not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError

IGNORE_ID = 255  # in every mask inside this project; never a class

_LARGEST = 1 << 20  # bytes of a file of names
_NAMED = 20  # classes that an error lists

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Labels:
    """Names and RGB colors (0..255) of classes 0..C-1, in order.

    Raises:
        InputError: no class, more than 255, counts that differ, one name twice (in any case), or a color outside
            0..255.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        object.__setattr__(self, "colors", tuple(tuple(int(v) for v in color) for color in self.colors))
        if not 1 <= len(self.names) <= IGNORE_ID:
            raise InputError(f"expected 1 to {IGNORE_ID} class names. Received: {len(self.names)}")
        if len(self.names) != len(self.colors):
            raise InputError(
                f"expected one color per class. Received: {len(self.names)} names, {len(self.colors)} colors"
            )
        for name, color in zip(self.names, self.colors, strict=True):
            if "\n" in name or "\r" in name or not name:
                raise InputError(f"a class name is one non-empty line. Received: {name!r}")
            if len(color) != 3 or not all(0 <= v <= 255 for v in color):
                raise InputError(f"color of {name!r} must be three integers 0..255. Received: {color}")
        if same := twins(self.names):
            names = " and ".join(repr(self.names[i]) for i in same)
            raise InputError(f"class names must be distinct, in any case. Received: {names}")

    def index(self, name: str) -> int:
        """Id of a class by its name, in any case; raises InputError, with the nearest names, for another."""
        plain = [each.strip().casefold() for each in self.names]
        wanted = name.strip().casefold()
        if wanted in plain:
            return plain.index(wanted)
        near = [self.names[plain.index(each)] for each in get_close_matches(wanted, plain)]
        known = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(self.names[:_NAMED])}"
        more = ", …" if not near and len(self.names) > _NAMED else ""
        raise InputError(f"no class is named {name!r}; {known}{more}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the inverse of `from_dict`."""
        return {"names": list(self.names), "colors": [list(c) for c in self.colors]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[Any]]) -> Labels:
        """Rebuild from `to_dict`; raises InputError as the constructor does.

        Old files may have a name twice: the second gets a number.
        """
        names = [str(name) for name in data["names"]]
        while same := twins(names):
            for number, i in enumerate(same[1:], 2):
                names[i] = f"{names[i]} ({number})"
        return cls(tuple(names), tuple(data["colors"]))

    @classmethod
    def numbered(cls, num_classes: int) -> Labels:
        """Names "class 0".. with distinct colors, for weights without labels."""
        return cls.named([f"class {i}" for i in range(num_classes)])

    @classmethod
    def named(cls, names: Sequence[str]) -> Labels:
        """Names with the default colors."""
        return cls(tuple(names), tuple(bit_reversed_color(i + 1) for i in range(len(names))))

    @classmethod
    def read(cls, path: str | Path) -> Labels:
        """Names from a text file, one per line, with the default colors; raises InputError if it has none."""
        try:
            if Path(path).stat().st_size > _LARGEST:
                raise InputError(f"{path}: expected class names, one per line. Received: more than {_LARGEST} bytes")
            lines = Path(path).read_text("utf-8-sig").splitlines()  # Windows' editors write a BOM
        except OSError as error:
            raise InputError(f"{path}: expected class names, one per line ({error})") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: expected class names in UTF-8, one per line ({error})") from None
        names = [line.strip() for line in lines]
        if names and names[0].startswith("{"):
            raise InputError(f"{path}: expected class names, one per line, as plain text. Received: JSON")
        while names and not names[-1]:
            names.pop()
        if "" in names:
            raise InputError(f"{path}: expected class names, one per line. Line {names.index('') + 1} is empty")
        try:
            return cls.named(names)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def as_labels(names: Labels | Sequence[str]) -> Labels:
    """`Labels`, or class names in order, which get the default colors.

    Raises:
        InputError: no names, or such as `Labels` refuses.
    """
    if isinstance(names, Labels):
        return names
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):  # a string is a sequence of letters
        raise InputError(f"labels must be a list of class names, or Labels. Received: {names!r}")
    return Labels.named(names)


def twins(names: Sequence[str]) -> list[int]:
    """Indices of the first names that are equal but for case and blanks at the ends; [] if all are distinct."""
    at: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        at.setdefault(name.strip().casefold(), []).append(i)
    return next((same for same in at.values() if len(same) > 1), [])


def bit_reversed_color(index: int) -> Color:
    """Color `index` of PASCAL VOC's color map: bits of the index spread over R, G, B from the top."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]
