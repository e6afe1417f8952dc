"""Opens picture files; those of phones (HEIC, AVIF) with readers that are loaded for them alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError, features

from segformer_tf.errors import InputError, first_line

# JPEG covers MPO, which many phones write. Left out: readers that run other programs (EPS) or are not for photographs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")
_BRANDS = 64  # bytes of a file that hold the kinds it claims to be of


@contextmanager
def open_picture(source: Path | BinaryIO, *, formats: tuple[str, ...], kind: str) -> Iterator[Image.Image]:
    """Open a picture file; any error becomes one line that calls it a `kind`.

    Pillow refuses more than 179 million pixels, and warns from half of that. The warning is silenced once for the whole
    process, because `warnings.catch_warnings` would drop the filters of other threads.

    Raises:
        InputError: no such file, or one that Pillow cannot read as one of `formats`.
    """
    name = str(source) if isinstance(source, Path) else "bytes"
    if isinstance(source, Path) and not source.is_file():  # also a folder, or a pipe, which would wait forever
        raise InputError(f"{name}: no such {kind}")
    if not any(f[0] == "ignore" and f[2] is Image.DecompressionBombWarning for f in warnings.filters):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        with Image.open(source, formats=formats) as opened:
            yield opened
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Image.DecompressionBombError as error:
        more = "; `segformer predict --slide` reads a TIFF of any size" if kind == "image" else ""
        raise InputError(f"{name}: not a readable {kind} ({first_line(error)}){more}") from None
    except Exception as error:  # Pillow's readers raise anything for a broken file
        known = dict.fromkeys((*formats, "HEIC", "AVIF") if formats[: len(_FORMATS)] == _FORMATS else formats)
        reason = f"none of {', '.join(known)}" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise InputError(f"{name}: not a readable {kind} ({reason})") from None


def image_formats(source: Path | BinaryIO) -> tuple[str, ...]:
    """Pillow's names of the formats that an image may have; HEIF and AVIF where the file's head claims to be such.

    Args:
        source: a file, or a file object at its begin.

    Raises:
        InputError: such a file, and its reader is not installed.
    """
    if isinstance(source, Path) and not source.is_file():
        return _FORMATS
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            head = file.read(_BRANDS)
    except OSError:  # `open_picture` says why
        return _FORMATS
    if not isinstance(head, bytes):
        return _FORMATS
    name = source if isinstance(source, Path) else "bytes"
    brands = head[8 : int.from_bytes(head[:4], "big")]
    if head[4:8] != b"ftyp" or not any(brand in brands for brand in (*_HEIC_BRANDS, b"avif")):
        return _FORMATS
    if b"avif" in brands:
        if not features.check("avif"):
            raise InputError(f"{name}: an AVIF file, which Pillow reads from version 11.3: pip install -U Pillow")
        return (*_FORMATS, "AVIF")
    try:
        from pillow_heif import register_heif_opener  # it gives upright pixels, and an EXIF that says so
    except ModuleNotFoundError:
        raise InputError(f"{name}: a HEIC file, for which pillow-heif is needed: pip install pillow-heif") from None
    register_heif_opener()
    return (*_FORMATS, "HEIF")
