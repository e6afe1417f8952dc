"""Pictures of single images in a page: truth, prediction, errors, and where two models differ."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.image import Pixels, fit_image
from segformer_tf.labels import IGNORE_ID, Color
from segformer_tf.overlay import WRONG, class_ids, errors, faded, overlay
from training.analysis.report.scan import Differences, predict
from training.data.open import Source, sample_name
from training.evaluate import ImageScore, Predictor, Scores

_WIDEST = 480  # pixels
_QUALITY = 82  # of WebP
_EACH = 3  # images of a kind

FIRST_RIGHT: Color = (0, 114, 178)  # Okabe and Ito's, which the color-blind tell apart
SECOND_RIGHT: Color = (230, 159, 0)
BOTH_WRONG: Color = (0, 0, 0)


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        name: of the file.
        note: scores in words.
        pictures: (title, address with the picture in it).
        legend: (name, color) of the classes that are seen.
        marks: (meaning, color) of the other colors.
    """

    name: str
    note: str
    pictures: list[tuple[str, str]]
    legend: list[tuple[str, Color]]
    marks: list[tuple[str, Color]]


def chosen(scores: Scores) -> dict[str, list[ImageScore]]:
    """The worst, the median and the best images by mean IoU, three of each, or fewer of few; no image twice."""
    ranked = sorted((each for each in scores.per_image if not np.isnan(each.mean_iou)), key=lambda each: each.mean_iou)
    each = min(_EACH, len(ranked) // 3)
    if not each:
        return {"All images": ranked}
    middle = (len(ranked) - each) // 2
    return {
        "The worst images": ranked[:each],
        "Median images": ranked[middle : middle + each],
        "The best images": ranked[-each:][::-1],
    }


def draw_errors(predictor: Predictor, source: Source, score: ImageScore) -> Row:
    """Image, truth, prediction and errors of one image, which is read and predicted once more."""
    image, truth = source[score.index]
    mask, labels = predict(predictor, image).mask, source.labels
    valid = truth != IGNORE_ID
    wrong = float((mask != truth)[valid].mean())
    return Row(
        name=score.name,
        note=f"mean IoU {score.mean_iou:.3f}, {wrong:.1%} of its pixels wrong",
        pictures=[
            ("image", embedded(image)),
            ("truth", embedded(overlay(image, truth, labels))),
            ("prediction", embedded(overlay(image, mask, labels))),
            ("errors", embedded(errors(image, truth, mask))),
        ],
        legend=_legend(source, truth, mask),
        marks=[("wrong", WRONG), *_ignored(truth)],
    )


def draw_differences(
    predictors: Sequence[Predictor], names: Sequence[str], source: Source, differences: Differences
) -> list[Row]:
    """The images in which two models differ the most: image, truth, both predictions, and where they differ."""
    rows, labels = [], source.labels
    for index, share in differences.most(_EACH):
        image, truth = source[index]
        one, two = (predict(each, image).mask for each in predictors)
        rows.append(
            Row(
                name=sample_name(source, index),
                note=f"{share:.1%} of its pixels differ",
                pictures=[
                    ("image", embedded(image)),
                    ("truth", embedded(overlay(image, truth, labels))),
                    *(
                        (name, embedded(overlay(image, mask, labels)))
                        for name, mask in zip(names, (one, two), strict=True)
                    ),
                    ("where they differ", embedded(difference_map(image, truth, one, two))),
                ],
                legend=_legend(source, truth, one, two),
                marks=[
                    (f"{names[0]} alone is right", FIRST_RIGHT),
                    (f"{names[1]} alone is right", SECOND_RIGHT),
                    (
                        "two wrong answers, or ignored" if (truth == IGNORE_ID).any() else "two wrong answers",
                        BOTH_WRONG,
                    ),
                ],
            )
        )
    return rows


def difference_map(image: Pixels, truth: NDArray[np.uint8], one: NDArray[np.uint8], two: NDArray[np.uint8]) -> Pixels:
    """The image in gray, in color where two predictions differ, black where ignored: (H, W, 3) uint8."""
    picture, differ = faded(image), one != two
    picture[differ] = BOTH_WRONG
    picture[differ & (one == truth)] = FIRST_RIGHT
    picture[differ & (two == truth)] = SECOND_RIGHT
    picture[truth == IGNORE_ID] = 0
    return picture


def embedded(pixels: Pixels) -> str:
    """A picture as an address that holds it, WebP of at most 480 pixels a side."""
    factor = min(1, _WIDEST / max(pixels.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    content = BytesIO()
    Image.fromarray(fit_image(pixels, (height, width))).save(content, "WEBP", quality=_QUALITY)
    return data_address("image/webp", content.getvalue())


def data_address(kind: str, content: bytes) -> str:
    """The address of a file that is inside it."""
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _legend(source: Source, truth: NDArray[np.uint8], *masks: NDArray[np.uint8]) -> list[tuple[str, Color]]:
    labels, ignored = source.labels, truth == IGNORE_ID
    seen = class_ids(np.concatenate([truth.ravel(), *(np.where(ignored, IGNORE_ID, mask).ravel() for mask in masks)]))
    return [(labels.names[i], labels.colors[i]) for i in seen]


def _ignored(truth: NDArray[np.uint8]) -> list[tuple[str, Color]]:
    return [("ignored", (0, 0, 0))] if (truth == IGNORE_ID).any() else []
