"""Options for a training that the data suggests, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from segformer_tf.labels import Labels
from training.data.eval_size import bounded_size
from training.data.quality.facts import Facts

_STRIDE = 32  # of the deepest stage
_CROP = 512  # the default
_KEPT = 0.8  # IoU of a class after the 1/4 grid, below which it is easily lost
_RARE = 0.005  # share of the pixels
_POWER = 0.4


@dataclass(frozen=True)
class Suggestion:
    """Options of a verb, and why."""

    verb: str
    options: str
    reason: str


def suggestions(by_split: Mapping[str, Sequence[Facts]], labels: Labels) -> list[Suggestion]:
    """What to try, from the facts of each split; train and val alone count."""
    train, validation = by_split.get("train", ()), by_split.get("val") or by_split.get("valid") or ()
    size = _small_objects(train, validation, labels) or [_eval_size(validation)]
    found = [_crop(train), *size, _class_weights(train, labels)]
    return [each for each in found if each]


def _crop(train: Sequence[Facts]) -> Suggestion | None:
    if not train:
        return None
    height, width = np.median([each.size for each in train], axis=0).astype(int).tolist()
    crop = [max(min(_CROP, side // _STRIDE * _STRIDE), _STRIDE) for side in (height, width)]
    if crop == [_CROP, _CROP]:
        return None
    reason = (
        f"half of train's images are no larger than {height}x{width}: of a crop of {_CROP}x{_CROP} the rest would be "
        "filled with nothing; half of that trains faster"
    )
    return Suggestion("train", f"--crop {crop[0]} {crop[1]}", reason)


def _eval_size(validation: Sequence[Facts]) -> Suggestion | None:
    counts = Counter(each.size for each in validation)
    if len(counts) < 2:
        return None
    first, (usual, count) = validation[0].size, counts.most_common(1)[0]
    if count * 2 < len(validation):
        height, width = np.median([each.size for each in validation], axis=0).astype(int).tolist()
        usual, why = (height, width), f"sizes of val differ, by half around {height}x{width}"
    else:
        why = f"{count} of {len(validation)} images of val are {usual[0]}x{usual[1]}"
    height, width = bounded_size(usual)
    if np.allclose((height, width), bounded_size(first), rtol=0.1):
        return None
    reason = f"{why}; without it all are stretched to the first one's {first[0]}x{first[1]}"
    return Suggestion("train", f"--eval-size {height} {width}", reason)


def _small_objects(train: Sequence[Facts], validation: Sequence[Facts], labels: Labels) -> list[Suggestion | None]:
    """A larger size where the 1/4 grid loses much of a class."""
    if not train or not validation:
        return []
    both, either = np.sum([each.kept for each in train], axis=0)
    few = [(both[i] / either[i], name) for i, name in enumerate(labels.names) if both[i] < _KEPT * either[i]]
    if not few:
        return []
    own = np.median([each.size for each in validation], axis=0) * 1.5
    height, width = (
        max(int(side / _STRIDE + 0.5) * _STRIDE, _STRIDE) for side in bounded_size((int(own[0]), int(own[1])))
    )
    if height * width <= np.median([each.size[0] * each.size[1] for each in validation]):
        return []  # they are as large as memory takes
    kept, name = min(few)
    others = f", with {len(few) - 1} more below {_KEPT}" if len(few) > 1 else ""
    reason = (
        f"{name} is so thin or small that the network's grid of 4x4 pixels keeps an IoU of {kept:.2f} of it at best"
        f"{others}; enlarged images keep more, and take longer"
    )
    size = f"{height} {width}"
    return [Suggestion("train", f"--eval-size {size}", reason), Suggestion("export", f"--size {size}", "the same size")]


def _class_weights(train: Sequence[Facts], labels: Labels) -> Suggestion | None:
    if not train:
        return None
    pixels = np.sum([each.pixels for each in train], axis=0)
    shares = pixels / max(pixels.sum(), 1)
    shown = np.flatnonzero(pixels)
    if len(shown) < 2 or shares[shown].min() >= _RARE:
        return None
    rare, common = shown[shares[shown].argmin()], shown[shares[shown].argmax()]
    factor = (log(1.02 + shares[common]) / log(1.02 + shares[rare])) ** _POWER
    reason = (
        f"{labels.names[rare]} has {100 * shares[rare]:.2g} % of train's pixels, {labels.names[common]} "
        f"{100 * shares[common]:.2g} %; this weighs the first {factor:.1f} times as much"
    )
    return Suggestion("train", f"--class-weights {_POWER}", reason)
