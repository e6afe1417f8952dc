"""A folder data set: ``dataset.json`` and ``split/{images,masks}``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.image import IMAGE_SUFFIXES, Head, images_in, load_image, read_head
from training.data.class_lookup import Mask, Sample
from training.data.folder.layouts import recognize
from training.data.folder.manifest import Manifest
from training.data.masks import MASK_KINDS, MASK_SUFFIXES, RawMask, read_mask

DRAWN = {"apply": "the upright picture, as viewers show it", "ignore": "the pixels as stored"}
TURNS = dict(
    enumerate(("mirrored", "by 180 degrees", "mirrored", "mirrored", "by 90 degrees", "mirrored", "by 90 degrees"), 2)
)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Look:
    """What a sample's mask holds, and how EXIF turns its image.

    Attributes:
        entries: (N,) values or packed colours that the mask's visible pixels show.
        counts, meaning, other: (N,) pixels of each, and as of `training.data.folder.manifest.Reading`.
        by_color: whether colours decide.
        palette: colours of values, or None, as of `training.data.masks.RawMask`.
        hidden: the number of transparent pixels.
        turn: EXIF's orientation, 1 (none) to 8.
    """

    entries: NDArray[np.int64]
    counts: NDArray[np.int64]
    meaning: NDArray[np.int16]
    other: NDArray[np.int16] | None
    by_color: bool
    palette: NDArray[np.uint8] | None
    hidden: int
    turn: int


class FolderSource:
    """``root/split/{images,masks}`` and ``root/dataset.json``, see `training.data.folder.manifest`.

    A mask has its image's stem; it holds the manifest's ids (8 bits, or a palette's indices) or colours. Hidden files
    are left alone.

    Attributes:
        images, masks: paths of each sample.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.root = root
        self.split = split
        self.manifest = Manifest.read(root / "dataset.json")
        self.name = self.manifest.name
        self.license = self.manifest.license
        self.labels = self.manifest.labels
        self.bits = self.manifest.bits
        images, masks = root / split / "images", root / split / "masks"
        if not images.is_dir() or not masks.is_dir():
            splits = sorted(p.parent.name for p in root.glob("*/images") if (p.parent / "masks").is_dir())
            here = f"splits here: {', '.join(splits)}" if splits else f"no split is here{recognize(root)}"
            raise InputError(f"{root / split}: expected folders images/ and masks/; {here}")
        self.images = images_in(images)
        if not self.images:
            raise InputError(f"{images}: no image ({', '.join(IMAGE_SUFFIXES)})")
        self.masks = _matched(root / split, self.images, masks)
        self._heads: dict[int, Head] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image, raw = load_image(self.images[index], bits=self.bits), self._raw(index)
        turn = self._turn(index, raw, (image.shape[0], image.shape[1]))
        return image, turned(self._classes(index, raw), turn)

    def look(self, index: int) -> Look:
        """Read a sample's mask and the head of its image; raises InputError where they do not fit."""
        raw, head = self._raw(index), self._head(index)
        self._turn(index, raw, head.upright)
        try:
            reading = self.manifest.reading(raw)
        except InputError as error:
            raise InputError(f"{self.masks[index]}: {error}") from None
        counts = reading.counts(raw)
        occurs = np.flatnonzero(counts)
        meaning, other = reading.meaning[occurs], None if reading.other is None else reading.other[occurs]
        if (meaning < 0).any():
            self._classes(index, raw)  # says where
        hidden = 0 if raw.hidden is None else int(raw.hidden.sum())
        entries = reading.entries[occurs].astype(np.int64)
        return Look(entries, counts[occurs], meaning, other, reading.by_color, raw.palette, hidden, head.turn)

    def _raw(self, index: int) -> RawMask:
        return read_mask(self.masks[index])

    def _classes(self, index: int, raw: RawMask) -> Mask:
        try:
            return self.manifest.classes(raw)
        except InputError as error:
            raise InputError(f"{self.masks[index]}: {error}") from None

    def _head(self, index: int) -> Head:
        if index not in self._heads:
            self._heads[index] = read_head(self.images[index])
        return self._heads[index]

    def _turn(self, index: int, raw: RawMask, upright: tuple[int, int]) -> int:
        """EXIF's orientation that a mask is turned by to lie over its upright photograph; 1 where it does already.

        Raises:
            InputError: sizes that do not fit, or photographs that EXIF turns where nothing tells how masks were drawn.
        """
        shape, drawn = (raw.values.shape[0], raw.values.shape[1]), self.manifest.exif
        if drawn == "apply" and shape == upright:
            return 1
        head, manifest = self._head(index), self.root / "dataset.json"
        expected, other = (head.stored, upright) if drawn == "ignore" else (upright, head.stored)
        if shape != expected:
            line = f"{self.masks[index]}: mask is {shape}, its image {expected} (height, width)"
            if head.turn != 1 and shape == other:
                word = "apply" if drawn == "ignore" else "ignore"
                line += f'; EXIF turns it, and its mask lies over {DRAWN[word]}: write "exif": "{word}" into {manifest}'
            raise InputError(line)
        if drawn is None and head.turn != 1 and head.stored == upright:
            raise InputError(
                f"{self.images[index]}: EXIF turns this photograph ({TURNS[head.turn]}), and its size does not tell "
                f'how its mask was drawn: write into {manifest} "exif": "apply" where masks lie over {DRAWN["apply"]}, '
                f'"ignore" where over {DRAWN["ignore"]}'
            )
        return head.turn if drawn == "ignore" else 1


def turned(mask: Mask, turn: int) -> Mask:
    """A mask turned as EXIF's orientation `turn` says."""
    return mask if turn == 1 else np.asarray(Image.fromarray(mask).transpose(_TRANSPOSE[turn]))


def _matched(split: Path, images: list[Path], folder: Path) -> list[Path]:
    """The mask of each image; raises InputError where one lacks the other."""
    files = [path for path in folder.iterdir() if path.name[0] != "."]
    mask_of = {path.stem: path for path in files if path.suffix.lower() in MASK_SUFFIXES[1:]}
    mask_of |= {path.stem: path for path in files if path.suffix.lower() == MASK_SUFFIXES[0]}  # a PNG before a TIFF
    stems = {path.stem for path in images}
    if lone := sorted(stems - mask_of.keys()):
        near = sorted(path.name for path in files if path.stem.startswith(lone[0]) and path.stem not in stems)
        if odd := sorted(path.name for path in files if path.stem in lone):
            raise InputError(f"{folder}: masks must be {MASK_KINDS}: {odd[0]} ({len(odd)} of them)")
        hint = f"; a mask has its image's name, not {near[0]}" if near else ""
        raise InputError(f"{split}: image without mask: {lone[0]} ({len(lone)} of them){hint}")
    if lone := sorted(mask_of.keys() - stems):
        raise InputError(f"{split}: mask without image: {lone[0]} ({len(lone)} of them)")
    return [mask_of[path.stem] for path in images]
