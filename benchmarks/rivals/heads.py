"""Decoders that go on libraries' backbones, as the papers and their configurations have them; torch, channels first.

Each takes a backbone's feature maps, large ones first, and gives logits on a grid of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def block(inputs: int, outputs: int, kernel: int = 1, *, groups: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization, ReLU; the size stays."""
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, groups=groups, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """A depthwise 3x3 block, and a 1x1 block."""
    return nn.Sequential(block(inputs, inputs, 3, groups=inputs, dilation=dilation), block(inputs, outputs))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the size of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class AllMLP(nn.Module):
    """SegFormer's decoder in the paper's form: map, resize, concatenate, fuse."""

    def __init__(self, channels: Sequence[int], classes: int, width: int = 256) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fuse = block(len(channels) * width, width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [resized(linear(x), features[0]) for linear, x in zip(self.linear, features, strict=True)]
        return self.classify(self.fuse(torch.cat(maps[::-1], 1)))


class SemanticFPN(nn.Module):
    """Kirillov et al. 2019, section 3: a pyramid of 256 channels, each level upsampled in steps to 1/4, and added."""

    def __init__(self, channels: Sequence[int], classes: int, width: int = 256, inner: int = 128) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.levels = nn.ModuleList(
            nn.ModuleList(block(inner if i else width, inner, 3) for i in range(max(1, level)))
            for level in range(len(channels))
        )
        self.classify = nn.Conv2d(inner, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + functional.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
        total = None
        for level, (smooth, blocks) in enumerate(zip(self.smooth, self.levels, strict=True)):
            x = smooth(maps[level])
            for each in blocks:  # type: ignore[attr-defined]  # a ModuleList of ModuleLists
                x = each(x)
                if level:
                    x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        return self.classify(total)


class DeepLabPlus(nn.Module):
    """DeepLabv3+ (Chen et al. 2018) with separable convolutions, in mmsegmentation's sizes; logits at 1/4.

    Args:
        channels: of the features at 1/4, and of those at 1/8.
        classes: of the logits.
        low: width that the features at 1/4 are reduced to.
        width: of all else.
        rates: dilations of the pyramid.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        classes: int,
        low: int,
        width: int = 512,
        rates: Sequence[int] = (12, 24, 36),
    ) -> None:
        super().__init__()
        near, deep = channels
        self.pooled = block(deep, width)
        self.branches = nn.ModuleList([block(deep, width), *(separable(deep, width, rate) for rate in rates)])
        self.bottleneck = block((2 + len(rates)) * width, width, 3)
        self.low = block(near, low)
        self.decoder = nn.Sequential(separable(width + low, width), separable(width, width))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        near, deep = features
        # litert-torch 0.10 makes of `expand` a broadcast that LiteRT refuses.
        pooled = resized(self.pooled(deep.mean((2, 3), keepdim=True)), deep)
        x = self.bottleneck(torch.cat([pooled, *(branch(deep) for branch in self.branches)], 1))
        return self.classify(self.decoder(torch.cat([resized(x, near), self.low(near)], 1)))


class EfficientViTHead(nn.Module):
    """Cai et al. 2023, section 3.2: stages 2 to 4 mapped to one width, added at 1/8, and inverted bottlenecks.

    Args:
        channels: of the features at 1/8, 1/16 and 1/32.
        classes: of the logits, at 1/8.
        width, depth: of the bottlenecks, which widen by 4.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)) for c in channels
        )
        self.blocks = nn.ModuleList(self._bottleneck(width) for _ in range(depth))
        self.classify = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _bottleneck(width: int) -> nn.Sequential:
        def norm(channels: int, *after: nn.Module) -> list[nn.Module]:
            return [nn.BatchNorm2d(channels), *after]

        inner = 4 * width
        return nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            *norm(inner, nn.Hardswish()),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            *norm(inner, nn.Hardswish()),
            nn.Conv2d(inner, width, 1, bias=False),
            *norm(width),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = sum(resized(each(x), features[0]) for each, x in zip(self.maps, features, strict=True))
        for each in self.blocks:
            x = x + each(x)
        return self.classify(x)


class SETRNaive(nn.Module):
    """Zheng et al. 2021, section 3.3: two 1x1 convolutions on the last layer's tokens; logits at 1/16."""

    def __init__(self, channels: int, classes: int, width: int = 256) -> None:
        super().__init__()
        self.map = block(channels, width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.classify(self.map(features))
