"""Opens a data set's splits, reads them, and makes the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer_tf.errors import InputError
from training.data.check_masks import check_masks, check_split
from training.data.first_manifest import assumed
from training.data.folder.manifest import Manifest
from training.data.folder.manifest_file import find_manifest
from training.data.folder.splits import splits_in
from training.data.open import Source, open_source
from training.data.quality.facts import Facts, read_facts
from training.data.quality.report import Report, make_report


@dataclass(frozen=True)
class Checked:
    """A data set that was looked at: its splits, the facts of the samples that could be read, and what is said."""

    sources: dict[str, Source]
    facts: list[Facts]
    report: Report
    notes: list[str]


def check_data(data: str, splits: Sequence[str] | None = None, *, most: int | None = None) -> Checked:
    """Look at a data set.

    Args:
        data: a folder, its manifest, or ``tfds:NAME``.
        splits: those to look at; without, all of a folder's, and train and val of a TFDS set.
        most: images that are read, if there is no time for any number.

    Raises:
        InputError: no such data set or split, an image or mask that stands alone, or too many images.
    """
    manifest, notes = None, list[str]()
    if assumption := assumed(data):
        manifest = Manifest.of(assumption.data, Path(data) / "dataset.json")
        notes = [f"{data}: no manifest, so this is assumed:", *(f"  {note}" for note in assumption.notes)]
    sources = {split: open_source(data, split, manifest) for split in splits or _splits(data, manifest)}
    lengths = {split: len(source) for split, source in sources.items()}
    if most is not None and (count := sum(lengths.values())) > most:
        raise InputError(f"{count} images would be read; `segformer data check {data}` does it")
    facts, faults = read_facts(sources)
    if not faults:
        faults = _refused(sources)
    labels = next(iter(sources.values())).labels
    return Checked(sources, facts, make_report(facts, labels, lengths=lengths, faults=faults), notes)


def _splits(data: str, manifest: Manifest | None) -> list[str]:
    if data.startswith("tfds:"):
        return ["train", "val"]
    own = manifest or Manifest.read(find_manifest(Path(data)))
    here = list(splits_in(own.root))
    ordered = [split for split in ("train", "val", "valid", "test") if split in here]
    names = [*ordered, *(split for split in here if split not in ordered)]
    if own.cut and "train" in names:
        names.insert(names.index("train") + 1, "val")
    return names or ["train"]


def _refused(sources: dict[str, Source]) -> list[str]:
    """The line with which a training or an evaluation would refuse the masks."""
    train, validation = sources.get("train"), sources.get("val") or sources.get("valid")
    try:
        if train and validation:
            check_masks(train, validation, quiet=True)
        for split in sources.keys() - {"train", "val", "valid"}:
            check_split(sources[split])
    except InputError as error:
        return [str(error)]
    return []
