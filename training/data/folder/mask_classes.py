"""Classes and colors of masks that no manifest explains, from what they hold."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Color, Labels, bit_reversed_color
from segformer_tf.terminal import plain_console
from training.data.folder.manifest import unpack
from training.data.masks import read_mask
from training.data.steps import Steps, steps

_MOST_COLORS = 4096  # of one mask, before it is called a photograph
_SHOWN = 6


@dataclass(frozen=True)
class Entries:
    """What one mask holds.

    Attributes:
        path: of the mask.
        colors: whether entries are colors 0xRRGGBB, not values 0..255.
        present: every entry of its visible pixels.
        solid: those that fill 3x3 pixels somewhere.
        palette: (N, 3) uint8 colors of the values, or None.
        steps: between values; None of colors.
    """

    path: Path
    colors: bool
    present: frozenset[int]
    solid: frozenset[int]
    palette: NDArray[np.uint8] | None
    steps: Steps | None


@dataclass(frozen=True)
class Found:
    """What is assumed of masks.

    Attributes:
        classes: rows of a manifest.
        ignore: its values or colors that do not count.
        notes: a line on each decision.
        shown: the entries of each mask, in their order.
    """

    classes: list[dict[str, Any]]
    ignore: list[Any]
    notes: list[str]
    shown: list[frozenset[int]]


def find_classes(masks: Sequence[Path], where: Path, *, remedy: str, quiet: bool = False) -> Found:
    """Every value or color that occurs is a class.

    255 is ignored where it does not go on with the others: in 0, 1, 2, 255 it is, in 0, 255 and in 0, 85, 170, 255 it
    is not.

    Args:
        masks: one or more.
        where: names them in errors.
        remedy: what to do instead, in errors.
        quiet: show no progress.

    Raises:
        InputError: masks that cannot be read, of two kinds, smoothed along borders, that seem to number instances, or
            of one class or more than 255; palettes that differ.
    """
    read = read_entries(masks, quiet=quiet)
    entries = sorted(frozenset[int]().union(*(mask.present for mask in read)))
    if not entries:
        raise InputError(f"{where}: every pixel of its masks is transparent")
    kinds = {mask.colors: mask.path for mask in read}
    if len(kinds) > 1:
        raise InputError(f"{where}: masks of two kinds: {kinds[True]} holds colors, {kinds[False]} values; {remedy}")
    _refuse_smoothed(read, remedy)
    _refuse_narrow(read, remedy)
    _refuse_instances(where, read, remedy)
    ignored, note = _ignored(entries, colors=True in kinds)
    rows = _rows(where, [entry for entry in entries if entry not in ignored], read, remedy)
    kind = "colors" if True in kinds else "values"
    names = ", ".join(map(_plain, rows[:_SHOWN]))
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    notes = [f"{len(rows)} classes, by the {kind} of {len(masks)} masks: {names}{more}", *note]
    ignore = [list(unpack(entry)) if True in kinds else entry for entry in ignored]
    return Found(rows, ignore, notes, [mask.present for mask in read])


def read_entries(masks: Sequence[Path], *, quiet: bool = False) -> list[Entries]:
    """Read masks; raises InputError for one that cannot be read, or a photograph."""
    console = plain_console(stderr=True)
    bar: Any = {"console": console, "transient": True, "disable": quiet or not console.is_terminal}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(track(pool.map(_read, masks), "looking for classes", len(masks), **bar))


def _read(path: Path) -> Entries:
    raw = read_mask(path)
    codes = raw.values
    if colors := codes.ndim == 3:
        codes = codes.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    visible = codes if raw.hidden is None else codes[~raw.hidden]
    present = np.unique(visible)
    if len(present) > _MOST_COLORS:
        raise InputError(f"{path}: {len(present)} colors, as a photograph has; a mask has one for each class")
    shown = frozenset(present.tolist())
    solid = shown & frozenset(_solid(codes).tolist())
    return Entries(path, colors, shown, solid, raw.palette, None if colors else steps(codes))


def _solid(codes: NDArray[Any]) -> NDArray[Any]:
    """The entries of which some 3x3 pixels consist."""
    rows = (codes[:, :-2] == codes[:, 1:-1]) & (codes[:, 1:-1] == codes[:, 2:])
    core = codes[1:-1, 1:-1]
    same = rows[:-2] & rows[1:-1] & rows[2:] & (core == codes[:-2, 1:-1]) & (core == codes[2:, 1:-1])
    return np.unique(core[same])


def _refuse_smoothed(read: Sequence[Entries], remedy: str) -> None:
    """Raises InputError where most entries lie between others, in value and in place, as smoothing leaves them."""
    solid = frozenset[int]().union(*(mask.solid for mask in read))
    seen = Counter(entry for mask in read for entry in mask.present - solid)
    if not solid or not seen:
        return
    least, most = (limit([unpack(entry) for entry in solid], axis=0) for limit in (np.min, np.max))
    between = [e for e in seen if (least <= unpack(e)).all() and (unpack(e) <= most).all()]
    if len(between) < 3 or len(between) <= len(solid):
        return
    example = next(mask for mask in read if mask.present & set(between))
    few = sorted(example.present & set(between))[:_SHOWN]
    shown = ", ".join(str(unpack(entry) if example.colors else entry) for entry in few)
    raise InputError(
        f"{example.path}: looks smoothed: {len(between)} {'colors' if example.colors else 'values'} of the masks, such "
        f"as {shown}, stand along borders alone, nowhere 3x3 pixels at once; save masks without antialiasing and "
        f"resize them by nearest neighbor, not through JPEG. If these are classes, {remedy}"
    )


def _refuse_narrow(read: Sequence[Entries], remedy: str) -> None:
    """Raises InputError where values go over into each other as smoothing leaves them, though none is new by it."""
    if not (smooth := [mask for mask in read if mask.steps and mask.steps.smoothed]) or len(smooth) < len(read) / 2:
        return
    raise InputError(
        f"{smooth[0].path}: looks smoothed: between two values stands, a few pixels wide, a third between theirs, in "
        f"{len(smooth)} of {len(read)} masks; resize masks by nearest neighbor. If these are classes, {remedy}"
    )


def _refuse_instances(where: Path, read: Sequence[Entries], remedy: str) -> None:
    """Raises InputError where each mask numbers what it shows: 1, 2, 3 … to another end in each."""
    ends = set()
    for mask in read:
        own = mask.present - {0}
        if own != set(range(1, len(own) + 1)):
            return
        ends.add(len(own))
    if len(ends) >= 3 and max(ends) >= 10:
        raise InputError(
            f"{where}: each mask holds the values 1, 2, 3 … to an end of its own, {min(ends)} to {max(ends)}, as where "
            f"they number objects; a mask has one value for each class. If these are classes, {remedy}"
        )


def _ignored(entries: Sequence[int], *, colors: bool) -> tuple[list[int], list[str]]:
    """The entry that stands for "ignore", if one does, and a line on it."""
    grays = [unpack(entry)[0] for entry in entries] if colors else list(entries)
    if grays[-1] != IGNORE_ID or (colors and any(len(set(unpack(entry))) > 1 for entry in entries)):
        return [], []
    others = grays[:-1]
    steps = np.diff(grays)
    if len(others) < 2 or (abs(steps - steps.mean()) <= 1).all():
        return [], []
    return [entries[-1]], [f"{IGNORE_ID} is ignored, as it does not go on with the others"]


def _rows(where: Path, entries: Sequence[int], read: Sequence[Entries], remedy: str) -> list[dict[str, Any]]:
    """The classes of a manifest, a row for each entry."""
    if not 2 <= len(entries) <= IGNORE_ID:
        shown = f": {entries[0]}" if len(entries) == 1 else ""
        raise InputError(f"{where}: expected masks of 2 to {IGNORE_ID} classes. They hold {len(entries)}{shown}")
    names = [f"#{entry:06x}" if read[0].colors else f"class {entry}" for entry in entries]
    if len(entries) == 2 and entries[0] == 0:
        names = ["background", "object"]
    named = Labels.named(names).colors
    distinct = [(0, 0, 0) if name == "background" else color for name, color in zip(names, named, strict=True)]
    if read[0].colors:
        own = [unpack(entry) for entry in entries]
        if all(len(set(color)) == 1 for color in own):  # grays, to be shown in colors
            lists = [[list(c)] if c == d else [list(d), list(c)] for c, d in zip(own, distinct, strict=True)]
            return [{"id": own[i][0], "name": names[i], "color": lists[i]} for i in range(len(own))]
        return [{"id": i, "name": names[i], "color": list(color)} for i, color in enumerate(own)]
    by_value = palette_colors(read, where, remedy)
    palettes = [by_value[entry] for entry in entries if entry in by_value]
    if len(set(palettes)) < len(entries):
        palettes = _apart_from_palettes(distinct, read)
    return [{"id": entry, "name": names[i], "color": list(palettes[i])} for i, entry in enumerate(entries)]


def palette_colors(read: Sequence[Entries], where: Path, remedy: str) -> dict[int, Color]:
    """The color that palettes give each value that occurs; raises InputError where they differ."""
    colors: dict[int, dict[Color, Path]] = defaultdict(dict)
    for mask in read:
        if mask.palette is not None:
            for entry in mask.present & set(range(len(mask.palette))):
                red, green, blue = mask.palette[entry].tolist()
                colors[entry].setdefault((red, green, blue), mask.path)
    for entry, own in colors.items():
        if len(own) > 1:
            (one, here), (two, there) = list(own.items())[:2]
            raise InputError(
                f"{where}: palettes differ: value {entry} is {one} in {here} and {two} in {there}; {remedy}"
            )
    return {entry: next(iter(own)) for entry, own in colors.items()}


def _apart_from_palettes(colors: list[Color], read: Sequence[Entries]) -> list[Color]:
    """Colors of which no palette has one, as a manifest's colors can decide how a palette is read."""
    taken = {tuple(color) for mask in read if mask.palette is not None for color in mask.palette.tolist()}
    if not taken & set(colors):
        return colors
    others = (bit_reversed_color(i) for i in range(1, 1 << 16))
    return list(islice((color for color in others if color not in taken), len(colors)))


def _plain(row: dict[str, Any]) -> str:
    name = str(row["name"])
    return name if name.startswith(("class ", "#")) else f"{name} ({row['id']})"
