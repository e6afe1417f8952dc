"""One split of a folder: a manifest and ``split/{images,masks}``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.image import Head, load_image, read_head
from training.data.folder.manifest import Manifest
from training.data.folder.manifest_file import find_manifest
from training.data.folder.splits import split_files
from training.data.masks import Sample, read_mask

LIES_OVER = {"apply": "the upright picture, as viewers show it", "ignore": "the pixels as stored"}
_TURNS = {  # by EXIF orientation
    2: (Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    3: (Image.Transpose.ROTATE_180, "by 180 degrees"),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, "mirrored"),
    5: (Image.Transpose.TRANSPOSE, "mirrored"),
    6: (Image.Transpose.ROTATE_270, "by 90 degrees"),
    7: (Image.Transpose.TRANSVERSE, "mirrored"),
    8: (Image.Transpose.ROTATE_90, "by 90 degrees"),
}


@dataclass(frozen=True)
class MaskSummary:
    """What one mask shows, counted, and how EXIF turns its image.

    Attributes:
        entries: (N,) values, or colors 0xRRGGBB, of the visible pixels.
        counts: (N,) pixels of each entry.
        classes, other, by_color: of these entries, see `training.data.folder.manifest.Reading`.
        palette: colors of the values, or None, see `training.data.masks.RawMask`.
        hidden: number of transparent pixels.
        turn: EXIF orientation of the image, 1 (none) to 8.
    """

    entries: NDArray[np.int64]
    counts: NDArray[np.int64]
    classes: NDArray[np.int16]
    other: NDArray[np.int16] | None
    by_color: bool
    palette: NDArray[np.uint8] | None
    hidden: int
    turn: int


class FolderSource:
    """A split of a folder, see `training.data.folder.splits` and `training.data.folder.manifest`.

    A mask has its image's stem, and holds the manifest's ids (8 bits, or a palette's indices) or colors. Hidden files
    are skipped.

    Attributes:
        split: its name.
        folder: its folder, or the one that it is cut from.
        images, masks: path of each sample.
    """

    def __init__(self, data: Path, split: str, manifest: Manifest | None = None) -> None:
        """Open a split.

        Args:
            data: the folder, or its manifest.
            split: name.
            manifest: for a folder without one.
        """
        self.split = split
        self.manifest = own = manifest or Manifest.read(find_manifest(data))
        self.name, self.license, self.labels, self.bits = own.name, own.license, own.labels, own.bits
        files = split_files(own.root, split, own.cut)
        self.folder, self.images, self.masks = files.folder, files.images, files.masks
        self._heads: dict[int, Head] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image, raw = load_image(self.images[index], bits=self.bits), read_mask(self.masks[index])
        turn = self._mask_turn(index, raw.values.shape[:2], image.shape[:2])
        with self._mask_errors(index):
            mask = self.manifest.mask(raw)
        return image, mask if turn == 1 else np.asarray(Image.fromarray(mask).transpose(_TURNS[turn][0]))

    def summary(self, index: int) -> MaskSummary:
        """Count a sample's mask, of its image reading the head alone; raises InputError where the two do not fit."""
        raw, head = read_mask(self.masks[index]), self._head(index)
        self._mask_turn(index, raw.values.shape[:2], head.upright)
        with self._mask_errors(index):
            reading = self.manifest.reading(raw)
            if raw.values.ndim == 2:
                counts = raw.histogram()
            else:
                counts = np.bincount(reading.index[slice(None) if raw.hidden is None else ~raw.hidden].ravel())
            occurs = np.flatnonzero(counts)
            classes, other = reading.classes[occurs], None if reading.other is None else reading.other[occurs]
            if (classes < 0).any():
                self.manifest.mask(raw)  # its error says where
        hidden = 0 if raw.hidden is None else int(raw.hidden.sum())
        entries = reading.entries[occurs].astype(np.int64)
        return MaskSummary(entries, counts[occurs], classes, other, reading.by_color, raw.palette, hidden, head.turn)

    @contextmanager
    def _mask_errors(self, index: int) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.masks[index]}: {error}") from None

    def _head(self, index: int) -> Head:
        if index not in self._heads:
            self._heads[index] = read_head(self.images[index])
        return self._heads[index]

    def _mask_turn(self, index: int, shape: tuple[int, ...], upright: tuple[int, ...]) -> int:
        """The EXIF orientation that puts a mask of `shape` over its upright image; 1 where it lies over it already.

        Raises:
            InputError: sizes that do not fit, or a photograph that EXIF turns where its mask may be drawn either way.
        """
        exif = self.manifest.exif
        if exif == "apply" and shape == upright:
            return 1
        head, manifest = self._head(index), self.manifest.path
        expected, other = (head.stored, upright) if exif == "ignore" else (upright, head.stored)
        if shape != expected:
            line = f"{self.masks[index]}: mask is {shape}, its image {expected} (height, width)"
            if head.turn != 1 and shape == other:
                word = "apply" if exif == "ignore" else "ignore"
                line += (
                    f'; EXIF turns it, and its mask lies over {LIES_OVER[word]}: write "exif": "{word}" into {manifest}'
                )
            raise InputError(line)
        if exif is None and head.turn != 1 and head.stored == upright:
            raise InputError(
                f"{self.images[index]}: EXIF turns this photograph ({_TURNS[head.turn][1]}), and its size does not "
                f'tell how its mask was drawn: write into {manifest} "exif": "apply" where masks lie over '
                f'{LIES_OVER["apply"]}, "ignore" where over {LIES_OVER["ignore"]}'
            )
        return head.turn if exif == "ignore" else 1
