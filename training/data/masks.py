"""A mask file as it stands: values or colours, palette, transparency. The manifest says what they mean.

A pixel of alpha 0 shows nothing, so it is ignored. One that is half transparent counts: files keep its own value or
colour beside the alpha, not a mixture, and annotation tools save whole masks at half alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.image import open_picture

MASK_SUFFIXES = (".png", ".tif", ".tiff")
MASK_KINDS = "PNG or lossless TIFF"

_LOSSY = ("jpeg", "tiff_jpeg", "webp")  # a TIFF's compressions, as Pillow calls them
_STRETCH = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey samples of 2 and 4 bits with


@dataclass(frozen=True)
class RawMask:
    """What a mask's file holds.

    Attributes:
        values: (H, W) uint8 of a grey or palette picture, the indices; (H, W, 3) uint8 of one in colours.
        palette: (N, 3) uint8 colours of the first indices; None without one, or with the grey ramp that some programs
            write where there are no colours.
        hidden: (H, W) bool, wholly transparent pixels; None where there are none.
    """

    values: NDArray[np.uint8]
    palette: NDArray[np.uint8] | None = None
    hidden: NDArray[np.bool_] | None = None

    def histogram(self) -> NDArray[np.int64]:
        """(256,) pixels of each value of an (H, W) mask, transparent ones left out."""
        shown = None if self.hidden is None else Image.fromarray(~self.hidden)
        return np.array(Image.fromarray(self.values).histogram(shown), np.int64)


def read_mask(path: Path) -> RawMask:
    """Read a mask's file.

    Raises:
        InputError: unreadable, or of a kind that changes values (JPEG) or has other ones (16 bits).
    """
    with open_picture(path, formats=("PNG", "TIFF", "JPEG"), kind="mask") as opened:
        if opened.format == "JPEG" or opened.info.get("compression") in _LOSSY:
            raise InputError(f"JPEG changes the values of a mask; save it as {MASK_KINDS}")
        if opened.format == "TIFF" and (pages := getattr(opened, "n_frames", 1)) > 1:
            raise InputError(f"a mask is one picture. Received: a TIFF of {pages}")
        if opened.format == "TIFF" and opened.getexif().get(0x0112, 1) in range(2, 9):  # Pillow would turn it
            raise InputError("a TIFF with an EXIF orientation, which turns it; save the mask without, or as PNG")
        return raw_mask(opened)


def raw_mask(opened: Image.Image) -> RawMask:
    """What `read_mask` gives, of an open picture whose pixels were not loaded yet."""
    mode, packing = opened.mode, _packing(opened)
    # Pillow cuts them to 8: it calls the one RGBA, and leaves the 16-bit colour that is transparent of the other.
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
    """How the file packs samples, in Pillow's words, such as "L;4"."""
    tiles: Any = getattr(opened, "tile", None)
    how = tiles[0][3] if tiles else ""
    return str(how if isinstance(how, str) else how[0])


def _palette(opened: Image.Image) -> NDArray[np.uint8] | None:
    if opened.mode != "P":
        return None
    palette = np.array(opened.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = _unpadded(palette)
    if len(palette) > 1 and (palette == np.arange(len(palette))[:, None]).all():
        return None
    return palette


def _unpadded(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The palette without equal entries at its end, with which programs fill it up to 256: they are colours of nothing.

    The first of them stays where no entry before has its colour, as it may be the last that is used.
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
    key = opened.info.get("transparency")  # of a PNG: the alpha of palette entries, or the one value that is hidden
    if isinstance(key, bytes):
        clear = np.zeros(256, np.bool_)
        clear[: len(key)] = np.frombuffer(key, np.uint8) == 0
        return clear[values]
    if isinstance(key, int):
        return values == (min(key, 1) if opened.mode == "1" else key)  # Pillow calls white 255
    if isinstance(key, tuple):
        return (values == np.array(key)).all(-1)
    return None
