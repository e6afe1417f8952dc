"""Options of `predict` for large pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segformer_tf.edge.sliding import check_sliding
from segformer_tf.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SlideOptions:
    """How a large picture is cut into windows."""

    slide: bool = False
    """Cut pictures into overlapping windows of the model's size instead of stretching them to it; results have the
    detail of the picture. A TIFF is read and written block by block, whatever its size, and keeps its georeference
    (pip install '.[large]')."""

    stride: int | None = None
    """With --slide, pixels from one window to the next. Default: three quarters of the model's shorter side."""

    scale: float = 1.0
    """With --slide, factor on the picture before it is cut: 0.5 where objects are twice as large as in training."""

    def cuts_tiff(self, path: Path) -> bool:
        """Whether a file is read and written as a TIFF, block by block."""
        return self.slide and path.suffix.lower() in (".tif", ".tiff")

    def check(self, window: tuple[int, int]) -> None:
        """Raises InputError for options without --slide, or out of range for a model of size `window`."""
        for name, given in (("--stride", self.stride is not None), ("--scale", self.scale != 1.0)):
            if given and not self.slide:
                raise InputError(f"{name} is for pictures that are cut into windows; add --slide")
        check_sliding(window, stride=self.stride, scale=self.scale)
