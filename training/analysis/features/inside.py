"""What a network computes of one photo: principal components of its features, and attention of one pixel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.image import Pixels
from segformer_tf.model import SegFormer
from training.analysis.network import STAGE_NAMES, stage_outputs


@dataclass(frozen=True)
class Components:
    """The first principal components of one output.

    Attributes:
        maps: (n, h, w) float32, of mean 0; signs are such that the value farthest from 0 is positive.
        shares: (n,) of the variance over positions, 0..1.
    """

    maps: NDArray[np.float32]
    shares: NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """What one position of a stage attends to, in its last block.

    Attributes:
        weights: (heads, h, w) float32 over the stage's keys; each head's sum is 1.
        key_side: pixels of the image's side that one key stands for. Keys do not reach the right and the lower border
            where that does not divide the image's side.
        row, column: of the position, on the stage's grid.
    """

    weights: NDArray[np.float32]
    key_side: int
    row: int
    column: int


def feature_maps(model: SegFormer, image: Pixels, *, count: int) -> dict[str, Components]:
    """The principal components of each output of `stage_outputs`.

    Args:
        model: of `open_network`.
        image: (H, W, 3) uint8 RGB.
        count: number of components of each output, at most its channels.
    """
    outputs = stage_outputs(model, image[None].astype(np.float32))
    return {name: principal_components(np.asarray(output)[0], count) for name, output in outputs.items()}


def principal_components(features: NDArray[np.float32], count: int) -> Components:
    """The first `count` of (h, w, C) features."""
    centered = features - features.mean((0, 1))
    flat = centered.reshape(-1, centered.shape[-1])
    variances, axes = np.linalg.eigh(flat.T.astype(np.float64) @ flat)  # from the smallest to the largest
    maps = np.moveaxis(centered @ axes[:, ::-1][:, :count], -1, 0)
    farthest = maps.reshape(count, -1)
    farthest = farthest[np.arange(count), np.abs(farthest).argmax(1)]
    maps = maps * np.where(farthest < 0, -1, 1)[:, None, None]
    shares = variances[::-1][:count] / max(variances.sum(), np.finfo(np.float64).tiny)
    return Components(maps.astype(np.float32), shares.astype(np.float32))


def attention_of(model: SegFormer, image: Pixels, pixel: tuple[int, int]) -> dict[str, Attention]:
    """What the cell over a pixel attends to in each stage.

    Args:
        model: of `open_network`.
        image: (H, W, 3) uint8 RGB.
        pixel: x and y, from the upper left corner, inside the image. Of each stage's grid, stretched over the image,
            the cell that covers it is taken.

    Returns:
        "stage 1" to "stage 4".
    """
    found: dict[str, Attention] = {}
    config, x = model.config, model.get_layer("normalization")(image[None].astype(np.float32))
    for i, (name, stage) in enumerate(zip(STAGE_NAMES, model.encoder.stages, strict=True)):
        x = stage.patch_embed(x)
        row, column = _covering(pixel, image.shape, x.shape)
        *first, last = stage.blocks
        for block in first:
            x = block(x)
        weights = last.attn.attention(last.norm1(x), row, column)
        key_side = prod(config.strides[: i + 1]) * config.sr_ratios[i]
        found[name] = Attention(np.asarray(weights, np.float32)[0], key_side, row, column)
        x = stage.norm(last(x))
    return found


def _covering(pixel: tuple[int, int], image: tuple[int, ...], grid: Any) -> tuple[int, int]:
    """Row and column of the cell of a (B, h, w, C) grid that covers a pixel (x, y) of an (H, W, 3) image."""
    (x, y), (height, width) = pixel, image[:2]
    return (2 * y + 1) * grid[1] // (2 * height), (2 * x + 1) * grid[2] // (2 * width)
