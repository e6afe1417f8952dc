"""One face of every data set for segmentation."""

from __future__ import annotations

from typing import Protocol

from segformer_tf.labels import Labels
from training.data.class_lookup import Sample


class Source(Protocol):
    """One split of a data set, read at random.

    ``source[i]`` is (image, mask): (H, W, 3) uint8 RGB and (H, W) uint8 with class ids
    0..C-1 and `IGNORE_ID`. `license` is its terms in a few words, or "". `bits`, as `load_image` takes them, may be
    set, and of folders is the manifest's until then.
    """

    name: str
    license: str
    labels: Labels
    bits: int | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...
