"""From the times of a few graphs to those of others, by their multiply-adds.

The time of an image is ``a * linear + b * attention``, see `segformer_tf.complexity`: two sizes of a variant give a
and b. What a place of the grid costs beside its multiply-adds, such as norms and GELU, is in a; softmax and what no
longer fits a cache are in b. A variant that is not timed has the a and b of the timed one whose channels are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from segformer_tf.complexity import complexity
from segformer_tf.config import VARIANTS, SegFormerConfig, variant_config

# Recipes that compute as a timed one does: only their weights are stored otherwise.
COMPUTES_AS = {"fp32": "fp32", "fp16": "fp32", "weight_int8": "fp32", "dynamic_int8": "dynamic_int8", "int8": "int8"}
_BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "weight_int8": 1.0, "dynamic_int8": 1.0, "int8": 1.0}


@dataclass(frozen=True)
class Sample:
    """A timed graph.

    Attributes:
        variant, recipe, size: what it is.
        classes: of its logits.
        invoke: milliseconds from pixels to logits, median.
        picture: milliseconds that resize the image before it and make the mask after it, median.
        megabytes: of its file.
        memory: megabytes of its process.
    """

    variant: str
    recipe: str
    size: tuple[int, int]
    classes: int
    invoke: float
    picture: float
    megabytes: float
    memory: float


@dataclass(frozen=True)
class Estimate:
    """What a network would take. Times are milliseconds per image.

    Attributes:
        variant, recipe, size: what it is; size is (height, width).
        timed: whether it was timed here, with as many classes.
        invoke: from pixels to logits.
        total: with the resize before and the mask after it.
        megabytes: of the file.
        memory: megabytes of a process that runs it.
        gmac: 10^9 multiply-adds.
    """

    variant: str
    recipe: str
    size: tuple[int, int]
    timed: bool
    invoke: float
    total: float
    megabytes: float
    memory: float
    gmac: float


def estimate(
    samples: Sequence[Sample], variant: str, recipe: str, size: tuple[int, int], *, num_classes: int
) -> Estimate:
    """The estimate for a network, which is the measurement itself for one of `samples`.

    Args:
        samples: at least one of the recipe that it computes as, see `COMPUTES_AS`, and of its own channels.
        variant, recipe, size, num_classes: of the network.
    """
    nearest = timed_variant(variant, (s.variant for s in samples))
    kin = [s for s in samples if s.recipe == COMPUTES_AS[recipe] and s.variant == nearest]
    config = variant_config(variant, num_classes=num_classes)
    work = complexity(config, size)
    matrix = np.array([_work(variant_config(s.variant, num_classes=s.classes), s.size) for s in kin])
    rates = _not_negative(matrix, np.array([s.invoke for s in kin]))
    invoke = float(_work(config, size) @ rates)
    picture = float(np.median([s.picture / _picture(s.size, s.classes) for s in kin])) * _picture(size, num_classes)
    same = [s for s in kin if (s.variant, s.size, s.classes, s.recipe) == (variant, size, num_classes, recipe)]
    if same:
        invoke, picture = same[0].invoke, same[0].picture
    return Estimate(
        variant=variant,
        recipe=recipe,
        size=size,
        timed=bool(same),
        invoke=invoke,
        total=invoke + picture,
        megabytes=_megabytes(config, recipe),
        memory=_memory(kin, config, recipe, size),
        gmac=work.total / 1e9,
    )


def timed_variant(variant: str, timed: Iterable[str]) -> str:
    """The one of the `timed` variants whose channels are those of `variant`, or whose are nearest."""
    names = sorted(set(timed))
    width = VARIANTS[variant]["embed_dims"][-1]
    return min(names, key=lambda name: (name != variant, abs(VARIANTS[name]["embed_dims"][-1] - width)))


def _work(config: SegFormerConfig, size: tuple[int, int]) -> NDArray[np.float64]:
    work = complexity(config, size)
    return np.array([work.linear, work.attention], np.float64)


def _picture(size: tuple[int, int], classes: int) -> float:
    """What resizing and the mask cost, but for a factor.

    A pixel costs as much as 80 of its classes: on a photo few of them meet in one place.
    """
    return prod(size) * (80 + classes)


def _not_negative(matrix: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least relative squares with two rates that are not negative."""
    scaled = matrix / times[:, None]
    rates = np.linalg.lstsq(scaled, np.ones(len(times)), rcond=None)[0]
    if len(times) > 1 and (rates >= 0).all():
        return rates
    total = scaled.sum(1)  # one rate for both
    return np.full(2, total.sum() / (total @ total))


def _megabytes(config: SegFormerConfig, recipe: str) -> float:
    """Weights, and 0.1 MB of graph and of scales per block."""
    return (config.parameter_count * _BYTES_PER_WEIGHT[recipe] + 15e3 * sum(config.depths)) / 1e6


def _memory(kin: Sequence[Sample], config: SegFormerConfig, recipe: str, size: tuple[int, int]) -> float:
    """The measured memory, less the file, grows with the pixels; the file is held as it is."""
    pixels = np.array([prod(s.size) for s in kin], np.float64)
    rest = np.array([s.memory - s.megabytes for s in kin])
    if len(kin) > 1 and np.ptp(pixels):
        slope, base = np.polyfit(pixels, rest, 1)
    else:
        slope, base = 0.0, float(rest.mean())
    return float(base + max(slope, 0.0) * prod(size)) + _megabytes(config, recipe)
