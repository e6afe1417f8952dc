"""Opens images without labels: any folders, segmentation data folders, or ``tfds:NAME``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from segformer_tf.errors import InputError, counted
from segformer_tf.image import IMAGE_SUFFIXES, Pixels, load_image
from segformer_tf.sampling import evenly_spaced
from training.data.folder.manifest import Manifest
from training.data.folder.manifest_file import MANIFESTS, find_manifest
from training.data.folder.splits import OTHER_NAME, split_files, splits_in
from training.data.open import Split

# Folders of masks and the like, in small letters: those of data sets that `segformer data import` knows, and alike.
NO_IMAGES = (
    *("mask", "masks", "label", "labels", "annotation", "annotations", "ann_dir", "gt", "gtfine", "gtcoarse"),
    *("ground_truth", "groundtruth", "segmentationclass", "segmentationobject"),
)
HELD_OUT, MOST_HELD_OUT = 20, 500  # without a validation split: one image of so many, and at most so many in all


class ImageSource(Split[Pixels], Protocol):
    """A split of images; ``source[i]`` is (H, W, 3) uint8 RGB.

    Attributes:
        license: the terms of the images in a few words, or "".
    """

    license: str

    @property
    def notes(self) -> Sequence[str]:
        """What was taken, a line for each folder."""


@dataclass
class ImageFiles:
    """Image files; see `ImageSource`."""

    name: str
    images: list[Path]
    bits: int | None = None
    license: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        return load_image(self.images[index], bits=self.bits)


def open_images(places: Sequence[str], *, train_split: str, val_split: str) -> tuple[ImageSource, ImageSource]:
    """Open images to learn from, and others to validate on.

    Of a segmentation data folder, and of any folder with a folder of the name `train_split`, these are its two splits,
    never its test split. Of another folder, they are all images in it at any depth. Where nothing is there to validate
    on, every 20th image is held out.

    Args:
        places: folders or their manifests, or one ``tfds:NAME`` alone.
        train_split, val_split: names.

    Raises:
        InputError: no such folder, data set or split, less than two images, a data folder inside of another folder, or
            manifests that contradict each other.
    """
    if places[0].startswith("tfds:"):
        from training.data.tfds.source import TfdsImages  # TFDS takes seconds to import

        name = places[0].removeprefix("tfds:")
        train, validation = TfdsImages(name, train_split), TfdsImages(name, val_split)
        for source, split in ((train, train_split), (validation, val_split)):
            if not len(source):
                raise InputError(f"{places[0]}: split {split} is empty")
        return train, validation
    opened = [_open_folder(Path(place), train_split, val_split) for place in places]
    bits = {each.bits for pair in opened for each in pair if each.bits}
    if len(bits) > 1:
        raise InputError(f"the folders' manifests say {' and '.join(map(str, sorted(bits)))} bits; expected one number")
    both = [_together([pair[i] for pair in opened], max(bits, default=None)) for i in (0, 1)]
    learned = set(both[0].images)
    both[1].images = [path for path in both[1].images if path not in learned]  # of folders in one another
    if not both[1].images:
        raise InputError(f"{', '.join(places)}: the images to validate on are all among those to learn from")
    return both[0], both[1]


def _together(parts: Sequence[ImageFiles], bits: int | None) -> ImageFiles:
    stated = any(part.license for part in parts)  # then what is not stated must show
    terms = (f"trained on {part.name}: {part.license or 'terms not stated'}" for part in parts)
    return ImageFiles(
        parts[0].name,
        list(dict.fromkeys(path for part in parts for path in part.images)),
        bits,
        "; ".join(dict.fromkeys(terms)) if stated else "",
        [note for part in parts for note in part.notes],
    )


def _open_folder(place: Path, train_split: str, val_split: str) -> tuple[ImageFiles, ImageFiles]:
    if not place.exists():
        raise InputError(f"{place}: no such folder")
    path = find_manifest(place)
    manifest = Manifest.read(path) if path.is_file() else None
    root = (manifest.root if manifest else place).resolve()
    left_out = ""
    if splits_in(root):
        cut = manifest.cut if manifest else None
        names = dict.fromkeys((val_split, OTHER_NAME.get(val_split, val_split)))
        train = split_files(root, train_split, cut).images
        has_validation = cut or any(name in splits_in(root) for name in names)
        validation = split_files(root, val_split, cut).images if has_validation else []
    else:
        inner = root / train_split
        train, left_out = _images_below(inner if inner.is_dir() else root)
        beside = [root / name for name in dict.fromkeys((val_split, OTHER_NAME.get(val_split, val_split)))]
        validation = next((_images_below(path)[0] for path in beside if path.is_dir()), []) if inner.is_dir() else []
    if len(train) < 2:
        raise InputError(
            f"{root}: expected two images or more ({', '.join(IMAGE_SUFFIXES)}). Received: {len(train)}{left_out}"
        )
    own = f"{counted(len(validation), 'image')} of its own"
    if not validation:
        validation = evenly_spaced(train, max(1, min(MOST_HELD_OUT, len(train) // HELD_OUT)))
        kept = set(validation)
        train = [path for path in train if path not in kept]
        own = f"{counted(len(validation), 'image')} held out"
    note = f"{place}: {counted(len(train), 'image')} to learn from, {own} to validate on{left_out}"
    name = manifest.name if manifest else root.name
    bits, terms = (manifest.bits, manifest.license) if manifest else (None, "")
    return ImageFiles(name, train, bits, terms, [note]), ImageFiles(name, validation, bits, terms)


def _images_below(root: Path) -> tuple[list[Path], str]:
    """The image files in a folder at any depth, in the order of their paths; and the folders left out, in words.

    Hidden files and folders are skipped, and folders are not followed by links.

    Raises:
        InputError: a folder that cannot be read, or a data folder inside, whose terms and test split would be lost.
    """
    images, left_out = [], []
    for folder, inner, files in os.walk(root, onerror=_refuse):
        if Path(folder) != root and (sign := _sign_of_data(inner, files)):
            raise InputError(
                f"{root}: {Path(folder).relative_to(root).as_posix()} in it holds {sign}, as a data folder does, which "
                "has terms and a test split of its own: give each such folder itself, the first as --data and others "
                "as --more-data"
            )
        left_out += [Path(folder, name).relative_to(root).as_posix() for name in inner if name.lower() in NO_IMAGES]
        inner[:] = sorted(name for name in inner if name[0] != "." and name.lower() not in NO_IMAGES)
        images += [Path(folder, name) for name in files if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES)]
    more = f" and {len(left_out) - 3} more" if left_out[3:] else ""
    return sorted(images), f"; left out, as masks: {', '.join(sorted(left_out)[:3])}{more}" if left_out else ""


def _sign_of_data(folders: Sequence[str], files: Sequence[str]) -> str:
    """What shows that a folder of these is one to `segformer train` on, or a split of one, in words, or ""."""
    manifest = next((name for name in MANIFESTS if name in files), "")
    return manifest or ("images/ and masks/" if {"images", "masks"} <= set(folders) else "")


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror})")
