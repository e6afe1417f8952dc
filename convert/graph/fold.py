"""Folds: weights of the same function with fewer operations, in float64.

Each rewrite is exact. A map is a pair (kernel, bias), applied as ``x @ kernel + bias``; a convolution's kernel
(kh, kw, in, out) folds like a map where it is not padded.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64

Array: TypeAlias = np.ndarray
Kernel: TypeAlias = Float64[Array, "*window inputs outputs"]
Bias: TypeAlias = Float64[Array, "outputs"]
Map: TypeAlias = tuple[Kernel, Bias]
Affine: TypeAlias = tuple[Float64[Array, "inputs"], Float64[Array, "inputs"]]  # gamma, beta


def array(variable: Any) -> Float64[Array, "*shape"]:
    """A Keras variable as float64."""
    return np.asarray(variable, np.float64)


def scale_in(kernel: Kernel, gamma: Float64[Array, "inputs"]) -> Kernel:
    """``(x * gamma) @ kernel`` as ``x @ scale_in(kernel, gamma)``; of a padded convolution too."""
    return kernel * gamma[:, None]


def affine(norm: Any) -> Affine:
    """(gamma, beta) of a LayerNorm."""
    return array(norm.gamma), array(norm.beta)


def affine_in(kernel: Kernel, bias: Bias, pending: Affine) -> Map:
    """``(x * gamma + beta) @ kernel + bias`` as one map: folds a normalization's affine part into what follows.

    Of a convolution only without padding, for padding's zeros come after beta.
    """
    gamma, beta = pending
    taps = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)  # what all positions of the kernel do to a constant
    return scale_in(kernel, gamma), bias + beta @ taps


def centered(kernel: Kernel, bias: Bias) -> Map:
    """``y - mean(y)`` of ``y = x @ kernel + bias`` as one map.

    Every reader of a residual stream is a LayerNorm, which subtracts the mean: when each writer writes none, no reader
    has to, and LayerNorm becomes ``x / sqrt(mean(x²) + epsilon)``.
    """
    return kernel - kernel.mean(-1, keepdims=True), bias - bias.mean()


def then(
    first: tuple[Float64[Array, "inputs channels"], Float64[Array, "channels"]],
    kernel: Float64[Array, "channels outputs"],
    bias: Bias,
) -> tuple[Float64[Array, "inputs outputs"], Bias]:
    """A 1x1 map after a map, as one."""
    return first[0] @ kernel, first[1] @ kernel + bias


def batch_norm(norm: Any) -> Affine:
    """(scale, shift) of a batch normalization at rest."""
    scale = array(norm.gamma) / np.sqrt(array(norm.moving_variance) + norm.epsilon)
    return scale, array(norm.beta) - array(norm.moving_mean) * scale
