"""Finds images that show the same picture: copied, saved again, resized, brightened, slightly cropped or mirrored.

A perceptual hash keeps 256 bits of an image's coarse structure. In CamVid, photographs of people and microscopy,
unrelated images differ in 70 bits or more; an image saved again, resized, brightened or mirrored in 28 or fewer; one
cropped by up to a tenth on every side in 10 to 40, on one side by 3 % in 35 to 60. Frames of a film, a second apart,
are anywhere up to there: few bits where the camera stands, 60 where it moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.image import Pixels

SAME = 48  # bits of 256 that differ, at most, in one picture
SIMILAR = 64  # in pictures of which a person should look at both

_SIDE = 256  # pixels, to hash
_MARGINS = (0.0, 0.03, 0.06, 0.09)  # cut off on every side, so that an image and a crop of it meet
_FLAT = 2.0  # standard deviation of gray, below which an image has no structure
_CHUNK = 256

Fingerprint = NDArray[np.int8]  # (5, 256), each bit as -1 or 1: whole, without margins, mirrored


@dataclass(frozen=True)
class Pair:
    """Two images, by their places in two lists, and the bits in which they differ."""

    here: int
    there: int
    bits: int


def fingerprint(image: Pixels) -> Fingerprint | None:
    """Hashes of an (H, W, 3) image; None for one that is as good as a single color."""
    import imagehash  # an extra

    gray = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    if np.asarray(gray).std() < _FLAT:
        return None
    edges = [round(margin * _SIDE) for margin in _MARGINS]
    views = [gray.crop((edge, edge, _SIDE - edge, _SIDE - edge)) for edge in edges]
    views.append(gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    hashes = [imagehash.phash(view, hash_size=16).hash.ravel() for view in views]
    return np.where(hashes, np.int8(1), np.int8(-1))


def find_twins(here: NDArray[np.int8], there: NDArray[np.int8]) -> list[Pair]:
    """For each image there the nearest here, if they differ in `SIMILAR` bits or fewer; the most alike pair first.

    All pairs would be too many where a camera stands.

    Args:
        here, there: (N, 5, 256) and (M, 5, 256) fingerprints.
    """
    bits, every = here.shape[-1], np.arange(len(there))
    nearest, least = np.zeros(len(there), np.int64), np.full(len(there), np.inf, np.float32)
    theirs = there.astype(np.float32)
    for start in range(0, len(here), _CHUNK):
        ours = here[start : start + _CHUNK].astype(np.float32)
        agreement = np.full((len(ours), len(there)), -np.inf, np.float32)
        for view in range(here.shape[1]):  # the whole of one against every view of the other
            np.maximum(agreement, ours[:, 0] @ theirs[:, view].T, out=agreement)
            np.maximum(agreement, ours[:, view] @ theirs[:, 0].T, out=agreement)
        distance = (bits - agreement) / 2
        first = distance.argmin(0)
        closer = distance[first, every] < least
        nearest[closer], least[closer] = start + first[closer], distance[first, every][closer]
    pairs = [Pair(int(nearest[j]), j, round(float(least[j]))) for j in np.flatnonzero(least <= SIMILAR).tolist()]
    return sorted(pairs, key=lambda pair: pair.bits)
