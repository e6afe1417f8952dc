"""SegFormer written a second time, in torch and in the paper's plain form, to compare with.

Plain functions over a dict of weights by the Keras model's own variable paths. Tokens are a sequence, heads
come from `scaled_dot_product_attention`, the decoder upsamples and concatenates as in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer_tf import SegFormer, SegFormerConfig


def weights_of(model: SegFormer) -> dict[str, Tensor]:
    return {v.path: torch.from_numpy(v.numpy().copy()) for v in model.weights}


def segformer(w: dict[str, Tensor], config: SegFormerConfig, image: Tensor) -> dict[str, Tensor]:
    """(B, H, W, 3) to {"c1".."c4", "fused", "logits"}, all NHWC."""
    x, out = image.permute(0, 3, 1, 2), {}
    for s in range(4):
        x = stage(w, config, s, x)
        out[f"c{s + 1}"] = x
    out["fused"] = fuse(w, config, [out[f"c{s + 1}"] for s in range(4)])
    y = F.batch_norm(
        out["fused"],
        w["decoder/bn/moving_mean"],
        w["decoder/bn/moving_variance"],
        w["decoder/bn/gamma"],
        w["decoder/bn/beta"],
        eps=config.batch_norm_epsilon,
    )
    out["logits"] = conv(w, "decoder/linear_pred", F.relu(y))
    return {name: value.permute(0, 2, 3, 1) for name, value in out.items()}


def stage(w: dict[str, Tensor], config: SegFormerConfig, s: int, x: Tensor) -> Tensor:
    root, patch = f"encoder/stage{s + 1}", config.patch_sizes[s]
    x = conv(w, f"{root}/patch_embed/proj", x, stride=config.strides[s], padding=patch // 2)
    height, width = x.shape[2:]
    tokens = norm(w, f"{root}/patch_embed/norm", to_tokens(x), config.patch_norm_epsilon)
    for b in range(config.depths[s]):
        block = f"{root}/block{b}"
        y = norm(w, f"{block}/norm1", tokens, config.norm_epsilon)
        tokens = tokens + attention(w, f"{block}/attn", config, s, y, height, width)
        y = linear(w, f"{block}/mlp/fc1", norm(w, f"{block}/norm2", tokens, config.norm_epsilon))
        kernel = w[f"{block}/mlp/dwconv/kernel"].permute(2, 3, 0, 1)  # (C, 1, 3, 3)
        y = F.conv2d(to_image(y, height, width), kernel, w[f"{block}/mlp/dwconv/bias"], padding=1, groups=len(kernel))
        tokens = tokens + linear(w, f"{block}/mlp/fc2", F.gelu(to_tokens(y)))
    return to_image(norm(w, f"{root}/norm", tokens, config.norm_epsilon), height, width)


def attention(
    w: dict[str, Tensor], path: str, config: SegFormerConfig, s: int, tokens: Tensor, height: int, width: int
) -> Tensor:
    ratio, heads = config.sr_ratios[s], config.num_heads[s]
    reduced = tokens
    if ratio > 1:
        reduced = to_tokens(conv(w, f"{path}/sr", to_image(tokens, height, width), stride=ratio))
        reduced = norm(w, f"{path}/norm", reduced, config.patch_norm_epsilon)
    q, (k, v) = linear(w, f"{path}/q", tokens), linear(w, f"{path}/kv", reduced).chunk(2, dim=-1)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    y = F.scaled_dot_product_attention(split(q), split(k), split(v))
    return linear(w, f"{path}/proj", y.transpose(1, 2).flatten(2))


def fuse(w: dict[str, Tensor], config: SegFormerConfig, features: list[Tensor]) -> Tensor:
    size, branches = features[0].shape[2:], []
    for s in (3, 2, 1, 0):
        y = to_image(linear(w, f"decoder/linear_c{s + 1}", to_tokens(features[s])), *features[s].shape[2:])
        branches.append(F.interpolate(y, size=size, mode="bilinear", align_corners=False))
    return conv(w, "decoder/linear_fuse", torch.cat(branches, dim=1))


def conv(w: dict[str, Tensor], path: str, x: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, w[f"{path}/kernel"].permute(3, 2, 0, 1), w.get(f"{path}/bias"), stride=stride, padding=padding)


def linear(w: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    return x @ w[f"{path}/kernel"] + w[f"{path}/bias"]


def norm(w: dict[str, Tensor], path: str, x: Tensor, epsilon: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{path}/gamma"], w[f"{path}/beta"], eps=epsilon)


def to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # (B, H·W, C)


def to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
