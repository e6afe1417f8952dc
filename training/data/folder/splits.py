"""Where the images and masks of a split lie in a folder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from segformer_tf.errors import InputError, counted
from segformer_tf.image import IMAGE_SUFFIXES, images_in
from training.data.folder.cut import Cut
from training.data.folder.layouts import layout_hint
from training.data.masks import MASK_KINDS, MASK_SUFFIXES

OTHER_NAME = {"val": "valid", "valid": "val"}  # of the validation split


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split: ``folder/{images,masks}``, or those of them that a cut gives it.

    Attributes:
        folder: the split's, or the one that it is cut from.
        images, masks: path of each sample.
    """

    folder: Path
    images: list[Path]
    masks: list[Path]


def splits_in(root: Path) -> dict[str, Path]:
    """Folders that hold ``images`` and ``masks``, by split; `root` itself is train where it holds them."""
    splits = {path.parent.name: path.parent for path in sorted(root.glob("*/images")) if _is_split(path.parent)}
    whole = _is_split(root) and images_in(root / "images")  # and not images/train
    return ({"train": root} if whole else {}) | splits


def split_files(root: Path, split: str, cut: Cut | None = None) -> SplitFiles:
    """List a split; "val" may be called "valid", and be cut from train.

    Raises:
        InputError: no such split, no image in it, an image or a mask that stands alone, or a cut beside a folder of
            validation.
    """
    splits = splits_in(root)
    other = OTHER_NAME.get(split, split)
    folder = splits.get(split) or splits.get(other)
    if folder is None and cut and split in OTHER_NAME:
        folder = splits.get("train")
    if folder is None:
        here = f"splits here: {', '.join(splits)}" if splits else f"no split is here{layout_hint(root)}"
        if cut and "train" in splits:
            here += ", and val, which the manifest cuts from it; to score on that: --split val"
        if "train" in splits and split in OTHER_NAME:
            here += '; "validation": {"share": 0.1, "seed": 0} in the manifest cuts a tenth of train'
        raise InputError(f"{root / split}: expected folders images/ and masks/; {here}")
    images = images_in(folder / "images")
    if not images:
        raise InputError(f"{folder / 'images'}: no image ({', '.join(IMAGE_SUFFIXES)})")
    masks = _mask_files(folder, images)
    if cut and folder == splits.get("train"):
        if theirs := [splits[name] for name in OTHER_NAME if name in splits]:
            raise InputError(f'{root}: "validation" of the manifest cuts train, but {theirs[0].name}/ is here, too')
        if len(images) < 2:
            raise InputError(f"{folder}: one image cannot be cut into train and validation")
        chosen = cut.validation([path.stem for path in images])
        kept = [i for i, path in enumerate(images) if (path.stem in chosen) == (split in OTHER_NAME)]
        images, masks = [images[i] for i in kept], [masks[i] for i in kept]
    return SplitFiles(folder, images, masks)


def _is_split(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def _mask_files(split: Path, images: list[Path]) -> list[Path]:
    """The mask of each image; raises InputError where an image or a mask stands alone."""
    folder = split / "masks"
    files = [path for path in folder.iterdir() if path.name[0] != "."]
    if not files:
        raise InputError(f"{folder}: empty; expected a mask ({MASK_KINDS}) for each of {counted(len(images), 'image')}")
    by_suffix = sorted(MASK_SUFFIXES, reverse=True)  # a PNG comes last, to replace a TIFF of its name
    mask_of = {_stem(path): path for suffix in by_suffix for path in files if path.suffix.lower() == suffix}
    first: dict[tuple[str, str], Path] = {}
    for path in sorted(files):
        if (other := first.setdefault((_stem(path), path.suffix.lower()), path)) != path:
            raise InputError(f"{folder}: masks of one name: {other.name}, {path.name}; remove one")
    stems = {_stem(path) for path in images}
    if len(stems) < len(images):
        same = next(one for one, two in itertools.pairwise(sorted(images, key=_stem)) if _stem(one) == _stem(two))
        names = ", ".join(sorted(path.name for path in images if _stem(path) == _stem(same)))
        raise InputError(f"{split}: images of one name share a mask: {names}; give them other names")
    if lone := sorted(stems - mask_of.keys()):
        near = sorted(path.name for path in files if _stem(path).startswith(lone[0]) and _stem(path) not in stems)
        if odd := sorted(path.name for path in files if _stem(path) in lone):
            raise InputError(f"{folder}: masks must be {MASK_KINDS}: {odd[0]} ({len(odd)} of them)")
        hint = f"; a mask has its image's name, not {near[0]}" if near else ""
        raise InputError(f"{split}: image without mask: {lone[0]} ({len(lone)} of them){hint}")
    if lone := sorted(mask_of.keys() - stems):
        raise InputError(f"{split}: mask without image: {lone[0]} ({len(lone)} of them)")
    return [mask_of[_stem(path)] for path in images]


def _stem(path: Path) -> str:
    """A name without suffix, its letters composed: macOS takes them apart, in some programs' names."""
    return normalize("NFC", path.stem)
