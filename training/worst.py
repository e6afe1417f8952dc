"""Draws the images of a split that a model does worst on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

from segformer_tf.files import atomic, make_folder
from segformer_tf.image import Pixels, fit_image
from segformer_tf.labels import IGNORE_ID, Labels
from segformer_tf.overlay import class_ids, errors, overlay, with_legend
from segformer_tf.terminal import plain_console
from training.data.open import Source
from training.evaluate import ImageScore, Scores

_WIDEST = 1024  # pixels of each of the four pictures
_SHEET = 1600  # pixels of the sheet's width


def draw_worst(
    predict: Callable[[Pixels], NDArray[np.uint8]], source: Source, scores: Scores, *, count: int, out: Path
) -> str:
    """Write a picture of each of the worst images, and ``sheet.png`` of all, to the folder `out`.

    They are read and predicted again, one at a time: the masks of a whole split are never kept.

    Args:
        predict: as it was scored.
        source: as it was scored.
        scores: of `source`.
        count: number of images, those of the lowest mean IoU; wholly ignored ones are left out.
        out: made if it is missing.

    Returns:
        A line that says what was written.

    Raises:
        InputError: the folder cannot be written.
    """
    make_folder(out)
    worst = worst_images(scores, count)
    console, rows = plain_console(stderr=True), []
    quiet = not console.is_terminal
    for rank, score in enumerate(track(worst, "drawing", console=console, transient=True, disable=quiet), 1):
        image, truth = source[score.index]
        row = panel(image, truth, predict(image), source.labels, score)
        stem = Path(score.name).stem if Path(score.name).suffix else score.name.replace(" ", "_")
        _save(row, out / f"{rank:0{len(str(len(worst)))}d}_{stem}.png")
        rows.append(row.resize((_SHEET, max(1, round(row.height * _SHEET / row.width))), Image.Resampling.LANCZOS))
    if not rows:
        return "no image has a pixel that counts: nothing is drawn"
    sheet = Image.new("RGB", (_SHEET, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    _save(sheet, out / "sheet.png")
    return (
        f"the {len(worst)} worst of {scores.images} images, of mean IoU {worst[0].mean_iou:.4f} to "
        f"{worst[-1].mean_iou:.4f} -> {out}"
    )


def worst_images(scores: Scores, count: int) -> list[ImageScore]:
    """The images of the lowest mean IoU, the lowest first, those of equal ones in their order."""
    counted = [image for image in scores.per_image if not np.isnan(image.mean_iou)]
    return sorted(counted, key=lambda image: image.mean_iou)[:count]


def panel(
    image: Pixels, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], labels: Labels, score: ImageScore
) -> Image.Image:
    """Image, truth, prediction and errors side by side, with titles, above a legend with the IoU of each class."""
    counts = truth != IGNORE_ID
    pictures = {
        score.name: image,
        "truth": overlay(image, truth, labels),
        f"prediction, mean IoU {score.mean_iou:.3f}": overlay(image, prediction, labels),
        f"errors, {(prediction != truth)[counts].mean():.1%} of pixels": errors(image, truth, prediction),
    }
    factor = min(1, _WIDEST / image.shape[1])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    size = max(12, width // 25)  # of the text, in pixels
    font = ImageFont.load_default(size)
    row = Image.new("RGB", (4 * width, height + 2 * size), "white")
    draw = ImageDraw.Draw(row)
    for i, (title, pixels) in enumerate(pictures.items()):
        row.paste(Image.fromarray(fit_image(pixels, (height, width))), (i * width, 2 * size))
        while font.getlength(title) > width and len(title) > 1:
            title = title[:-2] + "…"
        draw.text((i * width + width // 2, size), title, fill="black", font=font, anchor="mm")
    names = (f"{name} {iou:.2f}" for name, iou in zip(labels.names, score.per_class, strict=True))
    seen = class_ids(np.concatenate([truth.ravel(), np.where(counts, prediction, IGNORE_ID).ravel()]))
    return with_legend(row, Labels(tuple(names), labels.colors), seen, size=size)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic(path) as part:
        picture.save(part)
