"""SegFormer as a JAX function of a dictionary of weights, by the names and shapes of the Keras model's variables.

Written for training where a GPU has JAX and no TensorFlow. `test_on_jax` compares it with the Keras model.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from segformer_tf.config import SegFormerConfig

Weights = Mapping[str, Any]
STATISTICS = ("decoder/bn/moving_mean", "decoder/bn/moving_variance")


def shapes(config: SegFormerConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every variable, by its path in Keras."""
    found: dict[str, tuple[int, ...]] = {}

    def kernel(path: str, *shape: int, bias: bool = True) -> None:
        found[f"{path}/kernel"] = shape
        if bias:
            found[f"{path}/bias"] = shape[-1:] if shape[-1] > 1 or len(shape) < 4 else shape[-2:-1]

    def norm(path: str, width: int) -> None:
        found[f"{path}/gamma"] = found[f"{path}/beta"] = (width,)

    channels = 3
    for i, dim in enumerate(config.embed_dims):
        stage, patch, sr = f"encoder/stage{i + 1}", config.patch_sizes[i], config.sr_ratios[i]
        hidden = config.mlp_ratio * dim
        kernel(f"{stage}/patch_embed/proj", patch, patch, channels, dim)
        norm(f"{stage}/patch_embed/norm", dim)
        for j in range(config.depths[i]):
            block = f"{stage}/block{j}"
            norm(f"{block}/norm1", dim)
            kernel(f"{block}/attn/q", dim, dim)
            kernel(f"{block}/attn/kv", dim, 2 * dim)
            kernel(f"{block}/attn/proj", dim, dim)
            if sr > 1:
                kernel(f"{block}/attn/sr", sr, sr, dim, dim)
                norm(f"{block}/attn/norm", dim)
            norm(f"{block}/norm2", dim)
            kernel(f"{block}/mlp/fc1", dim, hidden)
            kernel(f"{block}/mlp/dwconv", 3, 3, hidden, 1)
            kernel(f"{block}/mlp/fc2", hidden, dim)
        norm(f"{stage}/norm", dim)
        channels = dim
    width = config.decoder_width
    for i, dim in enumerate(config.embed_dims):
        kernel(f"decoder/linear_c{i + 1}", dim, width)
    kernel("decoder/linear_fuse", 1, 1, 4 * width, width, bias=False)
    norm("decoder/bn", width)
    found |= dict.fromkeys(STATISTICS, (width,))
    kernel("decoder/linear_pred", 1, 1, width, config.num_classes)
    return found


def fresh(config: SegFormerConfig, seed: int) -> dict[str, np.ndarray]:
    """Fresh weights by the rules of `segformer_tf.layers`: normal, sqrt(2 / fan out), or 0.02, cut at two of these."""
    random, weights = np.random.default_rng(seed), {}
    for path, shape in shapes(config).items():
        if path.endswith(("gamma", "moving_variance")):
            value = np.ones(shape)
        elif not path.endswith("kernel"):
            value = np.zeros(shape)
        elif len(shape) == 4 and "linear_pred" not in path:
            value = random.normal(0, sqrt(2 / (prod(shape[:2]) * shape[3])), shape)
        else:
            value = random.normal(0, 0.02, shape)
            while (far := abs(value) > 0.04).any():
                value[far] = random.normal(0, 0.02, far.sum())
        weights[path] = value.astype("float32")
    return weights


