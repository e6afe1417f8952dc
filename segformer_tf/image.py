"""How an image is read, for validation, calibration, evaluation and prediction alike.

EXIF-upright RGB, stretched to the model's size by Pillow's bilinear filter (antialiased).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segformer_tf.bit_depth import is_deep, largest_value, to_8_bits
from segformer_tf.errors import InputError
from segformer_tf.picture_file import image_formats, open_picture

Pixels = NDArray[np.uint8]
Reader = Callable[[slice, slice], Pixels]  # rows and columns of a picture, both with ends, to (rows, columns, 3)
ImageLike = str | Path | Image.Image | Pixels | bytes | bytearray | memoryview | BinaryIO

_KINDS = 8  # of files that are skipped, named
_STRIP_BYTES = 1 << 16
# Where Pillow finds EXIF before a PNG's pixels, and how far from the end EXIF behind the pixels may begin.
_EXIF_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
_EXIF_BYTES = (1 << 16) + 64
DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".ppm")  # formats that can have more than 8 bits
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".heic", ".heif", ".avif")


def load_image(image: ImageLike, *, bits: int | None = None) -> Pixels:
    """Read an image as upright RGB.

    Args:
        image: a path, a PIL image, the bytes of an image file or a file object open for reading them, or an
            (H, W, 3) uint8 array of **RGB**: OpenCV's arrays are BGR, which cannot be detected, so pass
            ``image[..., ::-1]`` for those. Grayscale, palette, CMYK and 16-bit pictures become 8-bit RGB; an alpha
            channel is dropped.
        bits: bits in use, 8 to 16, in a picture of more than 8 bits; their upper 8 are taken. None takes 16.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        InputError: not a readable image, one whose reader is not installed (HEIC, AVIF), one of more than 179 million
            pixels (Pillow's limit), one with values beyond `bits`, a URL, an array of another shape or dtype, or
            something else.
    """
    if isinstance(image, np.ndarray):
        return _checked(image)
    if isinstance(image, Image.Image):
        return _upright_rgb(image, bits)
    if isinstance(image, bytes | bytearray | memoryview):
        image = BytesIO(image)
    elif isinstance(image, str | os.PathLike):
        refuse_url(image)
        image = Path(image)
    elif not hasattr(image, "read"):
        raise InputError(
            "expected an image: a path, a PIL image, an array, or the bytes of a file or a file object. "
            f"Received: {type(image).__name__}"
        )
    else:
        image = _seekable(image)
    with open_picture(image, formats=image_formats(image), kind="image") as opened:
        return _upright_rgb(opened, bits)


def _seekable(file: BinaryIO) -> BinaryIO:
    """The file at its begin, or a pipe's bytes."""
    try:
        file.seek(0)
        return file
    except (AttributeError, OSError, ValueError):
        content = file.read()
        return BytesIO(content) if isinstance(content, bytes) else file


@dataclass(frozen=True)
class Head:
    """The head of an image file.

    Attributes:
        stored: (height, width) of the pixels in the file.
        turn: EXIF orientation, 1 (none) to 8.
    """

    stored: tuple[int, int]
    turn: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) that `load_image` gives."""
        height, width = self.stored
        return (width, height) if self.turn in (5, 6, 7, 8) else (height, width)


def read_head(path: Path) -> Head:
    """Read an image file's head; raises InputError if Pillow cannot."""
    with open_picture(path, formats=image_formats(path), kind="image") as opened:
        width, height = opened.size
        if opened.format == "TIFF":  # Pillow has turned its size already
            width, height = (int(opened.getexif()[tag]) for tag in (0x0100, 0x0101))
        elif opened.format == "PNG" and not _EXIF_KEYS & opened.info.keys():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _EXIF_BYTES))
                if b"eXIf" not in file.read():  # Pillow would decode the pixels to look behind them
                    return Head((height, width), 1)
        turn = opened.getexif().get(0x0112, 1)
        return Head((height, width), turn if turn in range(1, 9) else 1)


def refuse_url(path: str | Path) -> None:
    """Raises InputError for a URL, also in a `Path`."""
    if re.match("[a-z][a-z0-9+.-]+:/", str(path)):
        raise InputError(f"{path}: a URL; expected a file, so download it first, or give its bytes in Python")


