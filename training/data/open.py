"""Opens a data set for segmentation: a folder, or ``tfds:NAME``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from training.data.folder.manifest import Manifest
from training.data.folder.source import FolderSource
from training.data.masks import Sample

Item = TypeVar("Item", covariant=True)


class Split(Protocol[Item]):
    """One split of a data set, with random access.

    Attributes:
        name: of the data set.
        bits: how `load_image` reads images of more than 8 bits; may be set. At first what the manifest says.
    """

    name: str
    bits: int | None

    @property
    def images(self) -> Iterable[Path]:
        """The image files; none of a TFDS data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Item: ...


class Source(Split[Sample], Protocol):
    """A split for segmentation.

    ``source[i]`` is (image, mask): (H, W, 3) uint8 RGB, and (H, W) uint8 classes 0..C-1 or `IGNORE_ID`. `license` is
    the data set's terms in a few words, or "".
    """

    license: str
    labels: Labels


def sample_name(source: Source, index: int) -> str:
    """The name of a sample's image file; of a TFDS set, which has none, its number."""
    files: Any = getattr(source, "images", ())
    return files[index].name if files else f"{source.name} sample {index}"


def open_source(data: str, split: str, manifest: Manifest | None = None) -> Source:
    """Open a split of a folder, or of the TFDS data set ``tfds:NAME``.

    Args:
        data: the folder, its manifest, or ``tfds:NAME``.
        split: name.
        manifest: for a folder without one.

    Raises:
        InputError: no such data set or split, an empty split, or an invalid manifest.
    """
    source: Source
    if data.startswith("tfds:"):
        from training.data.tfds.source import TfdsSource  # TFDS takes seconds to import

        source = TfdsSource(data.removeprefix("tfds:"), split)
    else:
        source = FolderSource(Path(data), split, manifest)
    if not len(source):
        raise InputError(f"{data}: split {split} is empty")
    return source
