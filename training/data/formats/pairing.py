"""Which mask belongs to which image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segformer_tf.errors import InputError
from training.data.formats.export import Picture
from training.data.formats.source import Source
from training.data.masks import MASK_SUFFIXES


def mask_files(source: Source) -> list[Path]:
    """Files that may be masks."""
    return source.with_suffix(*MASK_SUFFIXES)


def by_key(files: Iterable[tuple[str, Path]], what: str) -> dict[str, Path]:
    """Files by key; raises InputError where two have the same."""
    table: dict[str, Path] = {}
    for key, file in files:
        if table.setdefault(key, file) != file:
            raise InputError(f"{file}: the same {what} as {table[key]}; which one is it?")
    return table


def pair(
    images: Mapping[str, Path], masks: Mapping[str, Path], source: Source, *, every_image: bool = True
) -> list[Picture]:
    """A picture for each mask.

    Args:
        images, masks: by key.
        source: states the splits, by folders.
        every_image: whether an image without a mask is refused.

    Raises:
        InputError: no pair at all, a mask without image, or an image without mask.
    """
    if lone := sorted(masks.keys() - images.keys()):
        raise InputError(
            f"{masks[lone[0]]}: mask without image ({len(lone)} of {len(masks)}); --images says where they lie"
        )
    if every_image and (lone := sorted(images.keys() - masks.keys())):
        raise InputError(f"{images[lone[0]]}: image without mask ({len(lone)} of {len(images)})")
    if not masks:
        raise InputError(f"{source.root}: no mask ({', '.join(MASK_SUFFIXES)})")
    return [
        Picture(images[key], str(mask), mask=mask, split=source.split_of(mask) or source.split_of(images[key]))
        for key, mask in sorted(masks.items())
    ]
