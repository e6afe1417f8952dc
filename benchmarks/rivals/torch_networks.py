"""The rivals that timm and transformers carry, with fresh weights: from normalized pixels to logits, channels first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.files import CLASSES
from benchmarks.picture import SIZE, normalized
from benchmarks.rivals import heads


class Segmenter(nn.Module):
    """A backbone of timm, and a decoder on some of its feature maps."""

    def __init__(self, backbone: nn.Module, head: nn.Module, picks: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.head, self.picks = backbone, head, tuple(picks)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone(pixels)
        return self.head([features[i] for i in self.picks])


def timm_network(
    name: str, head: Callable[[Sequence[int]], nn.Module], picks: Sequence[int] = (-4, -3, -2, -1), stride: int = 32
) -> nn.Module:
    """A backbone by its name in timm, and the head for the channels of the picked features."""
    import timm

    options = {} if stride == 32 else {"output_stride": stride}
    backbone = timm.create_model(name, pretrained=False, features_only=True, **options)
    channels = backbone.feature_info.channels()
    return Segmenter(backbone, head([channels[i] for i in picks]), picks)


def semantic_fpn(name: str) -> nn.Module:
    """A backbone of timm under Semantic FPN."""
    return timm_network(name, lambda channels: heads.SemanticFPN(channels, CLASSES))


def all_mlp(name: str) -> nn.Module:
    """A backbone of timm under SegFormer's decoder."""
    return timm_network(name, lambda channels: heads.AllMLP(channels, CLASSES))


def deeplab(name: str, *, low: int, near: int) -> nn.Module:
    """A backbone of timm at stride 8 under DeepLabv3+; its feature map number `near` is at 1/4."""
    return timm_network(
        name, lambda channels: heads.DeepLabPlus((channels[0], channels[1]), CLASSES, low), (near, -1), stride=8
    )


def efficientvit(name: str, *, width: int, depth: int) -> nn.Module:
    """A backbone of timm under EfficientViT's head."""
    return timm_network(name, lambda channels: heads.EfficientViTHead(channels, CLASSES, width, depth), (-3, -2, -1))


class _Tokens(nn.Module):
    """A ViT's last layer as a feature map: (B, 3, H, W) to (B, C, H/16, W/16)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        self.vit = timm.create_model(name, pretrained=False, img_size=SIZE, num_classes=0)
        self.channels: int = self.vit.num_features

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.vit.forward_features(pixels)[:, 1:]  # without the class token
        return tokens.transpose(1, 2).reshape(len(tokens), self.channels, SIZE[0] // 16, SIZE[1] // 16)


def setr(name: str) -> nn.Module:
    """A ViT of timm under SETR's naive decoder."""
    tokens = _Tokens(name)
    return nn.Sequential(tokens, heads.SETRNaive(tokens.channels, CLASSES))


class _Logits(nn.Module):
    """A transformers model's decoder's own logits, before it resizes them to the image."""

    def __init__(self, model: nn.Module, logits: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits(self.model, pixels)


def upernet_swin() -> nn.Module:
    """transformers' UperNet on Swin-T."""
    from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

    backbone = SwinConfig(
        image_size=SIZE[0],
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = UperNetConfig(backbone_config=backbone, num_labels=CLASSES, use_auxiliary_head=False)
    model = UperNetForSemanticSegmentation(config)
    return _Logits(model, lambda m, x: m.decode_head(m.backbone(x).feature_maps))  # type: ignore[operator]


def mobilevit_v2(width: float) -> nn.Module:
    """transformers' MobileViTV2 under DeepLabv3; logits at 1/16."""
    from transformers import MobileViTV2Config, MobileViTV2ForSemanticSegmentation

    model = MobileViTV2ForSemanticSegmentation(
        MobileViTV2Config(width_multiplier=width, num_labels=CLASSES, output_stride=16, image_size=SIZE[0])
    )
    return _Logits(model, lambda m, x: m(x).logits)


def mobilevit() -> nn.Module:
    """transformers' MobileViT-S under DeepLabv3; logits at 1/16."""
    from transformers import MobileViTConfig, MobileViTForSemanticSegmentation

    config = MobileViTConfig(num_labels=CLASSES, output_stride=16, image_size=SIZE[0])
    return _Logits(MobileViTForSemanticSegmentation(config), lambda m, x: m(x).logits)


def settle(model: nn.Module) -> nn.Module:
    """The model in inference mode, with statistics of two pictures in its batch normalizations.

    With fresh statistics a deep network's signal can fade to numbers that a CPU computes slowly.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
            if not norm.weight.any():  # a branch that adds nothing at first, which the converter would leave out
                nn.init.ones_(norm.weight)
        with torch.no_grad():
            model(torch.cat([torch.from_numpy(normalized(seed)) for seed in (1, 2)]))
    return model.eval()
