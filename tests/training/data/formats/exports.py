"""Small exports written by hand to each format's description, and masks drawn without the code under test."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.path import Path as Outline
from PIL import Image

from training.data.formats.importer import ImportOptions, Report, import_export

SIZE = 24, 32  # height, width
# Corners lie off the centers of pixels, so that no rule for borders matters.
ROOF = [[2.3, 3.2], [20.7, 2.1], [25.2, 12.4], [11.9, 18.8], [4.1, 10.3]]
WALL = [[14.2, 8.3], [29.8, 9.7], [27.1, 22.2], [10.4, 20.9]]
DOOR = [[16.3, 12.2], [22.7, 12.9], [21.2, 21.1]]


def image(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    """A picture of noise, each with other pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(list(path.name.encode())).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def write(path: Path, content: Any) -> Path:
    """A text file, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def mask_file(path: Path, mask: np.ndarray, palette: Sequence[Sequence[int]] | None = None) -> Path:
    """A mask of values, or of colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(mask)
    if palette is not None:
        picture.putpalette([v for color in palette for v in color])
    picture.save(path)
    return path


def covered(points: Sequence[Sequence[float]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) bool, the pixels whose centers matplotlib finds within an outline."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    centers = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], -1)
    return Outline([*points, points[0]], closed=True).contains_points(centers).reshape(size)


def truth(*shapes: tuple[str, Any], rest: str = "background", size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) class names: outlines, or (H, W) bool, one over the other."""
    names = np.full(size, rest, "<U20")
    for name, shape in shapes:
        names[shape if isinstance(shape, np.ndarray) else covered(shape, size)] = name
    return names


def run(source: Path, out: Path, **options: Any) -> tuple[Report, dict[str, np.ndarray]]:
    """Import, and the class names of every mask that was written, by split and stem."""
    options.setdefault("split", (0.5, 0.5))
    report = import_export(source, out, ImportOptions(**options))
    manifest = json.loads((out / "dataset.json").read_text("utf-8"))
    names = np.full(256, "ignored", "<U20")
    for row in manifest["classes"]:
        names[row["id"]] = row["name"]
    masks = {}
    for path in sorted(out.glob("*/masks/*.png")):
        with Image.open(path) as opened:
            masks[f"{path.parts[-3]}/{path.stem}"] = names[np.asarray(opened)]
        assert list(path.parents[1].glob(f"images/{path.stem}.*"))
    return report, masks


def by_stem(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.split("/")[1]: mask for key, mask in masks.items()}


def archive(folder: Path, path: Path) -> Path:
    """A .zip of a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                opened.write(file, file.relative_to(folder))
    return path


def labelme(shapes: Sequence[dict], name: str, size: tuple[int, int] = SIZE, **keys: Any) -> dict:
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [{"group_id": None, "flags": {}, **shape} for shape in shapes],
        "imagePath": name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        **keys,
    }


def polygon(label: str, points: Sequence[Sequence[float]]) -> dict:
    return {"label": label, "points": points, "shape_type": "polygon"}


def coco(annotations: Sequence[dict], names: Sequence[str] = ("a.jpg", "b.jpg"), size: tuple[int, int] = SIZE) -> dict:
    return {
        "images": [{"id": 7 + i, "file_name": n, "height": size[0], "width": size[1]} for i, n in enumerate(names)],
        "annotations": [{"id": i, "image_id": 7, "iscrowd": 0, **row} for i, row in enumerate(annotations)],
        "categories": [{"id": 30, "name": "wall"}, {"id": 4, "name": "roof"}],
    }


def cvat(body: str, names: Sequence[str] = ("a.jpg", "b.jpg"), size: tuple[int, int] = SIZE, labels: str = "") -> str:
    """`body` is within the first image."""
    labels = labels or "".join(
        f"<label><name>{name}</name><color>{color}</color><attributes/></label>"
        for name, color in (("roof", "#ff0000"), ("wall", "#00ff7f"))
    )
    images = "".join(
        f'<image id="{i}" name="{name}" width="{size[1]}" height="{size[0]}">{"" if i else body}</image>'
        for i, name in enumerate(names)
    )
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{images}</annotations>'


def flat(points: Sequence[Sequence[float]]) -> list[float]:
    return [v for point in points for v in point]


def pairs_text(points: Sequence[Sequence[float]]) -> str:
    return ";".join(f"{x},{y}" for x, y in points)
