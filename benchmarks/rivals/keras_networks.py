"""The rivals that keras-hub carries, with fresh weights: DeepLabv3+, from normalized pixels to logits at full size."""

from __future__ import annotations

from typing import Any

from benchmarks.files import CLASSES
from benchmarks.picture import SIZE, normalized


def deeplab_resnet() -> Any:
    """keras-hub's DeepLabv3+ on ResNet-50, as the example of its DeepLabV3Backbone has it."""
    from keras_hub.models import ResNetBackbone

    encoder = ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(*SIZE, 3),
    )
    return _segmenter(encoder, CLASSES, pooled="P5")


def deeplab_mobilenet(classes: int = CLASSES, size: tuple[int, int] = SIZE) -> Any:
    """keras-hub's DeepLabv3+ on the MobileNetV3-Large of keras.applications.

    keras-hub's own MobileNetBackbone names no feature maps, which its DeepLabV3Backbone needs. The pyramid takes the
    last features at 1/16, as there is no dilated form.
    """
    import keras

    whole = keras.applications.MobileNetV3Large(
        input_shape=(*size, 3), include_top=False, weights=None, include_preprocessing=False
    )
    near, deep = (whole.get_layer(f"expanded_conv_{i}_add").output for i in (2, 11))  # of 24 and 112 channels
    encoder = keras.Model(whole.input, deep)
    encoder.pyramid_outputs = {"P2": near, "P4": deep}
    return _segmenter(encoder, classes, pooled="P4")


def _segmenter(encoder: Any, classes: int, pooled: str) -> Any:
    from keras_hub.models import DeepLabV3Backbone, DeepLabV3ImageSegmenter

    backbone = DeepLabV3Backbone(
        encoder,
        spatial_pyramid_pooling_key=pooled,
        upsampling_size=2 ** (int(pooled[1]) - 2),
        dilation_rates=[6, 12, 18],
        low_level_feature_key="P2",
        image_shape=encoder.input_shape[1:],
    )
    return DeepLabV3ImageSegmenter(backbone, num_classes=classes)


def settle(model: Any) -> None:
    """Put statistics of pictures into the batch normalizations, as `torch_networks.settle` does."""
    import numpy as np

    norms = batch_norms(model)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(np.concatenate([normalized(seed) for seed in (1, 2)]).transpose(0, 2, 3, 1), training=True)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def batch_norms(model: Any) -> list[Any]:
    """All batch normalizations of a model, however deep inside."""
    import keras

    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
