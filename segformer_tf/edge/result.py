"""`Result`: the segmentation of one image, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import Pixels
from segformer_tf.labels import IGNORE_ID, Labels
from segformer_tf.overlay import class_ids, overlay, with_legend
from segformer_tf.polygons import Polygon, mask_to_polygons


@dataclass(frozen=True)
class ClassShare:
    """A class that occurs in a mask: its id, its name, and its share of the pixels, 0..1.

    Attributes:
        confidence: the mean of its pixels, 0..1; None where it was not asked for.
    """

    id: int
    name: str
    share: float
    confidence: float | None = None


@dataclass(frozen=True)
class Result:
    """The segmentation of one image.

    Attributes:
        image: (H, W, 3) uint8 RGB, as it was read.
        mask: (H, W) uint8 class ids, at the image's own size; after `above` and `only` also `IGNORE_ID`, 255.
        labels: names and colors of the ids.
        speed: milliseconds of "load", "resize", "invoke" and "mask", and of "confidence" where it was asked for.
        confidence: (H, W) float32, the probability of the winning class, 0..1: the softmax of the same resized logits
            that the mask is the arg-max of. None where it was not asked for, by ``segmenter(image, confidence=True)``.
    """

    image: Pixels
    mask: NDArray[np.uint8]
    labels: Labels
    speed: dict[str, float]
    confidence: NDArray[np.float32] | None = None

    @property
    def classes(self) -> list[ClassShare]:
        """Classes that occur, the largest first."""
        count, sums = len(self.labels.names), None
        if self.confidence is not None:
            sums = np.bincount(self.mask.ravel(), self.confidence.ravel(), minlength=count)
        return class_shares(np.bincount(self.mask.ravel(), minlength=count), self.labels, sums)

    def mask_of(self, name: str) -> NDArray[np.bool_]:
        """(H, W) bool, the pixels of one class, by its name in any case.

        Raises:
            InputError: no such class; the nearest names are in the message.
        """
        mask: NDArray[np.bool_] = self.mask == self.labels.index(name)
        return mask

    def only(self, names: str | Iterable[str]) -> Result:
        """A result with these classes, or this one, alone, by name in any case; all other pixels are `IGNORE_ID`.

        Raises:
            InputError: no such class; the nearest names are in the message.
        """
        kept = np.zeros(256, bool)
        names = [names] if isinstance(names, str) else names  # a string is a sequence of letters
        kept[[self.labels.index(name) for name in names]] = True
        return replace(self, mask=np.where(kept[self.mask], self.mask, np.uint8(IGNORE_ID)))

    def above(self, threshold: float) -> Result:
        """A result with the pixels of at least this confidence; all others are `IGNORE_ID`.

        Raises:
            InputError: the confidence was not asked for, or a threshold outside 0..1.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold is a probability, 0..1. Received: {threshold:g}")
        if self.confidence is None:
            raise InputError("this result has no confidence; ask for it: segmenter(image, confidence=True)")
        sure = self.confidence >= np.float32(threshold)
        return replace(self, mask=np.where(sure, self.mask, np.uint8(IGNORE_ID)))

    def polygons(self, *, tolerance: float = 0, min_area: float = 0) -> list[Polygon]:
        """Outlines of all connected regions, with holes, in pixels; see `segformer_tf.polygons.mask_to_polygons`."""
        return mask_to_polygons(self.mask, tolerance=tolerance, min_area=min_area)

    def overlay(self, alpha: float = 0.55, *, legend: bool = False) -> Image.Image:
        """The mask's colors over the image, by a share `alpha`, 0..1; with a legend of the classes below if asked."""
        picture = Image.fromarray(overlay(self.image, self.mask, self.labels, alpha=alpha))
        return with_legend(picture, self.labels, class_ids(self.mask)) if legend else picture

    def save(self, folder: str | Path, name: str, *, ignore_id: int = IGNORE_ID) -> tuple[Path, ...]:
        """Write ``NAME_mask.png`` (palette PNG, index = class id) and ``NAME_overlay.png`` (with a legend).

        Where there is a confidence, also ``NAME_confidence.png``: 8-bit gray, 255 times the confidence, rounded.

        Args:
            folder: made if it is missing.
            name: that the files begin with.
            ignore_id: index of pixels that `above` and `only` left out.

        Returns:
            The files.

        Raises:
            InputError: the folder cannot be written.
        """
        mask = self.mask
        if ignore_id != IGNORE_ID:
            mask = np.where(mask == IGNORE_ID, np.uint8(ignore_id), mask)
        colored = Image.fromarray(mask)
        colors = [value for color in self.labels.colors for value in color]
        if int(mask.max()) >= len(self.labels.colors):
            colors += [0] * (3 * 256 - len(colors))  # Pillow stores no more bits than a short palette needs
        colored.putpalette(colors)
        pictures = [colored, self.overlay(legend=bool(features.check("freetype2")))]  # else there is no scalable font
        if self.confidence is not None:
            pictures.append(Image.fromarray((self.confidence * 255 + np.float32(0.5)).astype(np.uint8)))
        paths = self.paths(folder, name, confidence=self.confidence is not None)
        for path, picture in zip(paths, pictures, strict=True):
            with atomic(path) as part:
                picture.save(part)
        return paths

    @staticmethod
    def paths(folder: str | Path, name: str, *, confidence: bool = False) -> tuple[Path, ...]:
        """The files that `save` writes."""
        kinds = ("mask", "overlay", "confidence") if confidence else ("mask", "overlay")
        return tuple(Path(folder) / f"{name}_{kind}.png" for kind in kinds)

    def to_json(self) -> str:
        """Size, classes and speed as JSON, without the mask."""
        return json.dumps(summary(self.mask.shape, self.classes, self.speed, float((self.mask == IGNORE_ID).mean())))


def class_shares(
    counts: NDArray[np.integer], labels: Labels, confidence: NDArray[Any] | None = None
) -> list[ClassShare]:
    """Classes that occur, the largest first, from the number of pixels of each id; other ids count for the whole.

    Args:
        counts: (ids,) pixels.
        labels: of the ids.
        confidence: (ids,) sum of their confidence, if there is one.
    """
    named = counts[: len(labels.names)]
    ids = [int(i) for i in np.argsort(-named, kind="stable") if named[i]]
    total = counts.sum()
    means = {i: None if confidence is None else float(confidence[i] / counts[i]) for i in ids}
    return [ClassShare(i, labels.names[i], float(counts[i] / total), means[i]) for i in ids]


def summary(
    size: tuple[int, ...], classes: Sequence[ClassShare], speed: Mapping[str, float], ignored: float = 0.0
) -> dict[str, Any]:
    """What ``predictions.json`` says of an image, in plain JSON types; `ignored` is a share of its pixels."""
    height, width = size
    shares = []
    for each in classes:
        sure = {} if each.confidence is None else {"confidence": round(each.confidence, 6)}
        shares.append({"id": each.id, "name": each.name, "share": round(each.share, 6), **sure})
    left_out = {"ignored": round(ignored, 6)} if ignored else {}
    times = {key: round(value, 3) for key, value in speed.items()}
    return {"height": height, "width": width, "classes": shares, **left_out, "speed_ms": times}
