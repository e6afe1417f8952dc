"""Small folder data sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLORS = ([0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255])
ROWS = [{"id": i, "name": f"c{i}", "color": color} for i, color in enumerate(COLORS[:3])]
EVERY = np.array([[0, 1, 2], [0, 0, 1]], np.uint8)  # a mask that shows each class of ROWS


def write_folder(
    root: Path,
    masks: Sequence[Any],
    *,
    val: Sequence[Any] | None = None,
    rows: Sequence[dict] = ROWS,
    suffix: str = ".png",
    image_size: tuple[int, int] | None = None,
    orientation: int = 1,
    **keys: Any,
) -> Path:
    """A folder of train and val, whose masks are arrays or pictures; without `val` it has the masks of train."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for gray, (split, own) in enumerate({"train": masks, "val": masks if val is None else val}.items()):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for i, mask in enumerate(own):
            picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
            picture.save(root / split / "masks" / f"{i}{suffix}")
            size = image_size or (picture.height, picture.width)
            image = Image.fromarray(np.full((*size, 3), 50 * gray, np.uint8))
            image.save(root / split / "images" / f"{i}.jpg", exif=exif)
    (root / "dataset.json").write_text(json.dumps({"classes": list(rows), **keys}))
    return root


def palette(indices: np.ndarray, colors: Sequence[Sequence[int]]) -> Image.Image:
    """A palette picture."""
    picture = Image.fromarray(indices)
    picture.putpalette([v for color in colors for v in color])
    return picture
