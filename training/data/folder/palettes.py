"""Whether a data set's palette masks are read by colours or by values, told once where the two say other classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segformer_tf.errors import InputError
from training.data.folder.source import Look

_REMEDY = (
    'give the manifest every colour of the palettes (ignored ones under "ignore"), or save the masks as grey PNG of ids'
)


@dataclass
class Palettes:
    """The palette masks of a data set, and how each was read (`training.data.folder.manifest.Manifest.reading`)."""

    by_color: list[Path] = field(default_factory=list)  # whose colours say other classes than their values
    by_value: list[Path] = field(default_factory=list)  # whose values decide, though some colours say other classes
    _first: dict[int, tuple[tuple[int, ...], Path]] = field(default_factory=dict)  # colour of each value, and where
    _differ: str = ""
    _ways: dict[bytes, dict[bool, Path]] = field(default_factory=dict)  # by palette, by whether colours decided

    def add(self, path: Path, look: Look) -> None:
        """Look at a mask; one without a palette is nothing to it."""
        if look.palette is None or look.other is None:
            return
        odd = ((look.other != look.meaning) & (look.other >= 0)).any()
        if odd or look.by_color:
            (self.by_color if look.by_color else self.by_value).append(path)
        if look.by_color or (look.other < 0).any():
            self._ways.setdefault(look.palette.tobytes(), {}).setdefault(look.by_color, path)
        for value in look.entries[look.entries < len(look.palette)].tolist():
            color = tuple(look.palette[value].tolist())
            first, where = self._first.setdefault(value, (color, path))
            if first != color and not self._differ:
                self._differ = f"value {value} is {first} in {where}, {color} in {path}"

    def notes(self) -> list[str]:
        """What is worth a line.

        Raises:
            InputError: masks that would be read one by its colours, another by its values, and wrongly so.
        """
        differ = f": {self._differ}" if self._differ else ""
        mixed = [ways for ways in self._ways.values() if len(ways) > 1]
        if mixed:
            raise InputError(
                f"{mixed[0][True]}: its palette's colours say other classes than its values, and in {mixed[0][False]} "
                f"not all colours of that palette are the manifest's; {_REMEDY}"
            )
        if self.by_value and (self.by_color or self._differ):
            raise InputError(
                f"{self.by_value[0]}: its palette's colours say other classes than its values, but not all are the "
                f"manifest's, and palettes are not the same in all masks{differ}; {_REMEDY}"
            )
        if self.by_color:
            return [
                f"palettes: in {len(self.by_color)} masks, such as {self.by_color[0]}, the colours are the manifest's "
                f"and say other classes than the values: colours decide{'; palettes differ' if differ else ''}{differ}"
            ]
        if self.by_value:
            return [
                f"palettes: in {len(self.by_value)} masks, such as {self.by_value[0]}, some colours say other classes "
                f"than the values, but not all are the manifest's: values decide; where colours are right, {_REMEDY}"
            ]
        if self._differ and any(False in ways for ways in self._ways.values()):
            return [f"palettes differ between the masks{differ}; values decide, for not all colours are the manifest's"]
        return []
