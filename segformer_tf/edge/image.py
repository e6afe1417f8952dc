"""The image contract, one for training's validation, calibration, evaluation and prediction.

EXIF-upright RGB, stretched to the model's size by Pillow's bilinear filter (antialiased).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segformer_tf.errors import InputError

Pixels = NDArray[np.uint8]
ImageLike = str | Path | Image.Image | Pixels

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def load_image(image: ImageLike) -> Pixels:
    """Read an image as the contract wants it.

    Args:
        image: a path, a PIL image, or an (H, W, 3) uint8 RGB array.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        InputError: not a readable image, or an array of another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"expected an RGB array (H, W, 3) of uint8. Received: {image.dtype} {image.shape}")
        return image
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    try:
        with Image.open(image) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{image}: no such image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{image}: not a readable image ({error})") from None


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
