"""Cuts a validation split from the images of train, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from unicodedata import normalize

_SEEDS = 100  # to choose from


@dataclass(frozen=True)
class Cut:
    """An image is for validation if a number in 0..1 that its name and the seed give is below the share.

    So it stays where it is, whatever other images come and go, on any machine. At least one image stands on either
    side.

    Attributes:
        share: of the images, above 0 and below 1.
        seed: from 0.
    """

    share: float
    seed: int = 0

    def validation(self, stems: Sequence[str]) -> frozenset[str]:
        """The images of validation, among two or more names without suffix."""
        places = {stem: self._place(stem) for stem in stems}
        chosen = {stem for stem, place in places.items() if place < self.share}
        if not chosen:
            chosen = {min(stems, key=places.__getitem__)}
        elif len(chosen) == len(places):
            chosen.remove(max(stems, key=places.__getitem__))
        return frozenset(chosen)

    def _place(self, stem: str) -> float:
        name = normalize("NFC", stem)  # macOS takes letters apart
        digest = sha256(f"{self.seed}/{name}".encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) / 2**64


def choose_cut(stems: Sequence[str], shown: Sequence[frozenset[int]], share: float) -> Cut:
    """The first of a hundred seeds that leaves every class in train, and about the share in validation.

    Among those, one whose validation shows the most classes.

    Args:
        stems: names of two or more images.
        shown: the classes that each shows.
        share: of validation.
    """
    classes = frozenset[int]().union(*shown)

    wanted = share * len(stems)

    def badness(cut: Cut) -> tuple[int, float, int, float]:
        chosen = cut.validation(stems)
        train, validation = set[int](), set[int]()
        for stem, own in zip(stems, shown, strict=True):
            (validation if stem in chosen else train).update(own)
        off = abs(len(chosen) - wanted)
        return len(classes - train), max(off - max(1, 0.2 * wanted), 0), len(classes - validation), off

    return min((Cut(share, seed) for seed in range(_SEEDS)), key=badness)
