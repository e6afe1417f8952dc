"""How to use a ``.tflite`` from elsewhere, in what its metadata leaves open."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from segformer_tf.errors import InputError

_LONGEST_SIDE = 1 << 15


@dataclass(frozen=True)
class Contract:
    """How to use a file that `segformer export` did not make; its own files need none of this.

    Attributes:
        size: (height, width) of the input, for a file that takes images of any size.
        mean: of one value or three (R, G, B): the network sees ``(x - mean) / std`` of x in 0..255, as in
            NormalizationOptions of TFLite's metadata. None takes those in the file, or the range of its integers.
        std: see mean.
        foreground_above: for a file of one channel, the value above which a pixel is foreground. None: above 0.5 if
            the file ends in a sigmoid, above 0 if it ends in a convolution.

    Raises:
        InputError: values that cannot be used.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    foreground_above: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        if self.size is not None and (
            len(self.size) != 2 or not 1 <= min(self.size) <= max(self.size) <= _LONGEST_SIDE
        ):
            raise InputError(f"--size must be a height and a width, up to {_LONGEST_SIDE}. Received: {self.size}")
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std go together: the network sees (x - mean) / std of 0..255")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) not in (1, 3) or not all(map(isfinite, values))):
                raise InputError(
                    f"--{name} must be one number, or three for R, G, B. Received: {join_numbers(values) or 'none'}"
                )
        if self.std is not None and not all(value > 0 for value in self.std):
            raise InputError(f"--std must be positive. Received: {join_numbers(self.std)}")
        if self.foreground_above is not None and not isfinite(self.foreground_above):
            raise InputError(f"--foreground-above must be a number. Received: {self.foreground_above}")

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std, or None."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def check_use(self, foreign: bool) -> None:
        """Raises InputError if it holds more than a size for a file that is not from elsewhere (`foreign`)."""
        if not foreign and self != Contract(size=self.size):
            raise InputError(
                "--mean, --std and --foreground-above are for a .tflite from elsewhere; one of `segformer export` "
                "has this in its metadata"
            )

    def to_json(self) -> str:
        """For another process that uses the same file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**fields)


def join_numbers(values: tuple[float, ...]) -> str:
    """Numbers as a command line has them."""
    return " ".join(f"{value:g}" for value in values)
