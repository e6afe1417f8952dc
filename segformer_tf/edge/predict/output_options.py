"""Options of `predict` on what is written: confidence, a choice of classes, labels for annotation tools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segformer_tf.edge.predict.annotations import KINDS, Format, LabelFiles
from segformer_tf.edge.result import Result
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Labels


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written for an image beside its mask and overlay, and what is left out of them."""

    confidence: bool = False
    """Also write NAME_confidence.png, the probability of each pixel's class: 8-bit gray, 255 is 1."""

    threshold: float | None = None
    """Give pixels of a lower confidence, 0..1, to no class: they are --ignore-id in the mask."""

    classes: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    """Keep these classes alone, by name in any case: car,road or "traffic light" car. All other pixels are --ignore-id
    in the mask."""

    ignore_id: int = IGNORE_ID
    """What the mask holds where --threshold or --classes leaves no class: 255, or what your data set ignores."""

    format: Format | None = None
    """Also write outlines of the regions, to correct them in an annotation tool: coco.json, or NAME.json (labelme) or
    NAME.geojson for each image."""

    tolerance: float = 0
    """Of --format: simplify outlines by up to this many pixels. Default: along the edges of pixels."""

    min_area: int = 0
    """Of --format: leave out regions of fewer pixels."""

    @property
    def needs_confidence(self) -> bool:
        """Whether the confidence must be computed."""
        return self.confidence or self.threshold is not None

    def check(self, labels: Labels) -> None:
        """Raises InputError for values that cannot be used with these classes."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"--threshold is a probability, 0..1. Received: {self.threshold:g}")
        names = self._names(labels)
        if self.classes and not names:
            raise InputError(f"--classes: expected names of classes. Received: {' '.join(self.classes)!r}")
        for name in names:
            try:
                labels.index(name)
            except InputError as error:
                raise InputError(f"--classes: {error}") from None
        if not 0 <= self.ignore_id <= IGNORE_ID:
            raise InputError(f"--ignore-id must be 0..{IGNORE_ID}. Received: {self.ignore_id}")
        if self.ignore_id < len(labels.names):
            raise InputError(
                f"--ignore-id {self.ignore_id} is class {labels.names[self.ignore_id]!r} in the mask; expected "
                f"{len(labels.names)}..{IGNORE_ID}"
            )
        if self.ignore_id != IGNORE_ID and self.threshold is None and not self.classes:
            raise InputError("--ignore-id is for --threshold and --classes")
        for name, value in (("--tolerance", self.tolerance), ("--min-area", self.min_area)):
            if value and not self.format:
                raise InputError(f"{name} is for the outlines of --format")
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be a number of pixels. Received: {value:g}")

    def narrowed(self, result: Result) -> Result:
        """The result without what --threshold and --classes leave out."""
        if self.threshold is not None:
            result = result.above(self.threshold)
        if self.classes:
            result = result.only(self._names(result.labels))
        return result

    def save(self, result: Result, out: Path, name: str) -> None:
        """Write the pictures of a result of `narrowed`."""
        shown = result if self.confidence else replace(result, confidence=None)
        shown.save(out, name, ignore_id=self.ignore_id)

    def paths(self, out: Path, name: str) -> tuple[Path, ...]:
        """The files that `save` writes."""
        return Result.paths(out, name, confidence=self.confidence)

    def label_files(self, out: Path, labels: Labels) -> LabelFiles | None:
        """The label files of --format, if any."""
        if self.format is None:
            return None
        return KINDS[self.format](out, labels, tolerance=self.tolerance, min_area=self.min_area)

    def _names(self, labels: Labels) -> list[str]:
        """The names of --classes; commas part them, except in a name that has one itself."""
        known = {name.strip().casefold() for name in labels.names}
        texts = [[text] if text.strip().casefold() in known else text.split(",") for text in self.classes]
        return [name for names in texts for name in names if name.strip()]
