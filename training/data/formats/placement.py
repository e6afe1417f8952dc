"""Annotations over their images: sizes, EXIF turns, images that come twice, and names in the new folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

from rich.progress import track

from segformer_tf.errors import InputError
from segformer_tf.image import Head, read_head
from segformer_tf.terminal import plain_console
from training.data.folder.manifest import Exif
from training.data.folder.source import LIES_OVER
from training.data.formats.export import Export, Picture
from training.data.formats.fields import shorten


def check_images(export: Export, exif: Exif | None) -> Exif | None:
    """Compare pictures with their images, and fill in sizes that the export does not state.

    Args:
        export: with one picture or more, which are replaced.
        exif: what annotations lie over, as the user says.

    Returns:
        What annotations of photographs that EXIF turns lie over; None where it turns none.

    Raises:
        InputError: one image twice, another size than that of the image, or a photograph that EXIF
        turns
            where nothing tells how it was labeled.
    """
    seen: dict[Path, str] = {}
    for picture in export.pictures:
        if picture.image in seen:
            raise InputError(f"{picture.where}: its image {picture.image} is that of {seen[picture.image]}, too")
        seen[picture.image] = picture.where
    console = plain_console(stderr=True)
    bar: Any = {"console": console, "transient": True, "disable": not console.is_terminal}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = pool.map(_sizes, export.pictures)
        heads, sizes = zip(*track(pairs, "looking at images", len(export.pictures), **bar), strict=True)
    turned = [i for i, head in enumerate(heads) if head.turn != 1]
    tell = {i: way for i in turned if (way := _tells(sizes[i], heads[i]))}
    ways = {way: i for i, way in reversed(tell.items())}  # the first of each
    if len(ways) > 1:
        upright, stored = (export.pictures[ways[way]].where for way in ("apply", "ignore"))
        raise InputError(
            f"EXIF turns photographs, and annotations lie over {LIES_OVER['apply']} in {upright}, over "
            f"{LIES_OVER['ignore']} in {stored}"
        )
    over: Exif | None = next(iter(ways), None) or exif or export.exif
    if turned and not over:
        raise InputError(
            f"{export.pictures[turned[0]].image}: EXIF turns this photograph, and its size does not tell how it was "
            f"labeled: give --exif apply where annotations lie over {LIES_OVER['apply']}, --exif ignore where over "
            f"{LIES_OVER['ignore']}"
        )
    if exif and ways and exif not in ways:
        other = export.pictures[next(iter(ways.values()))].where
        raise InputError(f"--exif {exif}: the size in {other} says {next(iter(ways))}")
    for i, (picture, size, head) in enumerate(zip(export.pictures, sizes, heads, strict=True)):
        expected = head.stored if over == "ignore" else head.upright
        if size not in (None, expected):
            raise InputError(
                f"{picture.where}: is for {shorten(size)}, its image {picture.image} is {expected} (height, width)"
            )
        export.pictures[i] = replace(picture, size=expected)
    return over if turned else None


def _sizes(picture: Picture) -> tuple[Head, tuple[int, int] | None]:
    """The head of an image, and the size of what was drawn on it."""
    head = read_head(picture.image)
    return head, picture.size if picture.mask is None else read_head(picture.mask).stored


def _tells(size: tuple[int, int] | None, head: Head) -> Exif | None:
    """What the size of an annotation says about a photograph that EXIF turns."""
    if size is None or head.stored == head.upright:
        return None
    return "apply" if size == head.upright else "ignore" if size == head.stored else None


def unique_names(splits: Sequence[str], relative: Sequence[str], images: Sequence[Path]) -> list[str]:
    """A name for each image: its own, with folders where another of its split has the same, with its suffix if need be.

    Names that differ in the case of letters alone, or in how letters are composed, are the same, as on some disks.

    Args:
        splits: of each image.
        relative: where each lies, without suffix.
        images: the files.
    """
    names = [image.stem for image in images]
    for longer in (
        [text.replace("/", "_") for text in relative],
        [f"{text.replace('/', '_')}_{image.suffix[1:].lower()}" for text, image in zip(relative, images, strict=True)],
    ):
        count = Counter(map(_place, splits, names))
        names = [
            long if count[_place(split, name)] > 1 else name
            for split, name, long in zip(splits, names, longer, strict=True)
        ]
    taken = set[tuple[str, str]]()
    for i, (split, name) in enumerate(zip(splits, names, strict=True)):
        number = 1
        while _place(split, names[i]) in taken:
            number += 1
            names[i] = f"{name}_{number}"
        taken.add(_place(split, names[i]))
    return names


def _place(split: str, name: str) -> tuple[str, str]:
    return split, normalize("NFC", name).casefold()
