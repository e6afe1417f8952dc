"""Options for a .tflite from elsewhere, which several verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from segformer_tf.edge.tflite.contract import Contract


@dataclass(frozen=True, kw_only=True)
class ForeignOptions:
    """How to use a .tflite from elsewhere, in what its metadata leaves open."""

    mean: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None
    """Of a .tflite from elsewhere that takes floats, with --std: one number or three (R, G, B); it sees
    (x - mean) / std of 0..255. 0 and 1: 0..255 as they are; 0 and 255: 0..1; 127.5 and 127.5: -1..1. Default: those in
    its metadata."""

    std: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None
    """See --mean."""

    foreground_above: float | None = None
    """Of a .tflite of one channel, the value above which a pixel is foreground. Default: 0.5 if it ends in a sigmoid,
    0 if in a convolution."""

    def contract(self, size: tuple[int, int] | None) -> Contract:
        """These and the size for a file that leaves it open; raises InputError for bad values."""
        return Contract(size=size, mean=self.mean, std=self.std, foreground_above=self.foreground_above)
