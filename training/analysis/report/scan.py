"""One pass over a split, with one model or with two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from segformer_tf.confidence import scores_to_confidence
from segformer_tf.image import Pixels
from segformer_tf.labels import IGNORE_ID
from segformer_tf.mask import logits_to_mask
from training.analysis.report.border_scores import BorderScores
from training.analysis.report.calibration import Calibration
from training.data.open import Source
from training.evaluate import Predictor, Scores, Scoring
from training.protocols import Logits, views

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """One model's answer to one image.

    Attributes:
        mask: (H, W) classes of the data.
        confidence: (H, W) float32, 0..1.
        milliseconds: of the network, from pixels to logits.
    """

    mask: Mask
    confidence: NDArray[np.float32]
    milliseconds: float


def predict(predictor: Predictor, image: Pixels) -> Prediction:
    """The mask that `predictor` itself gives, and how sure it is, of one run of the network.

    Args:
        predictor: with one view of an image: no windows, scales or mirroring.
        image: (H, W, 3) uint8.
    """
    spent = list[float]()

    def network(pixels: Pixels) -> Logits:
        start = perf_counter()
        logits = predictor.network(pixels)
        spent.append(1e3 * (perf_counter() - start))
        return logits

    (logits,) = views(network, image, predictor.protocol)
    size = image.shape[0], image.shape[1]
    mask = logits_to_mask(logits, size)
    order = predictor.match.order
    return Prediction(mask if order is None else order[mask], scores_to_confidence(logits, size), sum(spent))


@dataclass(frozen=True)
class Findings:
    """What one model did on the samples.

    Attributes:
        scores: IoU and all that comes of the confusion matrix.
        calibration: of its confidences.
        borders: agreement along borders.
        milliseconds: of the network, of each image.
    """

    scores: Scores
    calibration: Calibration
    borders: BorderScores
    milliseconds: list[float]


@dataclass
class Differences:
    """Where two models differ, in pixels that count.

    Attributes:
        pixels: all of them.
        differ: those with two answers.
        first, second: those of them where this one alone is right.
        per_image: (sample, share of its pixels that differ), where any counts.
    """

    pixels: int = 0
    differ: int = 0
    first: int = 0
    second: int = 0
    per_image: list[tuple[int, float]] = field(default_factory=list)

    def add(self, index: int, truth: Mask, one: Mask, two: Mask) -> None:
        """Count the sample `index`: (H, W) each."""
        valid = truth != IGNORE_ID
        differ = valid & (one != two)
        self.pixels += int(valid.sum())
        self.differ += int(differ.sum())
        self.first += int((differ & (one == truth)).sum())
        self.second += int((differ & (two == truth)).sum())
        if valid.any():
            self.per_image.append((index, float(differ.sum() / valid.sum())))

    def most(self, count: int) -> list[tuple[int, float]]:
        """The samples with the largest shares above 0."""
        return [each for each in sorted(self.per_image, key=lambda each: -each[1])[:count] if each[1] > 0]


def scan(
    predictors: Sequence[Predictor], source: Source, *, indices: Iterable[int]
) -> tuple[list[Findings], Differences | None]:
    """Score one or two models on samples of `source`, each of which is read once.

    Args:
        predictors: one or two.
        source: the split.
        indices: numbers of samples, which may be wrapped in a progress bar.

    Raises:
        InputError: a sample that cannot be read, or a mask of another size than its image.
    """
    count = len(source.labels.names)
    scorings = [Scoring(source) for _ in predictors]
    found = [Findings(each.scores(), Calibration(), BorderScores(count), []) for each in scorings]
    differences = Differences() if len(predictors) == 2 else None
    for i in indices:
        image, truth = source[i]
        masks, valid = [], truth != IGNORE_ID
        for scoring, own, predictor in zip(scorings, found, predictors, strict=True):
            with scoring.sample(i):
                answer = predict(predictor, image)
                scoring.add(i, truth, answer.mask)
            own.calibration.add(answer.confidence[valid], (answer.mask == truth)[valid])
            own.borders.add(truth, answer.mask)
            own.milliseconds.append(answer.milliseconds)
            masks.append(answer.mask)
        if differences:
            differences.add(i, truth, *masks)
    return [replace(own, scores=each.scores()) for own, each in zip(found, scorings, strict=True)], differences
