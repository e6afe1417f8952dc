"""The image contract, one for training's validation, calibration, evaluation and prediction.

EXIF-upright RGB, stretched to the model's size by Pillow's bilinear filter (antialiased).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segformer_tf.errors import InputError

Pixels = NDArray[np.uint8]
ImageLike = str | Path | Image.Image | Pixels

# JPEG covers MPO, which many phones write. Left out: readers that run other programs (EPS) or serve no photograph.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
_STRIP_BYTES = 1 << 16
# Where Pillow finds a PNG's EXIF before its pixels, and how far from its end what stands behind them begins.
_EXIF_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
_EXIF_BYTES = (1 << 16) + 64
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def load_image(image: ImageLike) -> Pixels:
    """Read an image as the contract wants it.

    Args:
        image: a path, a PIL image, or an (H, W, 3) uint8 RGB array. Grey, palette, CMYK and 16-bit pictures become
            8-bit RGB; an alpha channel is dropped.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        InputError: not a readable image, one of more than 179 million pixels (Pillow's limit), or an array of
            another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"expected an RGB array (H, W, 3) of uint8. Received: {image.dtype} {image.shape}")
        return image
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    with open_picture(Path(image), formats=_FORMATS, kind="image") as opened:
        return _upright_rgb(opened)


@dataclass(frozen=True)
class Head:
    """What an image's file says before its pixels.

    Attributes:
        stored: (height, width) of the pixels in the file.
        turn: EXIF's orientation, 1 (none) to 8.
    """

    stored: tuple[int, int]
    turn: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) that `load_image` gives."""
        height, width = self.stored
        return (width, height) if self.turn in (5, 6, 7, 8) else (height, width)


def read_head(path: Path) -> Head:
    """Size and turn of an image, from its file's head; raises InputError as `load_image` does."""
    with open_picture(path, formats=_FORMATS, kind="image") as opened:
        width, height = opened.size
        if opened.format == "TIFF":  # whose size Pillow has turned already
            width, height = (int(opened.getexif()[tag]) for tag in (0x0100, 0x0101))
        elif opened.format == "PNG" and not _EXIF_KEYS & opened.info.keys():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _EXIF_BYTES))
                if b"eXIf" not in file.read():  # to look for EXIF behind the pixels, Pillow would decode them
                    return Head((height, width), 1)
        turn = opened.getexif().get(0x0112, 1)
        return Head((height, width), turn if turn in range(1, 9) else 1)


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) that `load_image` will give; raises InputError as it does."""
    return read_head(path).upright


@contextmanager
def open_picture(path: Path, *, formats: tuple[str, ...], kind: str) -> Iterator[Image.Image]:
    """A picture file, open; whatever goes wrong with it becomes one line that calls it a `kind`.

    Raises:
        InputError: no such file, or one that Pillow cannot read as one of `formats`.
    """
    if not path.is_file():  # nor a folder, nor a pipe, which would wait for ever
        raise InputError(f"{path}: no such {kind}")
    try:
        with Image.open(path, formats=formats) as opened:
            yield opened
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a readable {kind} ({reason})") from None


def _upright_rgb(image: Image.Image) -> Pixels:
    image.load()  # the EXIF data of a PNG may be behind its pixels
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)  # a copy in any case
    if image.mode == "F":
        raise InputError("pixels are 32-bit floats of no known range; expected 8 or 16 bits")
    if not image.mode.startswith("I"):
        return _rgb(image)
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise InputError(f"pixels are {grey.min()}..{grey.max()}; expected 8 or 16 bits")
    if image.mode != "I" or grey.max() > 255:  # 32-bit containers hold 8 bits as well
        grey = grey >> 8  # `convert` would clip; the high byte, as Pillow takes of 16-bit RGB
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _rgb(image: Image.Image) -> Pixels:
    """As ``np.asarray(image.convert("RGB"))``, in strips: three copies less of a large photograph."""
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
    """Image files of a folder in name order; hidden ones (``._a.jpg`` of macOS) are none."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Image files among `paths`, folders searched one level deep as `images_in`, in name order.

    Raises:
        InputError: a path that does not exist, or no image at all.
    """
    given = [Path(p) for p in paths]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += images_in(path)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"no image ({', '.join(IMAGE_SUFFIXES)}) in {', '.join(map(str, given))}")
    return found
