"""Reads and counts every mask of a folder before a training spends hours on it, and the pixels for class weights."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from rich.text import Text

from segformer_tf.errors import InputError
from segformer_tf.image import skipped_files
from segformer_tf.labels import IGNORE_ID
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import narrow_table, plain_console
from training.data.folder.manifest import unpack
from training.data.folder.source import LIES_OVER, FolderSource, MaskSummary
from training.data.open import Source
from training.data.same_files import same_files

_SAMPLED = 500  # masks for class weights
_SHOWN = 6  # values of masks, or names of classes, per line
_REMEDY = (
    'give the manifest every color of the palettes (ignored ones under "ignore"), or save the masks as gray PNG of ids'
)


def check_masks(
    train: Source,
    validation: Source,
    *,
    allow_missing: bool = False,
    quiet: bool = False,
    once_read: Callable[[], None] | None = None,
) -> Tally | None:
    """Read and count every mask of two splits of a folder. TFDS data sets are skipped: their values are known.

    Args:
        allow_missing: accept classes that no training mask shows.
        quiet: print nothing.
        once_read: called when every mask could be read, before a refusal of what the manifest says of them.

    Returns:
        The counts of `train`; None for TFDS.

    Raises:
        InputError: a mask that is unreadable, of another size than its image, or with an unknown value; a split that
            is wholly ignored; a class that no training mask shows.
    """
    if not isinstance(train, FolderSource) or not isinstance(validation, FolderSource):
        return None
    tallies, notes = _count((train, validation), quiet=quiet)
    if pairs := same_files(validation.images, train.images):
        notes.append(
            f"leak: {pairs[0][0]} is the same file as {pairs[0][1]} ({len(pairs)} such): scores on {validation.split} "
            "are too high; segformer data check lists them"
        )
    if not quiet:
        plain_console().print(_table(tallies))
    if once_read:
        once_read()
    notes += _missing_notes(*tallies, allow_missing=allow_missing)
    if not quiet:
        print(*notes, sep="\n", end="\n" if notes else "")
    return tallies[0]


def check_split(source: Source) -> list[str]:
    """Read every mask of a split to be scored. TFDS data sets are skipped: their values are known.

    Returns:
        Lines on how masks are read where there were two ways.

    Raises:
        InputError: see `check_masks`, except for missing classes.
    """
    if not isinstance(source, FolderSource):
        return []
    (tally,), notes = _count([source], quiet=False)
    _refuse_ignored(tally)
    return notes


def sampled_pixels(source: Source) -> NDArray[np.int64]:
    """(C,) int64 pixels of each class in 500 masks, evenly spaced, for class weights."""
    count = len(source.labels.names)
    pixels = np.zeros(count, np.int64)
    for i in evenly_spaced(range(len(source)), _SAMPLED):
        pixels += np.bincount(source[i][1].ravel(), minlength=256)[:count]
    return pixels


def classes_shown(source: Source, *, quiet: bool = False) -> NDArray[np.bool_]:
    """(N, C) whether a mask shows a class; all masks are read.

    Raises:
        InputError: see `check_split`.
    """
    if isinstance(source, FolderSource):
        return _count([source], quiet=quiet)[0][0].shown
    shown = np.zeros((len(source), len(source.labels.names)), bool)
    for i in track(range(len(source)), "reading masks", **_bar(quiet)):
        shown[i] = np.bincount(source[i][1].ravel(), minlength=256)[: shown.shape[1]] > 0
    return shown


class Tally:
    """Counts over the masks of a split.

    Attributes:
        pixels, images: (C,) int64 pixels of each class, and masks that show it.
        sampled: (C,) int64, see `sampled_pixels`.
        shown: (N, C) whether a mask shows a class.
        total: all pixels, with ignored ones.
        exif_images: the images that EXIF turns.
    """

    def __init__(self, source: FolderSource) -> None:
        self.source = source
        self.folder = source.folder
        self.pixels, self.images, self.sampled = np.zeros((3, len(source.labels.names)), np.int64)
        self.shown = np.zeros((len(source), len(self.pixels)), bool)
        self.total = 0
        self.exif_images: list[Path] = []
        self._raw: Counter[tuple[str, str]] = Counter()  # pixels by kind, and value or color
        self._sample = set(evenly_spaced(range(len(source)), _SAMPLED))

    def add(self, index: int, mask: MaskSummary) -> None:
        """Count one mask."""
        pixels = np.zeros(256, np.int64)
        np.add.at(pixels, mask.classes, mask.counts)
        classes = pixels[: len(self.pixels)]
        self.pixels += classes
        self.images += classes > 0
        self.shown[index] = classes > 0
        self.total += int(mask.counts.sum()) + mask.hidden
        if index in self._sample:
            self.sampled += classes
        for entry, count in zip(mask.entries.tolist(), mask.counts.tolist(), strict=True):
            if not mask.by_color or (mask.palette is not None and entry >= len(mask.palette)):  # ignored by its value
                kind, text = "values ", str(entry)
            else:
                color = unpack(entry) if mask.palette is None else tuple(mask.palette[entry].tolist())
                kind, text = "colors ", str(color)
            self._raw[kind, text] += count
        if mask.hidden:
            self._raw["", "transparent"] += mask.hidden
        if mask.turn != 1:
            self.exif_images.append(self.source.images[index])

    @property
    def shares(self) -> str:
        """Shares of the raw values, the most frequent first, such as "values 0 (94 %), 255 (6 %)"."""
        parts, last_kind = [], ""
        for (kind, value), count in self._raw.most_common(_SHOWN):
            parts.append(f"{'' if kind == last_kind else kind}{value} ({_percent(count / self.total)})")
            last_kind = kind
        more = len(self._raw) - _SHOWN
        return ", ".join(parts) + (f" and {more} more" if more > 0 else "")

    def remedy(self, name: str, pronoun: str) -> str:
        """What to write into the manifest for a class that no mask shows."""
        if self.source.manifest.ignores_255 and ("values ", str(IGNORE_ID)) in self._raw:
            return f'255 is ignored, as no class has that id: where it is {name}, write "id": 255 for {pronoun}'
        give = "Give"
        if ("", "transparent") in self._raw:
            give = "Transparent pixels are ignored, save the masks without alpha if they count; or give"
        return f"{give} {name} the id or color that its pixels have"


class Palettes:
    """How the palette masks of a data set were read, one by one, see `training.data.folder.manifest.Manifest.reading`.

    Attributes:
        by_color: masks read by color, which values would give other classes.
        by_value: masks read by value, which some colors would give other classes.
    """

    def __init__(self) -> None:
        self.by_color: list[Path] = []
        self.by_value: list[Path] = []
        self._first: dict[int, tuple[tuple[int, ...], Path]] = {}  # by value: its first color, and where
        self._difference = ""  # two colors of one value
        self._ways: dict[bytes, dict[bool, Path]] = {}  # by palette, by whether colors decided

    def add(self, path: Path, mask: MaskSummary) -> None:
        """Note a mask; one without a palette is skipped."""
        if mask.palette is None or mask.other is None:
            return
        differs = ((mask.other != mask.classes) & (mask.other >= 0)).any()
        if differs or mask.by_color:
            (self.by_color if mask.by_color else self.by_value).append(path)
        if mask.by_color or (mask.other < 0).any():
            self._ways.setdefault(mask.palette.tobytes(), {}).setdefault(mask.by_color, path)
        for value in mask.entries[mask.entries < len(mask.palette)].tolist():
            color = tuple(mask.palette[value].tolist())
            first, where = self._first.setdefault(value, (color, path))
            if first != color and not self._difference:
                self._difference = f": value {value} is {first} in {where}, {color} in {path}"

    def notes(self) -> list[str]:
        """Lines for the user.

        Raises:
            InputError: some masks would be read by color and some by value, and wrongly so.
        """
        by_color, by_value, difference = self.by_color, self.by_value, self._difference
        clash = "its palette's colors mean other classes than its values"
        if mixed := [ways for ways in self._ways.values() if len(ways) > 1]:
            raise InputError(
                f"{mixed[0][True]}: {clash}, and in {mixed[0][False]} some colors of the same palette are not the "
                f"manifest's; {_REMEDY}"
            )
        if by_value and (by_color or difference):
            raise InputError(
                f"{by_value[0]}: {clash}, but some are not the manifest's, and palettes differ{difference}; {_REMEDY}"
            )
        if by_color:
            return [
                f"palettes: in {len(by_color)} masks, such as {by_color[0]}, the colors are the manifest's and mean "
                f"other classes than the values: colors decide{'; palettes differ' if difference else ''}{difference}"
            ]
        if by_value:
            return [
                f"palettes: in {len(by_value)} masks, such as {by_value[0]}, some colors mean other classes than the "
                f"values, but not all are the manifest's: values decide; where colors are right, {_REMEDY}"
            ]
        if difference and any(False in ways for ways in self._ways.values()):
            return [f"palettes differ{difference}; values decide, as some colors are not the manifest's"]
        return []


def _count(sources: Sequence[FolderSource], *, quiet: bool) -> tuple[list[Tally], list[str]]:
    """Count the masks of each split; lines on how palettes and EXIF are read, and on files that are not."""
    tallies, palettes = [Tally(source) for source in sources], Palettes()
    work = [(tally, i) for tally in tallies for i in range(len(tally.source))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        masks = pool.map(lambda item: item[0].source.summary(item[1]), work)
        for (tally, i), mask in track(zip(work, masks, strict=True), "checking masks", len(work), **_bar(quiet)):
            tally.add(i, mask)
            palettes.add(tally.source.masks[i], mask)
    notes = palettes.notes()
    for folder in dict.fromkeys(source.folder / "images" for source in sources):
        if skipped := skipped_files([folder]):
            notes.append(f"{folder}: {skipped}")
    if images := [path for tally in tallies for path in tally.exif_images]:
        exif = sources[0].manifest.exif
        why = f'as "exif": "{exif}" says' if exif else "as their sizes tell"
        notes.append(
            f"EXIF turns {len(images)} photographs, such as {images[0]}; masks lie over "
            f"{LIES_OVER[exif or 'apply']}, {why}"
        )
    return tallies, notes


def _bar(quiet: bool) -> Any:
    """How `track` shows progress."""
    console = plain_console(stderr=True)
    return {"console": console, "transient": True, "disable": quiet or not console.is_terminal}


def _table(tallies: Sequence[Tally]) -> Table:
    """Each class's share of a split's pixels, and how many masks show it."""
    titles = [title for tally in tallies for title in (f"{tally.source.split}, %", "images")]
    table = narrow_table(("class",), titles)
    rows: list[list[str | Text]] = [[name] for name in tallies[0].source.labels.names]
    ignored: list[str | Text] = [Text("ignored", style="italic")]
    for tally in tallies:
        for row, pixels, images in zip(rows, tally.pixels, tally.images, strict=True):
            row += [_share(pixels / tally.total), str(images)]
        ignored += [_share(1 - tally.pixels.sum() / tally.total), ""]
    if any(tally.pixels.sum() < tally.total for tally in tallies):
        rows.append(ignored)
    for row in rows:
        table.add_row(*row)
    return table


def _missing_notes(train: Tally, validation: Tally, *, allow_missing: bool) -> list[str]:
    """A line on classes that no training mask shows; raises InputError where they are not allowed."""
    for tally in (train, validation):
        _refuse_ignored(tally)
    names = train.source.labels.names
    missing = [i for i in range(len(names)) if not train.pixels[i]]
    if not missing:
        return []
    text = ", ".join(f"{names[i]} ({_ids(train.source, i)})" for i in missing[:_SHOWN])
    text += f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    if shown := [names[i] for i in missing if validation.pixels[i]]:
        text += f", {validation.source.split} alone shows {', '.join(shown[:_SHOWN])}"
    line = f"{train.folder}: no mask shows {text}; its masks hold {train.shares}"
    if allow_missing:
        return [line]
    name = names[missing[0]]
    raise InputError(f"{line}. {train.remedy(name, name)} in dataset.json, or give --allow-missing-classes")


def _refuse_ignored(tally: Tally) -> None:
    if not tally.pixels.any():
        remedy = tally.remedy("a class", "that class")
        raise InputError(
            f"{tally.folder}: every pixel is ignored; its masks hold {tally.shares}. {remedy} in dataset.json"
        )


def _ids(source: FolderSource, index: int) -> str:
    ids = np.flatnonzero(source.manifest.class_of_value == index)
    return f"id{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"


def _share(share: float) -> str:
    return f"{100 * share:.2f}" if share else "-"


def _percent(share: float) -> str:
    percent = 100 * share
    if 99.5 <= percent < 100:
        return "> 99 %"
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"
