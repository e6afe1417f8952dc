"""Pictures of more than 8 bits per channel: 10, 12 or 14 are often stored in 16, and the file does not say so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError


def is_deep(image: Image.Image) -> bool:
    """Whether an open picture, not decoded yet, has more than 8 bits and does not say how many are in use."""
    tiles = getattr(image, "tile", None)  # the file's encoding; a picture made in memory has none
    args = tiles[0][3] if tiles else ""
    rawmode = args[0] if isinstance(args, tuple) else args
    if image.format == "PPM":  # gives its largest value, by which Pillow scales; but 65535 may be just the container's
        return rawmode == "I;16B" or args[-1:] == (65535,)
    return image.mode.startswith("I") or (image.mode != "F" and ";16" in str(rawmode) and "BGR;" not in str(rawmode))


def largest_value(image: Image.Image) -> int:
    """The largest value of a deep picture; 65535 for a color one, which Pillow reads only as 16 bits."""
    return int(np.asarray(image).max()) if image.mode.startswith("I") else 65535


def to_8_bits(gray: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The upper 8 of `bits` bits; raises InputError for larger values."""
    if (largest := int(gray.max())) >= 1 << bits:
        raise InputError(
            f"pixels reach {largest}, more than the {bits} bits (--bits) of its data set or model; "
            f"a new training takes it with --bits {max(largest.bit_length(), bits + 1)}"
        )
    return (gray >> (bits - 8)).astype(np.uint8)
