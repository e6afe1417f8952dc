"""Reads a mask file, with its palette and transparency, and looks up the class of each value.

A pixel of alpha 0 is ignored. A half-transparent one counts: files keep its own value or color beside the alpha, not a
mixture, and annotation tools save whole masks at half alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, open_picture
from segformer_tf.labels import IGNORE_ID

MASK_SUFFIXES = (".png", ".tif", ".tiff")
MASK_KINDS = "PNG or lossless TIFF"

_LOSSY = ("jpeg", "tiff_jpeg", "webp")  # Pillow's names of a TIFF's compressions
_STRETCH = {"L;2": 85, "L;4": 17}  # Pillow multiplies gray samples of 2 and 4 bits by these

Mask = NDArray[np.uint8]  # (H, W): class 0..C-1 or IGNORE_ID
Sample = tuple[Pixels, Mask]


@dataclass(frozen=True)
class RawMask:
    """The content of a mask file.

    Attributes:
        values: (H, W) uint8 values of a gray mask or indices of a palette mask; (H, W, 3) uint8 colors of an RGB mask.
        palette: (N, 3) uint8 colors of the first indices; None without a palette, or with the gray ramp that some
            programs write instead of none.
        hidden: (H, W) bool, the wholly transparent pixels; None where there are none.
    """

    values: NDArray[np.uint8]
    palette: NDArray[np.uint8] | None = None
    hidden: NDArray[np.bool_] | None = None

    def histogram(self) -> NDArray[np.int64]:
        """(256,) pixels of each value of an (H, W) mask, without transparent ones."""
        shown = None if self.hidden is None else Image.fromarray(~self.hidden)
        return np.array(Image.fromarray(self.values).histogram(shown), np.int64)


def class_table(class_of: Mapping[int, int], ignored: Iterable[int] = ()) -> NDArray[np.int16]:
    """The class of every raw value.

    Args:
        class_of: class of each raw value that has one.
        ignored: raw values that do not count.

    Returns:
        (256,) int16: 0..C-1, `IGNORE_ID`, or -1 for a value that must not occur.
    """
    table = np.full(256, -1, np.int16)
    table[list(ignored)] = IGNORE_ID
    table[list(class_of)] = list(class_of.values())
    return table


def look_up(
    index: NDArray[Any],
    table: NDArray[np.int16],
    *,
    hidden: NDArray[np.bool_] | None,
    known_to: str,
    describe: Callable[[int], str] = "value {}".format,
) -> Mask:
    """The class of each pixel.

    Args:
        index: (H, W) integers, places in `table`.
        table: (N,) int16 classes, `IGNORE_ID`, or -1 where the class is unknown.
        hidden: (H, W) bool, pixels to ignore.
        known_to: where classes are defined, for the error.
        describe: names an index in the error.

    Raises:
        InputError: a pixel of unknown class.
    """
    mask = table[index]
    if hidden is not None:
        mask[hidden] = IGNORE_ID
    if (unknown := np.argwhere(mask < 0)).size:
        row, column = unknown[0].tolist()
        raise InputError(
            f"mask {describe(index[row, column])} is neither a class nor ignored in {known_to} "
            f"(row {row}, column {column}, {len(unknown)} pixels)"
        )
    return mask.astype(np.uint8)


def read_mask(path: Path) -> RawMask:
    """Read a mask file.

    Raises:
        InputError: unreadable, lossy (JPEG), or of more than 8 bits.
    """
    with open_picture(path, formats=("PNG", "TIFF", "JPEG"), kind="mask") as opened:
        if opened.format == "JPEG" or opened.info.get("compression") in _LOSSY:
            raise InputError(f"JPEG changes the values of a mask; save it as {MASK_KINDS}")
        if opened.format == "TIFF" and (pages := getattr(opened, "n_frames", 1)) > 1:
            raise InputError(f"a mask is one picture. Received: a TIFF of {pages} pages")
        if opened.format == "TIFF" and opened.getexif().get(0x0112, 1) in range(2, 9):  # Pillow would apply it
            raise InputError("a TIFF with an EXIF orientation; save the mask without it, or as PNG")
        return raw_mask(opened)


def raw_mask(opened: Image.Image) -> RawMask:
    """The content of an open picture whose pixels are not loaded yet; raises InputError as `read_mask` does."""
    mode, packing = opened.mode, _packing(opened)
    # Pillow cuts both to 8 bits: it calls the first RGBA, and keeps a transparent color of 16 bits for the second.
    deep = "LA;16" in packing or ("RGB;16" in packing and "transparency" in opened.info)
    if mode not in ("1", "L", "LA", "P", "RGB", "RGBA") or deep:
        raise InputError(
            f"a mask is an 8-bit index, palette or RGB {MASK_KINDS}. Received: mode {packing if deep else mode}"
        )
    if "I" in packing.partition(";")[2]:
        raise InputError("a TIFF in which 0 is white; save the mask with 0 as black, or as PNG")
    if mode in ("RGB", "RGBA"):
        values = np.asarray(opened.convert("RGB"))
    elif mode == "LA":
        values = np.asarray(opened.getchannel("L"))
    else:
        values = np.asarray(opened, np.uint8)
    if stretch := _STRETCH.get(packing[:3]):
        values = values // np.uint8(stretch)
    hidden = _hidden(opened, values)
    return RawMask(values, _palette(opened), hidden if hidden is not None and hidden.any() else None)


def _packing(opened: Image.Image) -> str:
    """Pillow's name for how the file packs samples, such as "L;4"."""
    tiles: Any = getattr(opened, "tile", None)
    how = tiles[0][3] if tiles else ""
    return str(how if isinstance(how, str) else how[0])


def _palette(opened: Image.Image) -> NDArray[np.uint8] | None:
    if opened.mode != "P":
        return None
    palette = _trim(np.array(opened.getpalette("RGB"), np.uint8).reshape(-1, 3))
    if len(palette) > 1 and (palette == np.arange(len(palette))[:, None]).all():
        return None
    return palette


def _trim(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut off the equal entries with which programs pad a palette to 256.

    The first of them stays where no entry before has its color: it may be in use.
    """
    used = len(palette)
    while used > 1 and (palette[used - 1] == palette[used - 2]).all():
        used -= 1
    if used < len(palette) and (palette[: used - 1] == palette[-1]).all(1).any():
        used -= 1
    return palette[:used]


def _hidden(opened: Image.Image, values: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    if opened.mode in ("LA", "RGBA"):
        return np.asarray(opened.getchannel("A")) == 0
    key = opened.info.get("transparency")  # of a PNG: the palette's alphas, or the one transparent value
    if isinstance(key, bytes):
        clear = np.zeros(256, np.bool_)
        clear[: len(key)] = np.frombuffer(key, np.uint8) == 0
        return clear[values]
    if isinstance(key, int):
        return values == (min(key, 1) if opened.mode == "1" else key)  # Pillow calls white 255
    if isinstance(key, tuple):
        return (values == np.array(key)).all(-1)
    return None
