"""Where the classes of a mask go over into each other, and whether that looks smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.labels import IGNORE_ID

_NARROW = 3  # pixels


@dataclass(frozen=True)
class Steps:
    """Places along rows and columns where one class goes over into another.

    Attributes:
        all: of them.
        narrow: runs of up to 3 pixels of a class between two others that differ.
        between: those of a class with a number between the two others.
    """

    all: int
    narrow: int
    between: int

    def __add__(self, other: Steps) -> Steps:
        return Steps(self.all + other.all, self.narrow + other.narrow, self.between + other.between)

    @property
    def smoothed(self) -> bool:
        """Whether it looks as if resized by interpolation.

        Nearly all narrow runs have a number between, or many do where every third step is to a narrow run. Of masks of
        CamVid and clothing, as they are and at half the size by nearest neighbor, a tenth of the steps are at most, and
        of halved, doubled or slightly smaller ones by interpolation 0.43 or more.
        """
        if self.narrow < 20:
            return False
        if self.narrow > 0.3 * self.all:
            return self.between > 0.4 * self.narrow
        return self.narrow > 0.05 * self.all and self.between > 0.95 * self.narrow


def steps(mask: NDArray[Any]) -> Steps:
    """Count the steps of an (H, W) mask of classes; ignored pixels are no class."""
    total = Steps(0, 0, 0)
    for lines in (mask, mask.T):
        start = np.ones(lines.shape, bool)
        start[:, 1:] = lines[:, 1:] != lines[:, :-1]
        at = np.flatnonzero(start)  # of runs of one class along a line
        values, row, length = lines.ravel()[at], at // lines.shape[1], np.diff(at, append=lines.size)
        one, two, three = values[:-2], values[1:-1], values[2:]
        inside = (row[:-2] == row[2:]) & (one != IGNORE_ID) & (two != IGNORE_ID) & (three != IGNORE_ID)
        narrow = inside & (length[1:-1] <= _NARROW) & (one != three)
        between = narrow & ((one < two) == (two < three))
        total += Steps(int((row[:-1] == row[1:]).sum()), int(narrow.sum()), int(between.sum()))
    return total
