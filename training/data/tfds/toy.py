"""`toy_shapes`: a generated data set, as a TFDS builder, so that a demo needs no download.

Overlapping shapes of five kinds, large and small, on a textured background. Color alone, which even a random network
sees, tells only warm shapes (disc, ring, triangle) from cool ones (square, star); the rest takes pattern and outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from segformer_tf.labels import IGNORE_ID

NAMES = ("background", "disc", "square", "triangle", "star", "ring")
SIZE = 128
SPLITS = {"train": 800, "val": 100, "test": 100}


class ToyShapes(tfds.core.GeneratorBasedBuilder):
    """Generated shapes: 128x128 images, masks with 255 on a band around every outline."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Generated shapes on textured background, for demonstration and tests.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "mask": tfds.features.LabeledImage(
                        shape=(SIZE, SIZE, 1), labels=list(NAMES), encoding_format="png"
                    ),
                }
            ),
            supervised_keys=("image", "mask"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(seed, SPLITS[split]) for seed, split in enumerate(SPLITS)}

    def _generate_examples(self, seed: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(count):
            image, mask = draw_sample(np.random.default_rng([seed, i]))
            yield i, {"image": image, "mask": mask[..., None]}


def draw_sample(rng: np.random.Generator) -> tuple[Any, Any]:
    """One (128, 128, 3) uint8 image and its (128, 128) uint8 mask."""
    image = _paint(rng, hue=(0, 256), saturation=(0, 70), pattern=_noise(rng, int(rng.integers(4, 33))))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(4, 9)):
        kind = int(rng.integers(1, len(NAMES)))
        radius = float(np.exp(rng.uniform(np.log(9), np.log(34))))  # small ones as often as large ones
        inside = _outline(kind, rng.uniform(0, SIZE, 2), radius, rng.uniform(0, 2 * np.pi))
        image[inside] = _paint(rng, hue=_HUES[NAMES[kind]], saturation=(110, 240), pattern=_pattern(rng, kind))[inside]
        mask[inside] = kind
    return image, np.where(_edges(mask), IGNORE_ID, mask).astype(np.uint8)


_WARM, _COOL = (0, 38), (130, 175)  # hues, of 256
_HUES = {"disc": _WARM, "ring": _WARM, "triangle": _WARM, "square": _COOL, "star": _COOL}


def _paint(rng: np.random.Generator, *, hue: tuple[int, int], saturation: tuple[int, int], pattern: Any) -> Any:
    """(128, 128, 3) uint8: a random color whose brightness follows a (128, 128) pattern of -1..1, with grain."""
    color = Image.new("HSV", (1, 1), (int(rng.integers(*hue)), int(rng.integers(*saturation)), 255)).convert("RGB")
    value = rng.uniform(0.45, 0.75) + rng.choice([-0.21, 0.21]) * pattern
    grain = rng.normal(0, 5, (SIZE, SIZE, 3))
    return np.clip(np.asarray(color, np.float32)[0, 0] * value[..., None] + grain, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, cells: int) -> Any:
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _pattern(rng: np.random.Generator, kind: int) -> Any:
    """(128, 128) of -1..1: stripes, checks or smooth noise, depending on the kind, at a random angle and phase."""
    angle, (phase_u, phase_v) = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:SIZE, :SIZE] * (2 * np.pi / 8)
    u, v = x * np.cos(angle) + y * np.sin(angle) + phase_u, y * np.cos(angle) - x * np.sin(angle) + phase_v
    if NAMES[kind] == "ring":
        return np.sin(u)
    if NAMES[kind] in ("triangle", "star"):
        return np.sign(np.sin(u) * np.sin(v))
    return 0.5 * _noise(rng, 12)


def _outline(kind: int, center: Any, radius: float, angle: float) -> Any:
    """(128, 128) bool, the inside of a shape, drawn four times larger and sampled at the center of each pixel."""
    canvas = Image.new("1", (4 * SIZE, 4 * SIZE))
    draw, c = ImageDraw.Draw(canvas), 4 * np.asarray(center)
    if NAMES[kind] in ("disc", "ring"):
        for r, fill in [(radius, 1), (0.5 * radius, 0)][: 1 + (NAMES[kind] == "ring")]:
            draw.ellipse([*(c - 4 * r), *(c + 4 * r)], fill=fill)
    else:
        radii = {"square": [1.1] * 4, "triangle": [1.2] * 3, "star": [1.2, 0.5] * 5}[NAMES[kind]]
        turns = angle + 2 * np.pi * np.arange(len(radii)) / len(radii)
        corners = c + 4 * radius * np.array(radii)[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
        draw.polygon([tuple(corner) for corner in corners], fill=1)
    return np.asarray(canvas)[2::4, 2::4]


def _edges(mask: Any) -> Any:
    """Pixels that touch another class to the right, left, above or below."""
    padded = np.pad(mask, 1, mode="edge")
    neighbors = padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1]
    return np.any([each != mask for each in neighbors], axis=0)
