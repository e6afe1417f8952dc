"""The size that validation images are stretched to where nothing says it."""

from __future__ import annotations

from math import sqrt

_LARGEST_VALIDATION = 1024 * 1024  # pixels of a validation image, without --eval-size


def bounded_size(size: tuple[int, int]) -> tuple[int, int]:
    """The default of --eval-size for images of (height, width) `size`: that size, or a smaller one of about its shape.

    Attention in the first stage takes memory by the square of the area. A smaller size has sides that are multiples of
    32, the stride of the deepest stage.
    """
    factor = sqrt(_LARGEST_VALIDATION / (size[0] * size[1]))
    if factor >= 1:
        return size
    height, width = (max(int(side * factor) // 32 * 32, 32) for side in size)
    return height, width
