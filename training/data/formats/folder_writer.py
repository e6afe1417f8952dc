"""Draws the masks of an export and writes them with their images and a manifest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import category

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from segformer_tf.errors import InputError, first_line
from segformer_tf.labels import IGNORE_ID, Color, Labels
from segformer_tf.terminal import plain_console
from training.data.folder.manifest import Exif
from training.data.folder.write import write_manifest
from training.data.formats.export import BACKGROUND, Export, Picture
from training.data.formats.shapes import draw
from training.data.masks import Mask, read_mask

Link = Literal["hard", "symlink", "copy"]
Unlabeled = Literal["background", "ignore"]


@dataclass(frozen=True)
class Place:
    """Where a picture goes: a split, and a name in it without suffix."""

    split: str
    name: str


@dataclass(frozen=True)
class Written:
    """What a folder holds.

    Attributes:
        names: of its classes.
        pixels: by split, (C + 1,) pixels of each class and, last, of those ignored.
        images: by split, their number.
    """

    names: tuple[str, ...]
    pixels: dict[str, NDArray[np.int64]]
    images: dict[str, int]


def write_folder(
    root: Path,
    export: Export,
    places: Sequence[Place],
    *,
    name: str,
    link: Link,
    unlabeled: Unlabeled,
    exif: Exif | None,
) -> Written:
    """Write an export into an empty folder.

    Args:
        root: the folder.
        export: its pictures have sizes, see `training.data.formats.placement.check_images`.
        places: of its pictures, in their order.
        name: of the data set.
        link: how an image comes into the folder; "hard" copies what the disk cannot link.
        unlabeled: what pixels in no shape are: a class, which is left out if it has no pixel, or ignored.
        exif: for the manifest.

    Raises:
        InputError: a shape or mask that does not fit, or fewer than two classes.
    """
    own = export.decode is None and unlabeled == "background" and BACKGROUND not in export.names
    labels = _labels(export, [BACKGROUND, *export.names] if own else export.names)
    rest = IGNORE_ID
    ids = np.full(256, IGNORE_ID, np.uint8)  # by label
    ids[: len(export.names)] = np.arange(len(export.names)) + own
    if own:
        rest = len(export.names)  # a label that no shape has
        ids[rest] = 0
    elif unlabeled == "background" and BACKGROUND in export.names:
        rest = export.names.index(BACKGROUND)
    counts = _write_pictures(root, export, places, rest, ids, link)
    total = np.sum(list(counts.values()), axis=0)
    kept = [i for i in range(len(labels.names)) if i or not own or total[0]]
    drawn = [i for i in kept if export.decode or labels.names[i] != BACKGROUND]
    _check(export, [labels.names[i] for i in kept], int(total[drawn].sum()))
    rows = [(i, labels.names[i], labels.colors[i]) for i in kept]
    write_manifest(root, rows, name=name, license=export.license, exif=exif)
    return Written(
        tuple(labels.names[i] for i in kept),
        {split: count[[*kept, IGNORE_ID]] for split, count in counts.items()},
        {split: sum(place.split == split for place in places) for split in counts},
    )


def _labels(export: Export, names: Sequence[str]) -> Labels:
    """`names` with the colors of the export, and others where it has none."""
    try:
        for name in names:
            if not name.strip() or {category(letter) for letter in name} & {"Cc", "Cs"}:  # terminals obey the first
                raise InputError(f"a class name is one line without control characters. Received: {name[:60]!r}")
        colors = {export.names[label]: color for label, color in export.colors.items()}
        for name, color in zip(names, Labels.named(names).colors, strict=True):
            if name not in colors:
                colors[name] = (0, 0, 0) if name == BACKGROUND else _free(color, set(colors.values()))
        return Labels(tuple(names), tuple(colors[name] for name in names))
    except InputError as error:
        raise InputError(f"{export.pictures[0].where} and others: {error}") from None


def _free(color: Color, taken: set[Color]) -> Color:
    """A color that is not in use: `color`, or one near it."""
    red, green, blue = color
    while (red, green, blue) in taken:
        blue = (blue + 37) % 256
    return red, green, blue


def _check(export: Export, names: Sequence[str], pixels: int) -> None:
    """Raises InputError where there is nothing to tell apart."""
    where = f"{export.pictures[0].where} and others"
    if not pixels:
        reasons = "; ".join(f"{count} {reason}" for reason, (count, _) in export.dropped.reasons.items())
        raise InputError(f"{where}: nothing covers a pixel that counts{reasons and f' ({reasons})'}")
    if len(names) < 2:
        hint = "" if export.decode else "; without --unlabeled ignore, pixels in no shape are the background"
        raise InputError(
            f"{where}: one class, {names[0]!r}, and nothing else: a network of one class says it of every pixel{hint}"
        )


def _write_pictures(
    root: Path, export: Export, places: Sequence[Place], rest: int, ids: NDArray[np.uint8], link: Link
) -> dict[str, NDArray[np.int64]]:
    """Write images, and masks of the ids of labels; (256,) pixels of each id by split."""
    counts = {
        place.split: np.zeros(256, np.int64) for place in sorted(places, key=lambda place: place.split != "train")
    }
    for split in counts:
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)

    def write(picture: Picture, place: Place) -> NDArray[np.int64]:
        mask = Image.fromarray(ids[_mask(picture, export, rest)])
        mask.save(root / place.split / "masks" / f"{place.name}.png")
        _bring(picture.image, root / place.split / "images" / f"{place.name}{picture.image.suffix.lower()}", link)
        return np.array(mask.histogram(), np.int64)

    console = plain_console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(write, picture, place) for picture, place in zip(export.pictures, places, strict=True)]
        try:
            bar = track(jobs, "drawing masks", console=console, transient=True, disable=not console.is_terminal)
            for job, place in zip(bar, places, strict=True):
                counts[place.split] += job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return counts


def _mask(picture: Picture, export: Export, rest: int) -> Mask:
    try:
        if export.decode is None:
            assert picture.size is not None
            return draw(picture.size, picture.shapes, rest)
        assert picture.mask is not None
        return export.decode(read_mask(picture.mask))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(picture.where) else f"{picture.where}: {error}") from None


def _bring(image: Path, to: Path, link: Link) -> None:
    image = image.resolve()
    if link == "symlink":
        to.symlink_to(image)
        return
    if link == "hard":
        try:
            os.link(image, to)
            return
        except FileExistsError:
            raise
        except OSError:  # another disk, or one without links
            pass
    try:
        shutil.copyfile(image, to)
    except OSError as error:
        raise InputError(f"{image}: cannot be copied ({first_line(error)})") from None
