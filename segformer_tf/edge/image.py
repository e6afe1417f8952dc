"""The image contract, one for training's validation, calibration, evaluation and prediction.

EXIF-upright RGB, stretched to the model's size by Pillow's bilinear filter (antialiased).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segformer_tf.edge.depth import is_deep, largest_value, to_8_bits
from segformer_tf.errors import InputError

Pixels = NDArray[np.uint8]
ImageLike = str | Path | Image.Image | Pixels

# JPEG covers MPO, which many phones write. Left out: readers that run other programs (EPS) or serve no photograph.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
_STRIP_BYTES = 1 << 16
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def load_image(image: ImageLike, *, bits: int | None = None) -> Pixels:
    """Read an image as the contract wants it.

    Args:
        image: a path, a PIL image, or an (H, W, 3) uint8 RGB array. Grey, palette, CMYK and 16-bit pictures become
            8-bit RGB; an alpha channel is dropped.
        bits: how many are used of a picture of more than 8, 8 to 16; their upper 8 are taken. None takes 16.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        InputError: not a readable image, one of more than 179 million pixels (Pillow's limit), one with values beyond
            `bits`, or an array of another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"expected an RGB array (H, W, 3) of uint8. Received: {image.dtype} {image.shape}")
        return image
    if isinstance(image, Image.Image):
        return _upright_rgb(image, bits)
    with open_picture(Path(image), formats=_FORMATS, kind="image") as opened:
        return _upright_rgb(opened, bits)


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) that `load_image` will give, from the file's head; raises InputError as it does."""
    with open_picture(path, formats=_FORMATS, kind="image") as opened:
        told = opened.format != "PNG" or "exif" in opened.info  # a PNG is decoded to look for EXIF behind its pixels
        on_its_side = told and opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return opened.size if on_its_side else (opened.height, opened.width)


def is_deep_file(path: Path) -> bool:
    """`is_deep` of a file, from its head; raises InputError as `load_image` does."""
    with open_picture(path, formats=_FORMATS, kind="image") as opened:
        return is_deep(opened)


def largest_value_of(path: Path) -> int:
    """`largest_value` of a file that is deep; raises InputError as `load_image` does."""
    with open_picture(path, formats=_FORMATS, kind="image") as opened:
        return largest_value(opened)


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


def _upright_rgb(image: Image.Image, bits: int | None) -> Pixels:
    deep = is_deep(image)  # loaded, it does not tell
    image.load()  # the EXIF data of a PNG may be behind its pixels
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)  # a copy in any case
    if image.mode == "F":
        raise InputError("pixels are 32-bit floats of no known range; expected 8 or 16 bits")
    if not image.mode.startswith("I"):
        if deep and bits not in (None, 16):
            raise InputError(
                f"16 bits a channel in colour, of which the upper 8 alone can be read, so not {bits} (--bits); "
                "save it with 8 bits a channel, or train with --bits 16 on the upper 8"
            )
        return _rgb(image)
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise InputError(f"pixels are {grey.min()}..{grey.max()}; expected 8 or 16 bits")
    if deep and bits is not None:
        grey = to_8_bits(grey, bits)
    elif image.mode != "I" or grey.max() > 255:  # 32-bit containers hold 8 bits as well
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


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Image files among `paths`, folders searched one level deep, in name order.

    Raises:
        InputError: a path that does not exist, or no image at all.
    """
    given = [Path(p) for p in paths]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"no image ({', '.join(IMAGE_SUFFIXES)}) in {', '.join(map(str, given))}")
    return found