def _checked(image: NDArray[Any]) -> Pixels:
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and 0 not in image.shape:
        return image
    hint = ""
    if image.dtype.kind == "f":
        hint = "; for floats 0..1 that is (image * 255).round().astype(np.uint8)"
    elif image.ndim == 2:
        hint = "; for grayscale that is np.stack([image] * 3, axis=-1)"
    elif image.ndim == 3 and image.shape[2] == 4:
        hint = "; without alpha that is image[..., :3]"
    elif image.ndim == 4:
        hint = "; one image at a time"
    raise InputError(f"expected an RGB array (H, W, 3) of uint8{hint}. Received: {image.dtype} {image.shape}")


def is_deep_file(path: Path) -> bool:
    """`is_deep` for a file, from its head; raises InputError if Pillow cannot read it."""
    with open_picture(path, formats=image_formats(path), kind="image") as opened:
        return is_deep(opened)


def largest_value_of(path: Path) -> int:
    """`largest_value` for a file; raises InputError if Pillow cannot read it."""
    with open_picture(path, formats=image_formats(path), kind="image") as opened:
        return largest_value(opened)


def _upright_rgb(image: Image.Image, bits: int | None) -> Pixels:
    deep = is_deep(image)  # before it is loaded, while that can be seen
    scaled = image.format == "PPM"  # Pillow scales its values to 0..65535
    image.load()  # the EXIF data of a PNG may be behind its pixels
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)  # a copy in any case
    if image.mode == "F":
        raise InputError("pixels are 32-bit floats of no known range; expected 8 or 16 bits")
    if not image.mode.startswith("I"):
        if deep and bits not in (None, 16):
            raise InputError(
                f"16 bits per channel in color, of which only the upper 8 can be read, so not {bits} (--bits); "
                "save it with 8 bits per channel, or train with --bits 16 on the upper 8"
            )
        return _rgb(image)
    gray = np.asarray(image)
    if gray.min() < 0 or gray.max() > 65535:
        raise InputError(f"pixels are {gray.min()}..{gray.max()}; expected 8 or 16 bits")
    if deep and bits is not None:
        gray = to_8_bits(gray, bits)
    elif image.mode != "I" or scaled or gray.max() > 255:  # 32-bit containers hold 8 bits as well
        gray = gray >> 8  # `convert` would clip; the high byte, as Pillow takes of 16-bit RGB
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)


def _rgb(image: Image.Image) -> Pixels:
    """``np.asarray(image.convert("RGB"))``, computed in strips to save three copies of a large photograph."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_BYTES // (3 * image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)).convert("RGB"))
    return pixels


def fit_image(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Stretch (H, W, 3) uint8 to `size` (height, width) by Pillow's antialiased bilinear filter."""
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder in name order, without hidden ones (``._a.jpg`` of macOS)."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def skipped_files(paths: Iterable[str | Path]) -> str:
    """What `list_images` skips in the folders among `paths`, hidden files aside, as "3 files skipped: .txt 2, .mp4 1".

    Returns:
        "" where nothing is skipped.
    """
    files = [file for path in paths if os.path.isdir(path) for file in os.scandir(path) if file.name[0] != "."]
    suffixes = ((os.path.splitext(file.name)[1].lower(), file) for file in files)
    skipped = Counter(suffix for suffix, file in suffixes if suffix not in IMAGE_SUFFIXES and file.is_file())
    if not skipped:
        return ""
    kinds = [f"{suffix or 'without a suffix'} {count}" for suffix, count in skipped.most_common()]
    named = ", ".join(kinds[:_KINDS]) + (", …" if len(kinds) > _KINDS else "")
    return f"{skipped.total()} file{'s' * (skipped.total() != 1)} skipped: {named}"


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Image files among `paths` and in the folders among them, one level deep, in name order.

    Raises:
        InputError: a path that does not exist, or no image at all.
    """
    places, images = [Path(path) for path in paths], list[Path]()
    for path in places:
        if path.is_dir():
            images += images_in(path)
        elif path.exists():
            images.append(path)
        else:
            refuse_url(path)
            raise InputError(f"{path}: no such file or folder")
    if not images:
        raise InputError(f"no image ({', '.join(IMAGE_SUFFIXES)}) in {', '.join(map(str, places))}")
    return images
