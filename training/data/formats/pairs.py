"""Two folders, of images and of masks, or one folder with both; splits may be inside or around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from training.data.folder.manifest import Manifest
from training.data.folder.mask_classes import find_classes, palette_colors, read_entries
from training.data.formats.export import Classes, Export, Picture, decode_values
from training.data.formats.pairing import by_key, mask_files, pair
from training.data.formats.source import Source

_REMEDY = "name them: values by --labels FILE, colors by a class_dict.csv (name,r,g,b) beside the folders"
_MASK_WORDS = {"mask", "masks", "label", "labels", "annotation", "annotations", "annot", "ann", "gt", "seg"}
_IMAGE_WORDS = {"image", "images", "img", "imgs", "photos", "rgb"}


@dataclass(frozen=True)
class Naming:
    """What a mask's name has beyond its image's.

    Attributes:
        prefix, suffix: before and after; both "" if names are the same.
    """

    prefix: str = ""
    suffix: str = ""

    def image_stem(self, stem: str) -> str | None:
        """The image's name for a mask's; None for what is no mask."""
        if len(stem) > len(self.prefix + self.suffix) and stem.startswith(self.prefix) and stem.endswith(self.suffix):
            return stem[len(self.prefix) : len(stem) - len(self.suffix)]
        return None

    def __bool__(self) -> bool:
        return bool(self.prefix or self.suffix)


def recognize(source: Source, naming: Naming) -> bool:
    """Whether there is a mask, by its folder or its name."""
    return any(_mask_key(source, file, naming) for file in mask_files(source))


def read(source: Source, naming: Naming, names: Sequence[str] | None = None) -> Export:
    """Pair files by name.

    Args:
        source: the files.
        naming: of the masks.
        names: of the classes, by value; None finds out which values or colors occur.

    Raises:
        InputError: files that are not in pairs, palettes that differ, and without names, masks that
            `training.data.folder.mask_classes` refuses.
    """
    pictures = pair_files(source, naming)
    masks = [picture.mask for picture in pictures if picture.mask]
    if names is None:
        found = find_classes(masks, source.root, remedy=_REMEDY)
        manifest = Manifest.of({"classes": found.classes, "ignore": found.ignore}, source.root)
        own, colors = manifest.labels.names, dict(enumerate(manifest.labels.colors))
        notes = [*found.notes, "write their names into dataset.json, or give --labels FILE"]
        return Export(pictures, list(own), colors, decode=manifest.mask, notes=notes)
    palette_colors(read_entries(masks), source.root, "values mean the same in all masks, or --labels cannot name them")
    classes = Classes()
    labels = {value: classes.add(name) for value, name in enumerate(names)}
    if len(classes.names) < len(names):
        raise InputError("--labels: a name comes twice")
    return Export(pictures, classes.names, decode=decode_values(labels, {IGNORE_ID}, "--labels"))


def pair_files(source: Source, naming: Naming) -> list[Picture]:
    """A picture for each mask; raises InputError where files are not in pairs."""
    masks = [(key, file) for file in mask_files(source) if (key := _mask_key(source, file, naming))]
    taken = {file for _, file in masks}
    images = [("/".join(_folders(source, file)), file) for file in source.images if file not in taken]
    return pair(by_key(images, "name"), by_key(masks, "name"), source)


def _mask_key(source: Source, file: Path, naming: Naming) -> str | None:
    """The key of a mask's image; None for what is no mask.

    Where masks are named apart, their name decides; or else one of their folders.
    """
    if naming:
        stem = naming.image_stem(source.relative(file).stem)
        return None if stem is None else "/".join(_folders(source, file, stem))
    words = [_word(part)[1] for part in source.relative(file).parts[:-1]]
    return "/".join(_folders(source, file)) if any(word in _MASK_WORDS for word in words) else None


def _folders(source: Source, file: Path, stem: str = "") -> list[str]:
    """The folders of a file, without words for images and masks, and `stem`, or its own."""
    path = source.relative(file)
    return [*filter(None, (_word(part)[0] for part in path.parts[:-1])), stem or path.stem]


def _word(folder: str) -> tuple[str, str]:
    """A folder's name without a word for images or masks, and that word: train_labels is train and labels."""
    name = folder.lower()
    if name in _MASK_WORDS | _IMAGE_WORDS:
        return "", name
    if match := re.fullmatch(r"(img|ann)_dir", name):  # mmsegmentation
        return "", match[1]
    match = re.fullmatch(r"(.*?)[_-]?(masks?|labels?|annot|annotations|images?|imgs?)", name)
    return (match[1], match[2]) if match else (folder, "")
