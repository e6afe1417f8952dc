"""The images that a file is calibrated on and compared on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segformer_tf.image import Pixels, fit_image, load_image
from segformer_tf.sampling import evenly_spaced


def sample_images(
    paths: Sequence[Path], size: tuple[int, int], *, count: int, synthetic: int, bits: int | None = None
) -> list[Pixels]:
    """Up to `count` of the files, evenly chosen, stretched to (*size, 3) uint8; synthetic images without files.

    Args:
        paths, size, count: files, (height, width), and how many files at most.
        synthetic: how many images to make where there is no file.
        bits: see `load_image`.
    """
    pixels = [fit_image(load_image(path, bits=bits), size) for path in evenly_spaced(paths, count)]
    return pixels or synthetic_images(size, synthetic)


def synthetic_images(size: tuple[int, int], count: int) -> list[Pixels]:
    """Smooth colorful noise with detail at several scales, (*size, 3) uint8."""
    rng = np.random.default_rng(0)

    def image() -> Pixels:
        layers = [fit_image(rng.integers(0, 256, (n, n, 3), np.uint8), size) for n in (3, 9, 33, 129)]
        return np.mean(layers, axis=0).astype(np.uint8)

    return [image() for _ in range(count)]
