"""Raw mask values to class indices, by a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError
from segformer_tf.image import Pixels
from segformer_tf.labels import IGNORE_ID

Mask = NDArray[np.uint8]
Sample = tuple[Pixels, Mask]


def mapping_table(class_of: Mapping[int, int], ignored: Iterable[int] = ()) -> NDArray[np.int16]:
    """Class index of every raw value.

    Args:
        class_of: class index of each raw value that means one.
        ignored: raw values that do not count.

    Returns:
        (256,) int16: 0..C-1, `IGNORE_ID`, or -1 for a value that must not occur.
    """
    table = np.full(256, -1, np.int16)
    table[list(ignored)] = IGNORE_ID
    table[list(class_of)] = list(class_of.values())
    return table


def class_indices(
    raw: NDArray[np.uint8], table: NDArray[np.int16], *, known_to: str, hidden: NDArray[np.bool_] | None = None
) -> Mask:
    """(H, W) class indices and `IGNORE_ID` of (H, W) raw values; ignored too where (H, W) `hidden` is set.

    Raises:
        InputError: a value that `table` does not know; `known_to` says whose table it is.
    """
    mask = table[raw]
    if hidden is not None:
        mask[hidden] = IGNORE_ID
    if (unknown := raw[mask < 0]).size:
        raise InputError(f"mask value {unknown[0]} is neither a class nor ignored in {known_to}{where(mask < 0)}")
    return mask.astype(np.uint8)


def where(odd: NDArray[np.bool_]) -> str:
    """The first of the odd pixels, and how many there are."""
    row, column = (int(i) for i in np.argwhere(odd)[0])
    return f" (row {row}, column {column}, {int(odd.sum())} pixels)"
