"""The story of an import: recognize, read, compare with the images, cut into splits, draw and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segformer_tf.errors import InputError, counted
from segformer_tf.files import new_folder
from segformer_tf.labels import IGNORE_ID
from training.data.folder.manifest import Exif
from training.data.folder.source import LIES_OVER
from training.data.formats.export import BACKGROUND, Export, Picture
from training.data.formats.folder_writer import Link, Place, Unlabeled, Written, write_folder
from training.data.formats.pairs import Naming
from training.data.formats.placement import check_images, unique_names
from training.data.formats.recognize import FormatName, candidates, read, recognize
from training.data.formats.source import open_source
from training.data.formats.split import SHARES, cut, groups_of, states_splits, straddling, to_shares

_SHOWN = 8  # names in a line


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How to import; see the verb for what they mean.

    Attributes:
        format: None recognizes it.
        images: folder of the images, if they lie elsewhere.
        split: shares of train, val and perhaps test, see `to_shares`; None keeps what the export states.
        seed, group: of the split.
        link: how an image comes into the new folder.
        unlabeled: what pixels in no shape are.
        exif: what annotations lie over, where sizes do not tell.
        naming: of masks, in pairs.
        names: of classes, where masks have none.
    """

    format: FormatName | None = None
    images: Path | None = None
    split: Sequence[float] | None = None
    seed: int = 0
    group: str | None = None
    link: Link = "hard"
    unlabeled: Unlabeled = "background"
    exif: Exif | None = None
    naming: Naming = field(default_factory=Naming)
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        format: of the export.
        written: what the new folder holds.
        notes: lines for the user.
        warnings: lines that matter for training.
    """

    format: FormatName
    written: Written
    notes: list[str]
    warnings: list[str]


def import_export(path: Path, out: Path, options: ImportOptions) -> Report:
    """Write an export as a folder of ours; nothing is written where something does not fit.

    Args:
        path: folder, annotation file or .zip.
        out: the new folder.
        options: see `ImportOptions`.

    Raises:
        InputError: whatever does not fit, with its file and field.
    """
    if out.exists():
        raise InputError(f"{out}: exists already; give another --out, or remove it")
    if options.split is not None:
        options = replace(options, split=to_shares(options.split))
    if options.link == "symlink" and path.suffix.lower() == ".zip":
        raise InputError("--link symlink: the images of a .zip are unpacked for a moment only; unpack it first")
    with open_source(path, options.images, out) as source:
        format = options.format or recognize(source, options.naming)
        export = read(source, format, options.naming, options.names)
        if not export.pictures:
            others = [name for name in candidates(source) if name != format]
            looks = f"; it looks like {others[0]}: --format {others[0]}" if others else ""
            raise InputError(f"{source.path}: no image with annotations of {format}{looks}")
        export.pictures.sort(key=lambda picture: source.relative(picture.image))
        exif = check_images(export, options.exif)
        relative = [str(source.relative(picture.image).with_suffix("")) for picture in export.pictures]
        splits, notes, warnings = _split(export.pictures, groups_of(relative, options.group), options)
        names = unique_names(splits, relative, [picture.image for picture in export.pictures])
        places = [Place(split, name) for split, name in zip(splits, names, strict=True)]
        ways = {"link": options.link, "unlabeled": options.unlabeled}
        with new_folder(out) as part:
            written = write_folder(part, export, places, name=out.name, exif=exif, **ways)  # type: ignore[arg-type]
    drawn = {picture.image for picture in export.pictures}
    if export.decode is None and (rest := [image for image in source.images if image not in drawn]):
        notes.append(f"left out: {counted(len(rest), 'image')} that no annotation names; the first is {rest[0]}")
    if exif:
        notes.append(f"EXIF turns some photographs; annotations lie over {LIES_OVER[exif]}")
    notes = [source.readable(note) for note in (*export.notes, *notes, *_pixel_notes(export, written))]
    return Report(format, written, notes, [*warnings, *_missing(written)])


def _split(
    pictures: Sequence[Picture], groups: Sequence[str], options: ImportOptions
) -> tuple[list[str], list[str], list[str]]:
    """The split of each picture, where it comes from, and what is wrong with it."""
    stated, notes, warnings = [picture.split for picture in pictures], list[str](), list[str]()
    if options.split is None and states_splits(stated):
        splits = [split or "" for split in stated]
        notes.append("the splits are those of the export")
        if "val" not in splits:
            share = SHARES[1] / (SHARES[0] + SHARES[1])
            places = [i for i, split in enumerate(splits) if split == "train"]
            halves = cut([groups[i] for i in places], (1 - share, share), options.seed)
            for i, split in zip(places, halves, strict=True):
                splits[i] = split
            notes.append(f"val, which it has not, is cut from train by --seed {options.seed}")
        torn = straddling(groups, splits) if options.group else []
        if torn:
            shown = torn[0].replace("\0", " ")
            warnings.append(
                f"in several of its splits: {counted(len(torn), 'group')}, such as {shown!r}; --split cuts anew"
            )
        return splits, notes, warnings
    if options.split is None and any(stated):
        notes.append("the export states a split of some images alone: all are cut anew")
    notes.append(f"cut into splits by --seed {options.seed}")
    return cut(groups, options.split or SHARES, options.seed), notes, warnings


def _pixel_notes(export: Export, written: Written) -> list[str]:
    """Lines on pixels in no shape, and on what was left out."""
    notes = []
    total = sum(int(count.sum()) for count in written.pixels.values())
    if export.decode is None and BACKGROUND in written.names:
        place = written.names.index(BACKGROUND)
        share = sum(int(count[place]) for count in written.pixels.values()) / total
        notes.append(f"background: {_percent(share)} of the pixels; --unlabeled ignore leaves out those in no shape")
    elif ignored := sum(int(count[-1]) for count in written.pixels.values()):
        notes.append(f"ignored: {_percent(ignored / total)} of the pixels (mask value {IGNORE_ID})")
    for reason, (count, first) in export.dropped.reasons.items():
        notes.append(f"left out: {count} x {reason}; the first is {first}")
    return notes


def _missing(written: Written) -> list[str]:
    """A line on classes that no mask of train shows."""
    missing = np.flatnonzero(written.pixels["train"][:-1] == 0).tolist()
    if not missing:
        return []
    names = [written.names[i] for i in missing]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
    elsewhere = any(count[missing].any() for count in written.pixels.values())
    seed = "another --seed may; or " if elsewhere else ""
    return [
        f"no mask of train shows {shown}; {seed}take them out of dataset.json, or train with --allow-missing-classes"
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.1g} %"
