"""A contact sheet of a data set: samples of each split under their masks, leaks and doubtful masks, and a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segformer_tf.labels import Labels
from segformer_tf.overlay import class_ids, overlay, with_legend
from segformer_tf.sampling import evenly_spaced
from training.data.open import Source
from training.data.quality.facts import Facts
from training.data.quality.report import Report

_COLUMNS = 6
_TILE = 240  # pixels
_CAPTION = 34
_SAMPLES = 12  # beside those that a class still needs
_DOUBTFUL = 6
_RED = (190, 0, 0)


def contact_sheet(sources: Mapping[str, Source], facts: Sequence[Facts], report: Report) -> Image.Image:
    """Draw it: 6 columns of 240 pixels, and a legend below.

    Args:
        sources: by split; the samples that are shown are read again.
        facts: of every sample.
        report: what was found.
    """
    by_path = {f"{each.split}/{each.name}": each for each in facts}
    leaks = [path for each in report.findings if each.topic == "leak" for pair in each.where for path in pair[:2]]
    doubtful = [path for each in report.findings if each.topic in ("misaligned", "smoothed") for path in each.where]
    rows: list[tuple[str, list[Facts]]] = [("", chosen_samples(facts))]
    for mark, paths in (("same picture: ", leaks), ("look: ", doubtful)):
        rows.append((mark, [by_path[path] for path in paths[:_DOUBTFUL]]))
    labels = next(iter(sources.values())).labels
    tiles: list[tuple[Image.Image, str]] = []
    masks = []
    for mark, chosen in rows:
        tiles += [(Image.new("RGB", (1, 1), "white"), "")] * (-len(tiles) % _COLUMNS if chosen else 0)
        for each in chosen:
            image, mask = sources[each.split][each.index]
            tiles.append((_picture(image, mask, labels), f"{mark}{each.split}/{each.name}"))
            masks.append(class_ids(mask))
    shown = sorted({i for own in masks for i in own})
    return with_legend(_arranged(tiles), labels, shown)


def chosen_samples(facts: Sequence[Facts]) -> list[Facts]:
    """Some of each split, and for each class that they do not show the sample that shows the most of it."""
    splits = list(dict.fromkeys(each.split for each in facts))
    chosen: list[Facts] = []
    for split in splits:
        own = [each for each in facts if each.split == split]
        chosen += evenly_spaced(own, max(_SAMPLES // len(splits), 1))
    if not facts:
        return []
    shown = np.sum([each.pixels for each in chosen], axis=0)
    for i in np.flatnonzero(shown == 0):
        best = max(facts, key=lambda each: each.pixels[i] / each.total)
        if best.pixels[i] and best not in chosen:
            chosen.append(best)
    return chosen


def _picture(image: np.ndarray, mask: np.ndarray, labels: Labels) -> Image.Image:
    picture, classes = Image.fromarray(image), Image.fromarray(mask)
    scale = min(_TILE / picture.width, _TILE / picture.height)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    small = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    few = np.asarray(classes.resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(overlay(small, few, labels, alpha=0.45))


def _arranged(tiles: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    ends = np.cumsum([max(picture.height for picture, _ in row) + _CAPTION for row in rows]).tolist()
    sheet = Image.new("RGB", (_COLUMNS * _TILE, ends[-1] if ends else 1), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (picture, caption) in enumerate(tiles):
        left, bottom = i % _COLUMNS * _TILE, ends[i // _COLUMNS] - _CAPTION
        sheet.paste(picture, (left + (_TILE - picture.width) // 2, bottom - picture.height))
        mark, _, name = caption.rpartition(": ")
        color = _RED if mark else (0, 0, 0)
        lines = [f"{mark}:", name] if mark else [name]
        for line, text in enumerate(lines):
            draw.text((left + 4, bottom + 2 + 15 * line), _cut(text, font), fill=color, font=font)
    return sheet


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text that is too long for a tile."""
    short = text
    while len(short) > 4 and font.getlength(short) > _TILE - 8:
        short = short[1:]
    return short if short == text else f"…{short[2:]}"
