"""The 16 corruptions of Cityscapes-C, by the package imagecorruptions-imaug.

Source: Kamann and Rother, CVPR 2020 (Cityscapes-C), after Hendrycks and Dietterich, ICLR 2019 (ImageNet-C); the paper's
Table 5. Noise ends at severity 3 there: beyond it little of a picture is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from segformer_tf.errors import InputError, first_line
from segformer_tf.image import Pixels

GROUPS = {
    "noise": ("gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"),
    "blur": ("motion_blur", "defocus_blur", "glass_blur", "gaussian_blur"),
    "digital": ("brightness", "contrast", "saturate", "jpeg_compression"),
    "weather": ("snow", "spatter", "fog", "frost"),
}
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32  # the package's own limit, in pixels
PACKAGE = "imagecorruptions-imaug"
_INSTALL = f"pip install '.[robustness]' && pip install --no-deps {PACKAGE}==1.1.5"
_NOISE_UP_TO = 3
_SEED_BY_ARGUMENT = ("impulse_noise", "glass_blur")  # they do not draw from numpy's global generator


@dataclass(frozen=True)
class Cell:
    """One corruption at one severity, of which all images are scored; `CLEAN` is none."""

    corruption: str
    severity: int

    @property
    def name(self) -> str:
        """As in the results file, such as ``fog/3``."""
        return f"{self.corruption}/{self.severity}" if self.severity else self.corruption


CLEAN = Cell("clean", 0)


def names() -> list[str]:
    """The 16 corruptions, group by group."""
    return [name for group in GROUPS.values() for name in group]


def choose_cells(corruptions: Sequence[str] | None, severities: Sequence[int]) -> list[Cell]:
    """`CLEAN`, then every severity of every corruption, in the order of `GROUPS`; noise to severity 3.

    Args:
        corruptions: names of corruptions or of groups; None for all.
        severities: of 1..5.

    Raises:
        InputError: an unknown name, a severity out of range, or noise alone with none of its severities.
    """
    known = names()
    chosen: set[str] = set()
    for name in corruptions or known:
        if name not in GROUPS and name not in known:
            raise InputError(f"--corruptions must be of {', '.join([*GROUPS, *known])}. Received: {name}")
        chosen.update(GROUPS.get(name, (name,)))
    if not severities or not set(severities) <= set(SEVERITIES):
        raise InputError(f"--severities must be of 1 to 5. Received: {' '.join(map(str, severities)) or 'none'}")
    cells = [
        Cell(name, severity)
        for name in known
        if name in chosen
        for severity in sorted(set(severities))
        if name not in GROUPS["noise"] or severity <= _NOISE_UP_TO
    ]
    if not cells:
        raise InputError(f"noise ends at severity {_NOISE_UP_TO}: nothing is left to score")
    return [CLEAN, *cells]


def load_package() -> str:
    """Import the package that corrupts.

    Returns:
        Its name and version.

    Raises:
        InputError: with the line that installs it.
    """
    try:
        own = version(PACKAGE)  # `imagecorruptions` itself has the same module, and fails on scikit-image of today
    except PackageNotFoundError:
        raise InputError(f"{PACKAGE} is not installed; in the repository: {_INSTALL}") from None
    try:
        _corrupt()
    except ImportError as error:  # also OpenCV without the libraries of a desktop
        raise InputError(f"{PACKAGE} cannot be loaded ({first_line(error)}); in the repository: {_INSTALL}") from None
    return f"{PACKAGE} {own}"


def corrupt(image: Pixels, cell: Cell, *, index: int) -> Pixels:
    """A corrupted copy of an image, the same one for the same `cell` and `index`, whatever came before.

    Args:
        image: (H, W, 3) uint8 RGB, both sides from `MIN_SIDE` up.
        cell: the corruption; `CLEAN` gives the image itself.
        index: number of the image in its split.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: an image that is too small, or a package that `load_package` refuses.
    """
    if cell == CLEAN:
        return image
    if min(image.shape[:2]) < MIN_SIDE:
        raise InputError(
            f"corruptions need images of at least {MIN_SIDE}x{MIN_SIDE} pixels. "
            f"Received: {image.shape[0]}x{image.shape[1]}"
        )
    # Of the place of a corruption among all 16, so that scoring a few of them gives the same pictures.
    seed = [names().index(cell.corruption), cell.severity, index]
    number = int(np.random.default_rng(seed).integers(2**31))
    own = {"seed": number} if cell.corruption in _SEED_BY_ARGUMENT else {}
    with _global_seed(number):
        corrupted = _corrupt()(image, severity=cell.severity, corruption_name=cell.corruption, **own)
    return np.asarray(corrupted, np.uint8)


def _corrupt() -> Callable[..., Any]:
    from imagecorruptions import corrupt as function  # with numba and scikit-image, a second

    return function


@contextmanager
def _global_seed(number: int) -> Iterator[None]:
    """Seeds numpy's global generator, from which the package draws, and leaves it as it was."""
    state = np.random.get_state()
    np.random.seed(number)
    try:
        yield
    finally:
        np.random.set_state(state)
