"""What is said about a data set: faults, remarks and suggestions, from the facts of its samples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.labels import Labels
from training.data.quality.advice import Suggestion, suggestions
from training.data.quality.facts import Facts
from training.data.quality.objects import CELL
from training.data.quality.twins import SAME, find_twins
from training.data.steps import Steps

_CELL = CELL * CELL  # pixels


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Attributes:
        topic: a word for it.
        text: one line.
        where: the files.
        fault: whether it must be mended: a training refuses it, or scores mean nothing.
    """

    topic: str
    text: str
    where: list[Any] = field(default_factory=list)
    fault: bool = False


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
        name: its name.
        share, images: by split, of the pixels (0..1, ignored ones included in the whole), and the masks that show it.
        regions: connected ones, in all splits, of a cell of the network's 1/4 grid (4x4 pixels of the image) or more.
        specks: those below a cell.
        median_cells: median size of the regions, in cells; None without any.
        iou_at_quarter: of the masks with what the grid can keep of them, over all splits; None without any.
    """

    name: str
    share: dict[str, float]
    images: dict[str, int]
    regions: int
    specks: int
    median_cells: float | None
    iou_at_quarter: float | None


@dataclass(frozen=True)
class Report:
    """All that is said. `splits` counts the samples of each, and the most frequent sizes."""

    splits: dict[str, dict[str, Any]]
    classes: list[ClassRow]
    findings: list[Finding]
    suggestions: list[Suggestion]

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.fault]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def make_report(
    facts: Sequence[Facts], labels: Labels, *, lengths: Mapping[str, int], faults: Sequence[str] = ()
) -> Report:
    """Sum up a data set.

    Args:
        facts: of the samples that could be read.
        labels: of the data set.
        lengths: samples of each split.
        faults: lines on what a training refuses.
    """
    by_split = {split: [each for each in facts if each.split == split] for split in lengths}
    findings = [Finding("refused", line, fault=True) for line in faults]
    findings += _leaks(by_split) + _copies(by_split) + _missing(by_split, labels, refused=bool(faults))
    findings += _masks(facts) + _files(facts)
    splits = {split: {"images": lengths[split], "sizes": _sizes(own)} for split, own in by_split.items()}
    classes = [_row(i, name, by_split) for i, name in enumerate(labels.names)]
    return Report(splits, classes, findings, suggestions(by_split, labels))


def _row(index: int, name: str, by_split: Mapping[str, Sequence[Facts]]) -> ClassRow:
    pixels = {split: sum(int(each.pixels[index]) for each in own) for split, own in by_split.items()}
    total = {split: max(sum(each.total for each in own), 1) for split, own in by_split.items()}
    images = {split: sum(bool(each.pixels[index]) for each in own) for split, own in by_split.items()}
    empty = np.zeros(0, np.int64)
    facts = [each for own in by_split.values() for each in own]
    areas = np.concatenate([empty, *(each.regions.get(index, empty) for each in facts)])
    whole = areas[areas >= _CELL]
    both, either = np.sum([each.kept[:, index] for each in facts], axis=0) if facts else (0, 0)
    return ClassRow(
        name=name,
        share={split: pixels[split] / total[split] for split in by_split},
        images=images,
        regions=len(whole),
        specks=len(areas) - len(whole),
        median_cells=float(np.median(whole)) / _CELL if len(whole) else None,
        iou_at_quarter=float(both / either) if either else None,
    )


def _leaks(by_split: Mapping[str, Sequence[Facts]]) -> list[Finding]:
    findings = []
    for one, two in combinations(by_split, 2):
        first, second = by_split[one], by_split[two]
        same = _equal(first, second)
        known = {theirs for _, theirs, _ in same}
        ours, theirs = ([each for each in own if each.fingerprint is not None] for own in (first, second))
        alike: list[tuple[str, str, int]] = []
        if ours and theirs:
            for pair in find_twins(_stack(ours), _stack(theirs)):
                names = f"{one}/{ours[pair.here].name}", f"{two}/{theirs[pair.there].name}"
                if names[1] not in known:
                    (same if pair.bits <= SAME else alike).append((*names, pair.bits))
        if same:
            text = f"{two} and {one} share {_count(same, 'picture')}: {_shown(same)}; scores on {two} are too high"
            findings.append(Finding("leak", text, [list(pair) for pair in same], fault=True))
        if alike:
            text = f"{two} and {one} have {_count(alike, 'pair')} of similar pictures: {_shown(alike)}; look at them"
            findings.append(Finding("similar", text, [list(pair) for pair in alike]))
    return findings


def _stack(facts: Sequence[Facts]) -> NDArray[np.int8]:
    return np.stack([each.fingerprint for each in facts if each.fingerprint is not None])


def _equal(first: Sequence[Facts], second: Sequence[Facts]) -> list[tuple[str, str, int]]:
    """Each picture of `second` that is in `first`; of one color, such as a black frame, there is nothing to learn."""
    ours = {each.picture: each for each in reversed(first) if each.fingerprint is not None}
    return [(_path(ours[each.picture]), _path(each), 0) for each in second if each.picture in ours]


def _copies(by_split: Mapping[str, Sequence[Facts]]) -> list[Finding]:
    findings = []
    for split, own in by_split.items():
        groups = defaultdict(list)
        for each in own:
            groups[each.picture].append(each)
        copies = [group for group in groups.values() if len(group) > 1]
        if odd := [group for group in copies if len({each.truth for each in group}) > 1]:
            names = [[_path(each) for each in group] for group in odd]
            text = f"{split}: {_count(odd, 'picture')} with several masks that differ: {' = '.join(names[0][:3])}"
            findings.append(Finding("contradiction", text, names))
        if even := [group for group in copies if len({each.truth for each in group}) == 1]:
            names = [[_path(each) for each in group] for group in even]
            text = f"{split}: {_count(even, 'picture')} stored several times: {' = '.join(names[0][:3])}"
            findings.append(Finding("copies", text, names))
    return findings


def _missing(by_split: Mapping[str, Sequence[Facts]], labels: Labels, *, refused: bool) -> list[Finding]:
    findings = []
    for split, own in by_split.items():
        if refused and split == "train":
            continue
        shown = np.sum([each.pixels for each in own], axis=0) > 0 if own else np.ones(len(labels.names), bool)
        if names := [name for name, seen in zip(labels.names, shown, strict=True) if not seen]:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            findings.append(Finding("missing", f"no mask of {split} shows {', '.join(names[:6])}{more}", names))
    return findings


def _masks(facts: Sequence[Facts]) -> list[Finding]:
    findings = []
    doubts = defaultdict(list)
    for each in facts:
        if each.fit and (doubt := each.fit.doubt):
            doubts[doubt[0]].append((each, doubt[1]))
    judged = sum(each.fit is not None for each in facts)
    for what, found in doubts.items():
        first, details = found[0]
        example = f"{_path(first)} ({details})" if details else _path(first)
        text = f"{len(found)} of {judged} masks {what}, by the image's edges, such as {example}"
        findings.append(Finding("misaligned", text, [_path(each) for each, _ in found]))
    smoothed = [each for each in facts if each.steps.smoothed]
    total = sum((each.steps for each in facts), Steps(0, 0, 0))
    if smoothed:
        text = (
            f"{_count(smoothed, 'mask')} with smoothed borders, such as {_path(smoothed[0])}: a class whose number is "
            "between two others stands between them, a few pixels wide, as where a mask is resized by interpolation "
            f"({total.between} such places); resize masks by nearest neighbor"
        )
        findings.append(Finding("smoothed", text, [_path(each) for each in smoothed]))
    return findings


def _files(facts: Sequence[Facts]) -> list[Finding]:
    findings = []
    deep = [each for each in facts if each.deep]
    if deep:
        text = f"{len(deep)} of {len(facts)} images have more than 8 bits, such as {_path(deep[0])}"
        mixed = "; the others have 8: are they of one camera?" if len(deep) < len(facts) else ""
        findings.append(Finding("depth", text + mixed, [_path(each) for each in deep]))
    if turned := [each for each in facts if each.turn != 1]:
        text = f"EXIF turns {_count(turned, 'photograph')}, such as {_path(turned[0])}; they are read upright"
        findings.append(Finding("exif", text, [_path(each) for each in turned]))
    if small := [each for each in facts if min(each.size) < 64]:
        text = f"{_count(small, 'image')} with a side below 64 pixels, such as {_path(small[0])}"
        findings.append(Finding("small", text, [_path(each) for each in small]))
    if empty := [each for each in facts if not each.pixels.any()]:
        text = f"{_count(empty, 'mask')} wholly ignored, such as {_path(empty[0])}"
        findings.append(Finding("ignored", text, [_path(each) for each in empty]))
    return findings


def _sizes(facts: Sequence[Facts]) -> list[dict[str, int]]:
    counts = Counter(each.size for each in facts).most_common(3)
    return [{"height": size[0], "width": size[1], "images": count} for size, count in counts]


def _path(facts: Facts) -> str:
    return f"{facts.split}/{facts.name}"


def _count(items: Sequence[Any], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _shown(pairs: Sequence[tuple[str, str, int]]) -> str:
    texts = [f"{two} is {one}" if not bits else f"{two} ~ {one} ({bits} of 256 bits)" for one, two, bits in pairs[:3]]
    return ", ".join(texts) + (" …" if len(pairs) > 3 else "")
