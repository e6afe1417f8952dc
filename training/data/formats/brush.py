"""Label Studio's brush: run-length encoded RGBA pixels, bit by bit.

Source: the format of thi.ng/rle-pack, which Label Studio uses: 32 bits for the number of values; 5 for the bits of a
value, less one; 4 times 4 for the bits of run lengths, less one. Then, until there are enough values: a bit for a run,
2 bits for which of the four sizes, the length less one, and one value of a run, or as many values as the length says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segformer_tf.errors import InputError
from segformer_tf.image import Pixels
from training.data.formats.shapes import Region

_HALF = 128  # of 255: the alpha from which a pixel belongs to the stroke


@dataclass(frozen=True)
class Brush:
    """Strokes on a whole picture.

    Attributes:
        data: the encoded pixels.
        size: (height, width).
    """

    data: bytes
    size: tuple[int, int]

    def region(self, size: tuple[int, int]) -> Region:
        """See `training.data.formats.shapes.Geometry`; raises InputError where `data` is broken."""
        if size != self.size:
            raise InputError(f"'rle' is {self.size}, its picture {size} (height, width)")
        pixels = decode_values(self.data, 4 * size[0] * size[1])
        return Region(0, 0, pixels.reshape(*size, 4)[..., 3] >= _HALF)


def decode_values(data: bytes, expected: int) -> Pixels:
    """(expected,) uint8; raises InputError for another number of values, wide values, or too few bytes."""
    place = 0

    def read(bits: int) -> int:
        nonlocal place
        first, place = place, place + bits
        if place > 8 * len(data):
            raise InputError("'rle' ends too early")
        whole = int.from_bytes(data[first // 8 : (place + 7) // 8], "big")
        return (whole >> (-place % 8)) & ((1 << bits) - 1)

    def read_several(bits: int, count: int) -> Pixels:
        nonlocal place
        first, place = place, place + bits * count
        if place > 8 * len(data):
            raise InputError("'rle' ends too early")
        packed = np.frombuffer(data[first // 8 : (place + 7) // 8], np.uint8)
        single = np.unpackbits(packed)[first % 8 :][: bits * count].reshape(count, bits)
        return np.packbits(np.pad(single, ((0, 0), (8 - bits, 0))), axis=1)[:, 0]

    if (number := read(32)) != expected:
        raise InputError(f"'rle' holds {number} values; expected 4 per pixel, {expected}")
    word = read(5) + 1
    if word > 8:
        raise InputError(f"'rle' has values of {word} bits; expected 8 at the most")
    sizes = [read(4) + 1 for _ in range(4)]
    values, i = np.empty(expected, np.uint8), 0
    while i < expected:
        run = read(1)
        end = i + 1 + read(sizes[read(2)])
        if end > expected:
            raise InputError(f"'rle' holds more than {expected} values")
        if run:
            values[i:end] = read(word)
        else:
            values[i:end] = read_several(word, end - i)
        i = end
    return values
