"""Masks as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segformer_tf.image import Pixels
from segformer_tf.labels import IGNORE_ID, Color, Labels

WRONG: Color = (230, 25, 25)  # of errors


def colorize(mask: NDArray[np.integer], labels: Labels) -> Pixels:
    """(H, W) class ids to (H, W, 3) uint8 RGB in the labels' colors; `IGNORE_ID` is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(labels.colors)] = labels.colors
    return table[mask]


def overlay(image: Pixels, mask: NDArray[np.integer], labels: Labels, *, alpha: float = 0.55) -> Pixels:
    """The mask's colors over the image, (H, W, 3) uint8; `IGNORE_ID` shows the image as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) class ids.
        labels: their colors.
        alpha: share of the color, 0..1.
    """
    mixed = np.round(image * np.float32(1 - alpha) + colorize(mask, labels) * np.float32(alpha)).astype(np.uint8)
    ignored = mask == IGNORE_ID
    mixed[ignored] = image[ignored]
    return mixed


def errors(image: Pixels, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> Pixels:
    """The image in gray, wrong pixels in `WRONG`, ignored ones black: (H, W, 3) uint8."""
    picture = faded(image)
    picture[prediction != truth] = WRONG
    picture[truth == IGNORE_ID] = 0
    return picture


def faded(image: Pixels) -> Pixels:
    """The image in gray of little contrast, to draw colors on: a new (H, W, 3) uint8, 64..191."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB")) // np.uint8(2) + np.uint8(64)


def class_ids(mask: NDArray[np.integer]) -> list[int]:
    """Classes that occur in a mask, the largest first, without `IGNORE_ID`."""
    ids, counts = np.unique(mask, return_counts=True)
    return [int(i) for i in ids[np.argsort(-counts, kind="stable")] if i != IGNORE_ID]


def with_legend(picture: Image.Image, labels: Labels, ids: Sequence[int], *, size: int | None = None) -> Image.Image:
    """A picture above the names and colors of some classes, in rows of its width, or of the longest name's if wider.

    Args:
        picture: RGB.
        labels: of the classes.
        ids: the classes to name.
        size: of the text, in pixels; None for what suits the picture's.
    """
    size = size or max(12, max(picture.size) // 45)
    font = ImageFont.load_default(size)
    names = [" ".join(labels.names[i].split())[:60] for i in ids]
    widths = [round(font.getlength(name)) + 3 * size for name in names]  # with a square and gaps
    width = max(picture.width, *widths) if widths else picture.width
    places, x, row = [], 0, 0
    for each in widths:
        if x + each > width:
            x, row = 0, row + 1
        places.append((x, picture.height + size // 2 + row * size * 3 // 2))
        x += each
    height = places[-1][1] + 2 * size if places else picture.height
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for i, name, (x, y) in zip(ids, names, places, strict=True):
        square = (x + size // 2, y + size // 8, x + size * 3 // 2, y + size * 9 // 8)
        draw.rectangle(square, fill=labels.colors[i], outline="black")
        draw.text((x + 2 * size, y + size * 5 // 8), name, fill="black", font=font, anchor="lm")
    return canvas
