"""Folds: weights of the same function with fewer operations, in float64.

Each rewrite is exact. A map is a pair (kernel, bias), applied as ``x @ kernel + bias``; a convolution's kernel
(kh, kw, in, out) folds like a map where it is not padded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Map = tuple[Array, Array]  # kernel, bias
Affine = tuple[Array, Array]  # gamma, beta


def array(variable: Any) -> Array:
    """A Keras variable as float64."""
    return np.asarray(variable, np.float64)


def scale_in(kernel: Array, gamma: Array) -> Array:
    """``(x * gamma) @ kernel`` as ``x @ scale_in(kernel, gamma)``; of a padded convolution too."""
    return kernel * gamma[:, None]


def affine(norm: Any) -> Affine:
    """(gamma, beta) of a LayerNorm."""
    return array(norm.gamma), array(norm.beta)


def affine_in(kernel: Array, bias: Array, pending: Affine) -> Map:
    """``(x * gamma + beta) @ kernel + bias`` as one map: folds a normalization's affine part into what follows.

    Of a convolution only without padding, for padding's zeros come after beta.
    """
    gamma, beta = pending
    taps = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)  # what all positions of the kernel do to a constant
    return scale_in(kernel, gamma), bias + beta @ taps


def centered(kernel: Array, bias: Array) -> Map:
    """``y - mean(y)`` of ``y = x @ kernel + bias`` as one map.

    Every reader of a residual stream is a LayerNorm, which subtracts the mean: when each writer writes none, no reader
    has to, and LayerNorm becomes ``x / sqrt(mean(x²) + epsilon)``.
    """
    return kernel - kernel.mean(-1, keepdims=True), bias - bias.mean()


def then(first: Map, kernel: Array, bias: Array) -> Map:
    """A 1x1 map after a map, as one."""
    return first[0] @ kernel, first[1] @ kernel + bias


def batch_norm(norm: Any) -> Affine:
    """(scale, shift) of a batch normalization at rest."""
    scale = array(norm.gamma) / np.sqrt(array(norm.moving_variance) + norm.epsilon)
    return scale, array(norm.beta) - array(norm.moving_mean) * scale