def features(
    weights: Weights, images: Any, config: SegFormerConfig, *, key: Any = None, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """c1..c4 of normalized images (B, H, W, 3); with a `key`, as in training: drop path by it."""
    rates = np.linspace(0.0, config.drop_path_rate, sum(config.depths))
    x, maps, number = images.astype(dtype), {}, 0
    for i in range(4):
        stage = f"encoder/stage{i + 1}"
        x = _patches(weights, f"{stage}/patch_embed/proj", x, config.strides[i], config.patch_sizes[i])
        x = _norm(weights, f"{stage}/patch_embed/norm", x, config.patch_norm_epsilon)
        for j in range(config.depths[i]):
            keys = [None, None] if key is None else jax.random.split(jax.random.fold_in(key, number))
            block = _block(weights, f"{stage}/block{j}", config, i)
            x = block(x, keys, float(rates[number]))
            number += 1
        x = maps[f"c{i + 1}"] = _norm(weights, f"{stage}/norm", x, config.epsilons["stage_norm_epsilon"])
    return maps


def decode(weights: Weights, maps: Mapping[str, Any], config: SegFormerConfig, *, key: Any = None) -> tuple[Any, Any]:
    """Logits (B, H/4, W/4, classes) in float32, and the new statistics, which are None without a `key`."""
    parts = jnp.split(weights["decoder/linear_fuse/kernel"][0, 0], 4, axis=0)[::-1]
    fused: Any = 0.0
    size = maps["c1"].shape[1:3]
    for i, part in enumerate(parts):
        path, x = f"decoder/linear_c{i + 1}", maps[f"c{i + 1}"]
        x = _product(x, weights[f"{path}/kernel"] @ part) + (weights[f"{path}/bias"] @ part).astype(x.dtype)
        fused = fused + resize(x, size)
    x, statistics = fused.astype(jnp.float32), None
    mean, variance = (weights[name] for name in STATISTICS)
    if key is not None:
        batch = x.mean((0, 1, 2)), x.var((0, 1, 2))
        statistics = {
            name: 0.9 * old + 0.1 * lax.stop_gradient(new)
            for name, old, new in zip(STATISTICS, (mean, variance), batch, strict=True)
        }
        mean, variance = batch
    x = (x - mean) * lax.rsqrt(variance + config.batch_norm_epsilon)
    x = jax.nn.relu(x * weights["decoder/bn/gamma"] + weights["decoder/bn/beta"])
    if key is not None:
        keep = 1 - config.dropout_rate
        x = x * jax.random.bernoulli(key, keep, (x.shape[0], 1, 1, x.shape[3])) / keep
    x = _product(x.astype(fused.dtype), weights["decoder/linear_pred/kernel"][0, 0])
    return x.astype(jnp.float32) + weights["decoder/linear_pred/bias"], statistics


def resize(x: Any, size: tuple[int, int]) -> Any:
    """Bilinear, half-pixel centers, without antialiasing."""
    if x.shape[1:3] == tuple(size):
        return x
    shape = (x.shape[0], *size, x.shape[3])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


def _block(weights: Weights, path: str, config: SegFormerConfig, i: int) -> Any:
    heads, sr = config.num_heads[i], config.sr_ratios[i]

    def attention(x: Any) -> Any:
        batch, height, width, dim = x.shape
        reduced = x
        if sr > 1:
            reduced = _reduce(weights, f"{path}/attn/sr", x, sr)
            reduced = _norm(weights, f"{path}/attn/norm", reduced, config.patch_norm_epsilon)
        query = _linear(weights, f"{path}/attn/q", x) * (dim // heads) ** -0.5
        keys, values = jnp.split(_linear(weights, f"{path}/attn/kv", reduced), 2, axis=-1)
        query, keys, values = (each.reshape(batch, -1, heads, dim // heads) for each in (query, keys, values))
        # As float32 from the start, the gradients of this product would be float32, too, and a step 4 % longer.
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, keys).astype(jnp.float32)
        shares = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        out = jnp.einsum("bhqk,bkhd->bqhd", shares, values).reshape(batch, height, width, dim)
        return _linear(weights, f"{path}/attn/proj", out)

    def mix_ffn(x: Any) -> Any:
        x = _depthwise(weights, f"{path}/mlp/dwconv", _linear(weights, f"{path}/mlp/fc1", x))
        return _linear(weights, f"{path}/mlp/fc2", 0.5 * x * (1 + lax.erf(x * np.array(sqrt(0.5), x.dtype))))

    def call(x: Any, keys: Any, rate: float) -> Any:
        for norm, branch, key in zip(("norm1", "norm2"), (attention, mix_ffn), keys, strict=True):
            out = branch(_norm(weights, f"{path}/{norm}", x, config.norm_epsilon))
            if key is not None and rate:
                keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1, 1))
                out = out * (keep / (1 - rate)).astype(out.dtype)
            x = x + out
        return x

    return call


def _linear(weights: Weights, path: str, x: Any) -> Any:
    return _product(x, weights[f"{path}/kernel"]) + weights[f"{path}/bias"].astype(x.dtype)


@jax.custom_vjp
def _product(x: Any, kernel: Any) -> Any:
    """`x @ kernel` in the dtype of `x`. On a GPU the plain gradient is one long sum, on a few of its processors."""
    return x @ kernel.astype(x.dtype)


def _product_gradient(saved: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
    x, kernel = saved
    tokens, parts = prod(x.shape[:-1]), 1
    while parts < 128 and tokens % (2 * parts) == 0 and tokens // (2 * parts) >= 256:
        parts *= 2
    rows = (each.reshape(parts, tokens // parts, -1) for each in (x, gradient))
    sums = jnp.einsum("pti,pto->pio", *rows, preferred_element_type=jnp.float32)
    return gradient @ kernel.astype(x.dtype).T, sums.sum(0)


_product.defvjp(lambda x, kernel: (_product(x, kernel), (x, kernel)), _product_gradient)


def _patches(weights: Weights, path: str, x: Any, stride: int, patch: int) -> Any:
    """A convolution padded by ``patch // 2``, as products: its kernel lies within 2x2 blocks of `stride` pixels."""
    kernel, pad = weights[f"{path}/kernel"], patch // 2
    height, width = x.shape[1:3]
    rows, columns = -(-height // stride), -(-width // stride)
    border = [(pad, stride * (rows + 1) - height - pad), (pad, stride * (columns + 1) - width - pad)]
    x = _blocks(jnp.pad(x, [(0, 0), *border, (0, 0)]), stride)
    kernel = jnp.pad(kernel, [(0, 2 * stride - patch)] * 2 + [(0, 0)] * 2)
    total = weights[f"{path}/bias"].astype(x.dtype)
    for i in range(2):
        for j in range(2):
            part = kernel[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            total = total + _product(x[:, i : i + rows, j : j + columns], part.reshape(-1, kernel.shape[3]))
    return total


def _reduce(weights: Weights, path: str, x: Any, ratio: int) -> Any:
    """A convolution with kernel and stride `ratio`, remainders dropped, as one product."""
    rows, columns = (side // ratio for side in x.shape[1:3])
    kernel = weights[f"{path}/kernel"]
    x = _blocks(x[:, : rows * ratio, : columns * ratio], ratio)
    return _product(x, kernel.reshape(-1, kernel.shape[3])) + weights[f"{path}/bias"].astype(x.dtype)


def _blocks(x: Any, side: int) -> Any:
    """Blocks of side x side pixels as channels: (B, H / side, W / side, side * side * C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // side, width // side, -1)


def _depthwise(weights: Weights, path: str, x: Any) -> Any:
    return _correlate(x, weights[f"{path}/kernel"][..., 0]) + weights[f"{path}/bias"].astype(x.dtype)


@jax.custom_vjp
def _correlate(x: Any, kernel: Any) -> Any:
    """3x3 on each channel, as nine products of shifted images, which XLA makes one kernel of."""
    total: Any = 0.0
    for (i, j), shifted in _shifted(x):
        total = total + shifted * kernel[i, j]
    return total.astype(x.dtype)


def _correlate_gradient(saved: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
    # Without the barrier, what the two are computed from would be computed nine times.
    (x, kernel), gradient = lax.optimization_barrier((saved, gradient))
    wide = gradient.astype(jnp.float32)
    # Rows first: sums of many columns side by side are quick on a GPU.
    taps = [(shifted * wide).sum((0, 1)).sum(0) for _, shifted in _shifted(x)]
    return _correlate(gradient, kernel[::-1, ::-1]), jnp.stack(taps).reshape(kernel.shape)


_correlate.defvjp(lambda x, kernel: (_correlate(x, kernel), (x, kernel)), _correlate_gradient)


def _shifted(x: Any) -> list[tuple[tuple[int, int], Any]]:
    """The nine images that a 3x3 kernel meets, in float32."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [((i, j), padded[:, i : i + height, j : j + width].astype(jnp.float32)) for i in range(3) for j in range(3)]


def _norm(weights: Weights, path: str, x: Any, epsilon: float) -> Any:
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean(-1, keepdims=True)
    scaled = centered * lax.rsqrt((centered**2).mean(-1, keepdims=True) + epsilon)
    return (scaled * weights[f"{path}/gamma"] + weights[f"{path}/beta"]).astype(x.dtype)
