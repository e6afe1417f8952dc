"""Reads every mask of a folder once before hours are spent, counts what they hold, and tells it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from rich.text import Text

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from segformer_tf.terminal import plain_console
from training.data.class_counts import sampled_indices
from training.data.folder.manifest import Manifest, unpacked
from training.data.folder.palettes import Palettes
from training.data.folder.source import DRAWN, FolderSource, Look
from training.data.source import Source

_SHOWN = 6  # values of masks, or names of classes, that a line holds


class Tally:
    """What the masks of a split hold.

    Attributes:
        pixels, images: of each class, (C,) int64: its pixels, and the masks that show it.
        sampled: as `pixels`, of the masks that class weights are counted on.
        total: pixels, with those that do not count.
        turned: the images that EXIF turns.
    """

    def __init__(self, source: FolderSource) -> None:
        self.source = source
        self.pixels, self.images, self.sampled = np.zeros((3, len(source.labels.names)), np.int64)
        self.total = 0
        self.turned: list[Path] = []
        self._raw: Counter[tuple[str, str]] = Counter()  # by kind, and value or colour
        self._sample = set(sampled_indices(len(source)))

    def add(self, index: int, look: Look) -> None:
        """Count a sample."""
        pixels = np.zeros(256, np.int64)
        np.add.at(pixels, look.meaning, look.counts)
        classes = pixels[: len(self.pixels)]
        self.pixels += classes
        self.images += classes > 0
        self.total += int(look.counts.sum()) + look.hidden
        if index in self._sample:
            self.sampled += classes
        for entry, count in zip(look.entries.tolist(), look.counts.tolist(), strict=True):
            if not look.by_color or (look.palette is not None and entry >= len(look.palette)):  # ignored by its value
                kind, told = "values ", str(entry)
            elif look.palette is None:
                kind, told = "colours ", str(unpacked(entry))
            else:
                kind, told = "colours ", str(tuple(look.palette[entry].tolist()))
            self._raw[kind, told] += count
        if look.hidden:
            self._raw["", "transparent"] += look.hidden
        if look.turn != 1:
            self.turned.append(self.source.images[index])

    @property
    def shows_spare(self) -> bool:
        """Whether masks hold 255."""
        return ("values ", str(IGNORE_ID)) in self._raw

    @property
    def hidden(self) -> bool:
        """Whether masks have transparent pixels."""
        return ("", "transparent") in self._raw

    @property
    def holds(self) -> str:
        """The raw values, the most frequent first, such as "values 0 (94 %), 255 (6 %)"."""
        told, before = [], ""
        for (kind, value), count in self._raw.most_common(_SHOWN):
            told.append(f"{'' if kind == before else kind}{value} ({_percent(count / self.total)})")
            before = kind
        more = len(self._raw) - _SHOWN
        return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def check_masks(
    train: Source, validation: Source, *, allow_missing: bool = False, quiet: bool = False
) -> NDArray[np.int64] | None:
    """Read and count every mask of two splits of a folder; a TFDS data set has known values, and is left.

    Args:
        allow_missing: let classes pass that no training mask shows.
        quiet: print nothing.

    Returns:
        (C,) int64 pixels of each class in the training masks that class weights are counted on; None for TFDS.

    Raises:
        InputError: a mask that is unreadable, of another size than its image or holds an unknown value; a split that
            is wholly ignored; a class that no training mask shows.
    """
    if not isinstance(train, FolderSource) or not isinstance(validation, FolderSource):
        return None
    tallies, notes = _counted((train, validation), quiet=quiet)
    if not quiet:
        plain_console().print(_table(tallies))
    notes += _turn_notes(tallies)
    notes += _check_classes(*tallies, allow_missing=allow_missing)
    if not quiet:
        print(*notes, sep="\n", end="\n" if notes else "")
    return tallies[0].sampled


def check_split(source: Source) -> list[str]:
    """Read every mask of a split that is to be scored; a TFDS data set has known values, and is left.

    Returns:
        Lines on how masks are read, where that could be done in two ways.

    Raises:
        InputError: as `check_masks` does, but for classes that are missing.
    """
    if not isinstance(source, FolderSource):
        return []
    tallies, notes = _counted([source], quiet=False)
    _refuse_ignored(tallies[0])
    return notes + _turn_notes(tallies)


def _counted(sources: Sequence[FolderSource], *, quiet: bool) -> tuple[list[Tally], list[str]]:
    """What masks hold, and lines on how their palettes are read."""
    tallies, palettes = [Tally(source) for source in sources], Palettes()
    work = [(tally, i) for tally in tallies for i in range(len(tally.source))]
    progress = plain_console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = zip(work, pool.map(lambda each: each[0].source.look(each[1]), work), strict=True)
        bar: Any = {"console": progress, "transient": True, "disable": quiet or not progress.is_terminal}
        for (tally, i), look in track(looks, "checking masks", len(work), **bar):
            tally.add(i, look)
            palettes.add(tally.source.masks[i], look)
    return tallies, palettes.notes()


def _table(tallies: Sequence[Tally]) -> Table:
    """Each class's share of a split's pixels, and how many masks show it."""
    table = Table("class")
    for tally in tallies:
        table.add_column(f"{tally.source.split}, %", justify="right")
        table.add_column("images", justify="right")
    for i, name in enumerate(tallies[0].source.labels.names):
        cells = ((_share(t.pixels[i] / t.total), str(t.images[i])) for t in tallies)
        table.add_row(name, *(cell for pair in cells for cell in pair))
    if any(t.pixels.sum() < t.total for t in tallies):
        cells = ((_share(1 - t.pixels.sum() / t.total), "") for t in tallies)
        table.add_row(Text("ignored", style="italic"), *(cell for pair in cells for cell in pair))
    return table


def _check_classes(train: Tally, validation: Tally, *, allow_missing: bool) -> list[str]:
    """Notes on classes that are missing; raises InputError where that is not allowed."""
    root, names = train.source.root, train.source.labels.names
    for tally in (train, validation):
        _refuse_ignored(tally)
    missing = [i for i in range(len(names)) if not train.pixels[i]]
    if not missing:
        return []
    told = ", ".join(f"{names[i]} ({_ids(train.source.manifest, i)})" for i in missing[:_SHOWN])
    told += f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    if shown := [names[i] for i in missing if validation.pixels[i]]:
        told += f", {validation.source.split} alone shows {', '.join(shown[:_SHOWN])}"
    line = f"{root / train.source.split}: no mask shows {told}; its masks hold {train.holds}"
    if allow_missing:
        return [line]
    name = names[missing[0]]
    raise InputError(f"{line}. {_way_out(train, name, name)} in dataset.json, or give --allow-missing-classes")


def _refuse_ignored(tally: Tally) -> None:
    if not tally.pixels.any():
        raise InputError(
            f"{tally.source.root / tally.source.split}: every pixel is ignored; its masks hold {tally.holds}. "
            f"{_way_out(tally, 'a class', 'that class')} in dataset.json"
        )


def _way_out(tally: Tally, name: str, it: str) -> str:
    """What to write into the manifest."""
    if tally.source.manifest.spare and tally.shows_spare:
        return f'255 is ignored, as no class has that id: where it is {name}, write "id": 255 for {it}'
    hidden = (
        "Transparent pixels are ignored, save the masks without alpha if they count; or give"
        if tally.hidden
        else "Give"
    )
    return f"{hidden} {name} the id or colour that its pixels have"


def _ids(manifest: Manifest, index: int) -> str:
    ids = manifest.ids[index]
    return f"id {ids[0]}" if len(ids) == 1 else f"ids {', '.join(map(str, ids))}"


def _turn_notes(tallies: Sequence[Tally]) -> list[str]:
    """A line on photographs that EXIF turns, and which way was taken."""
    turned = [path for tally in tallies for path in tally.turned]
    if not turned:
        return []
    drawn = tallies[0].source.manifest.exif
    why = f'as "exif": "{drawn}" says' if drawn else "as their sizes tell"
    return [
        f"EXIF turns {len(turned)} photographs, such as {turned[0]}; masks lie over {DRAWN[drawn or 'apply']}, {why}"
    ]


def _share(share: float) -> str:
    return f"{100 * share:.2f}" if share else "-"


def _percent(share: float) -> str:
    percent = 100 * share
    if 99.5 <= percent < 100:
        return "> 99 %"
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"
