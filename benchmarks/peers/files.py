"""The contenders' files, made once, with random weights, on which speed does not depend.

transformers' forms share their weights, so that their logits can be compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.files import CLASSES, make_once, write_keras, write_torch
from benchmarks.picture import SIZE, normalized
from segformer_tf.config import SegFormerConfig, variant_config

if TYPE_CHECKING:
    import torch

    from segformer_tf.model import SegFormer

CALIBRATION = 10  # pictures


@dataclass(frozen=True)
class PeerFile:
    """How a file to compare with is written.

    Attributes:
        write: writes the file of a configuration to a path, in a process of its own.
        packages: that the file depends on.
        parts: suffixes of the files that belong together; the last one is opened.
    """

    write: Callable[[SegFormerConfig, Path], None]
    packages: tuple[str, ...]
    parts: tuple[str, ...]


def prepare(name: str, variant: str, folder: Path) -> None:
    """Make a file of `PEERS`, unless there is one by the installed versions (or by packages not installed here).

    Raises:
        ImportError: a package that makes it is not installed.
        InputError: the folder cannot be written.
    """
    peer, config = PEERS[name], variant_config(variant, num_classes=CLASSES)
    make_once(partial(peer.write, config), folder / name, peer.packages, peer.parts)


def plain_logits(model: SegFormer, images: Any) -> Any:
    """The network with the decoder as the paper writes it: ``fuse(concat(up(linear_i(c_i))))``.

    Args:
        model: with the paper's decoder.
        images: as the model takes them.

    Returns:
        The model's logits; `AllMLPDecoder` computes them in commuted form.
    """
    import tensorflow as tf

    features, decoder = model.encoder(images, training=False), model.decoder
    size = features["c1"].shape[1:3]
    branches = [tf.image.resize(linear(features[f"c{i}"]), size) for i, linear in enumerate(decoder.linear_c, start=1)]
    fused = decoder.linear_fuse(tf.concat(branches[::-1], -1))
    return decoder.linear_pred(tf.nn.relu(decoder.bn(fused, training=False)))


def torch_model(config: SegFormerConfig) -> torch.nn.Module:
    """transformers' SegformerForSemanticSegmentation, from pixels (1, 3, H, W) to logits; the same weights each time.

    Biases and norms are off their defaults, which hide mistakes. Kernels are at a third of the scale that keeps a
    signal's size: at the full one a random network amplifies the rounding of int8 until its logits say nothing.
    """
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = SegformerForSemanticSegmentation(
                SegformerConfig(
                    num_labels=config.num_classes,
                    depths=config.depths,
                    hidden_sizes=config.embed_dims,
                    decoder_hidden_size=config.decoder_width,
                )
            )

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values=pixels).logits

    model, generator = Logits().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3 * parameter[0].numel() ** -0.5, generator=generator)
            else:  # of norms, and biases
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def _write_plain(config: SegFormerConfig, out: Path) -> None:
    import tensorflow as tf

    from segformer_tf.model import SegFormer

    model = SegFormer(config)

    def serve(image: tf.Tensor) -> tf.Tensor:
        return plain_logits(model, config.normalize(image))

    write_keras(model, serve, out)


def keras_hub_model(config: SegFormerConfig, image_size: tuple[int, int]) -> Any:
    """keras-hub's SegFormer of the same sizes, with fresh weights; its logits are at full size."""
    from keras_hub.models import MiTBackbone, SegFormerBackbone, SegFormerImageSegmenter

    encoder = MiTBackbone(
        layerwise_depths=list(config.depths),
        num_layers=4,
        layerwise_num_heads=list(config.num_heads),
        layerwise_sr_ratios=list(config.sr_ratios),
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=list(config.patch_sizes),
        layerwise_strides=list(config.strides),
        hidden_dims=list(config.embed_dims),
        image_shape=(*image_size, 3),
    )
    backbone = SegFormerBackbone(encoder, projection_filters=config.decoder_width)
    return SegFormerImageSegmenter(backbone, num_classes=config.num_classes)


def _write_keras_hub(config: SegFormerConfig, out: Path) -> None:
    model = keras_hub_model(config, SIZE)
    write_keras(model, lambda image: model(image, training=False), out)


def _write_litert_torch(config: SegFormerConfig, out: Path) -> None:
    write_torch(torch_model(config), out)


def _write_onnx(config: SegFormerConfig, out: Path) -> None:
    import torch

    pixels = torch.zeros(1, 3, *SIZE)
    torch.onnx.export(torch_model(config), (pixels,), str(out), dynamo=False, opset_version=17)


def _write_openvino_int8(config: SegFormerConfig, out: Path) -> None:
    import nncf
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        _write_onnx(config, onnx := Path(folder) / "model.onnx")
        model = openvino.convert_model(onnx)
    images = [normalized(seed) for seed in range(1, 1 + CALIBRATION)]  # 0 is the picture of the race
    settings = {"model_type": nncf.ModelType.TRANSFORMER, "subset_size": CALIBRATION}
    openvino.save_model(nncf.quantize(model, nncf.Dataset(images), **settings), out, compress_to_fp16=False)


TORCH = ("transformers", "torch")
PEERS = {
    "plain.tflite": PeerFile(_write_plain, ("tensorflow", "keras"), (".tflite",)),
    "keras_hub.tflite": PeerFile(_write_keras_hub, ("keras-hub", "tensorflow", "keras"), (".tflite",)),
    "litert_torch.tflite": PeerFile(_write_litert_torch, ("litert-torch", *TORCH), (".tflite",)),
    "transformers.onnx": PeerFile(_write_onnx, TORCH, (".onnx",)),
    "openvino_int8.xml": PeerFile(_write_openvino_int8, ("nncf", "openvino", *TORCH), (".bin", ".xml")),
}
