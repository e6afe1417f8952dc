"""The networks that are compared, each with its published accuracy and where that stands; no TensorFlow or torch here.

Builders are named, not imported: each runs in a process of its own, as do the converters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TORCH = ("torch", "timm", "litert-torch")
TRANSFORMERS = ("torch", "transformers", "litert-torch")
KERAS = ("keras-hub", "keras", "tensorflow")
QUANTIZER = ("ai-edge-quantizer",)


@dataclass(frozen=True)
class Published:
    """What somebody measured on ADE20K's 150 classes, single scale, trained and tested at 512x512.

    Attributes:
        mean_iou: in percent.
        source: where it stands, with its table.
        parameters: in millions, if it stands there too.
        gmac: 10^9 multiply-adds at 512x512, if they stand there too.
    """

    mean_iou: float
    source: str
    parameters: float | None = None
    gmac: float | None = None


@dataclass(frozen=True)
class Network:
    """One of those that are compared.

    Attributes:
        key: stem of its files.
        name: in the table.
        road: "ours" by `segformer export`, "torch" by litert-torch, "keras" by TensorFlow's converter.
        packages: that its files depend on.
        make: name of the builder in `torch_networks` or `keras_networks`; the variant, for ours.
        options: of the builder.
        published: None if nobody has published it, or not of this network.
    """

    key: str
    name: str
    road: Literal["ours", "torch", "keras"]
    packages: tuple[str, ...]
    make: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: Published | None = None


def _ours(variant: str, published: Published | None) -> Network:
    name = f"SegFormer-{variant.upper() if variant != 'tiny' else variant}"
    return Network(f"ours_{variant}", name, "ours", ("segformer_tf", "tensorflow", "keras"), variant, {}, published)


def _segformer(mean_iou: float, parameters: float, gmac: float) -> Published:
    return Published(mean_iou, "SegFormer, arXiv:2105.15203v3, Table 1a", parameters, gmac)


def _pvt(mean_iou: float, parameters: float, gmac: float) -> Published:
    return Published(mean_iou, "PVT v2, arXiv:2106.13797, Table 5", parameters, gmac)


def _efficientvit(mean_iou: float, parameters: float, gmac: float) -> Published:
    source = "mit-han-lab/efficientvit, applications/efficientvit_seg/README.md, table ADE20K"
    return Published(mean_iou, source, parameters, gmac)


def _mobilevit(mean_iou: float, parameters: float) -> Published:
    return Published(mean_iou, "apple/ml-cvnets, README-model-zoo.md, table ADE20k", parameters)


def _mmseg(mean_iou: float, where: str) -> Published:
    return Published(mean_iou, f"open-mmlab/mmsegmentation, configs/{where}, table ADE20K, 160k steps")


NETWORKS = (
    _ours("tiny", None),
    _ours("b0", _segformer(37.4, 3.8, 8.4)),
    _ours("b1", _segformer(42.2, 13.7, 15.9)),
    _ours("b2", _segformer(46.5, 27.5, 62.4)),
    Network(
        "efficientvit_b1", "EfficientViT-B1", "torch", TORCH, "efficientvit",
        {"name": "efficientvit_b1", "width": 64, "depth": 3}, _efficientvit(42.84, 4.8, 3.1),
    ),
    Network(
        "efficientvit_b2", "EfficientViT-B2", "torch", TORCH, "efficientvit",
        {"name": "efficientvit_b2", "width": 96, "depth": 3}, _efficientvit(45.94, 15, 9.1),
    ),
    Network("mobilevit_s", "MobileViT-S, DeepLabv3", "torch", TRANSFORMERS, "mobilevit"),
    Network(
        "mobilevitv2_100", "MobileViTv2-1.0, DeepLabv3", "torch", TRANSFORMERS, "mobilevit_v2",
        {"width": 1.0}, _mobilevit(37.06, 13.4),
    ),
    Network(
        "pvtv2_b0", "PVTv2-B0, Semantic FPN", "torch", TORCH, "semantic_fpn",
        {"name": "pvt_v2_b0"}, _pvt(37.2, 7.6, 25.0),
    ),
    Network(
        "pvtv2_b0_mlp", "PVTv2-B0, All-MLP", "torch", TORCH, "all_mlp", {"name": "pvt_v2_b0"},
    ),
    Network(
        "pvtv2_b1", "PVTv2-B1, Semantic FPN", "torch", TORCH, "semantic_fpn",
        {"name": "pvt_v2_b1"}, _pvt(42.5, 17.8, 34.2),
    ),
    Network(
        "repvit_m2", "RepViT-M2, Semantic FPN", "torch", TORCH, "semantic_fpn", {"name": "repvit_m2"},
        Published(40.6, "THU-MIG/RepViT, segmentation/README.md, table Models"),
    ),
    Network(
        "deeplab_mobilenet_v2", "DeepLabv3+, MobileNetV2", "torch", TORCH, "deeplab",
        {"name": "mobilenetv2_100", "low": 48, "near": 1}, _mmseg(34.02, "mobilenet_v2/README.md"),
    ),
    Network(
        "deeplab_resnet50", "DeepLabv3+, ResNet-50", "torch", TORCH, "deeplab",
        {"name": "resnet50c", "low": 48, "near": 1}, _mmseg(43.95, "deeplabv3plus/README.md"),
    ),
    Network("hub_mobilenet_v3", "DeepLabv3+, MobileNetV3, keras-hub", "keras", KERAS, "deeplab_mobilenet"),
    Network("hub_resnet50", "DeepLabv3+, ResNet-50, keras-hub", "keras", KERAS, "deeplab_resnet"),
    Network(
        "swin_t", "Swin-T, UperNet", "torch", TRANSFORMERS, "upernet_swin", {},
        Published(44.51, "SwinTransformer/Swin-Transformer-Semantic-Segmentation, README.md, table ADE20K", 60),
    ),
    Network("vit_ti", "ViT-Ti/16, SETR naive", "torch", TORCH, "setr", {"name": "vit_tiny_patch16_224"}),
    Network(
        "setr_vit_l", "SETR naive, ViT-L/16", "torch", TORCH, "setr", {"name": "vit_large_patch16_224"},
        _mmseg(48.28, "setr/README.md"),
    ),
)  # fmt: skip
