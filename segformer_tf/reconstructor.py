"""The MiT encoder as a painter of masked images, for pretraining without labels."""

from __future__ import annotations

from math import prod
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf
from keras import layers

from segformer_tf.config import SegFormerConfig, variant_config
from segformer_tf.distributed_fit import MultiWorkerFit
from segformer_tf.layers import PACKAGE, linear_init
from segformer_tf.model import MixTransformer, as_config
from segformer_tf.unquantized import Dense, Unquantized


@keras.saving.register_keras_serializable(PACKAGE)
class PixelHead(layers.Layer):
    """One linear map from each cell of c4 to the pixels that it stands for, 32x32 of them.

    Args:
        config: a `SegFormerConfig` or its `to_dict`.

    Input shapes: c4, (B, ⌈H/32⌉, ⌈W/32⌉, C4), and the image, (B, H, W, 3), whose size alone is used.
    Output shape: (B, H, W, 3); of the cells at the right and bottom edge, what lies outside the image is cut off.
    """

    def __init__(self, config: SegFormerConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = as_config(config)
        self.cell = prod(self.config.strides)
        self.linear = Dense(
            3 * self.cell**2, kernel_initializer=linear_init(), dtype=self.dtype_policy, name="linear_pixels"
        )

    def build(self, c4_shape: Any, image_shape: Any) -> None:
        self.linear.build(c4_shape)

    def call(self, c4: Any, image: Any) -> Any:
        size = tf.shape(image)
        pixels = tf.nn.depth_to_space(self.linear(c4), self.cell)  # (B, 32⌈H/32⌉, 32⌈W/32⌉, 3)
        return tf.ensure_shape(pixels[:, : size[1], : size[2]], (None, *image.shape[1:3], 3))

    def compute_output_shape(self, c4_shape: Any, image_shape: Any) -> Any:
        return (*image_shape[:3], 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(PACKAGE)
class MixTransformerReconstructor(Unquantized, MultiWorkerFit, keras.Model):
    """`MixTransformer` and one linear map from c4 to pixels, as a Keras functional model.

    It learns to paint what blocks of an image were hidden. The map reads c4 alone, as SimMIM's does with Swin: every
    stage lies on the way, and what a hidden cell shows can only come from cells around it. From features on the 1/4
    grid, stage 1 could continue colors and edges by itself.

    Args:
        config: sizes and epsilons of the encoder; its classes and its decoder's fields mean nothing here.
        image_size: (height, width), either of them None for any.

    Input: (B, H, W, 3) float, RGB 0..255 after `SegFormerConfig.normalize`, then 0 where it is hidden.
    Output: (B, H, W, 3), the whole image in the same units.

    Attributes:
        config: the argument.
        encoder: `MixTransformer`; ``model.encoder(images)`` gives {"c1".."c4"}.
        head: `PixelHead`.

    Raises:
        InputError: a known height or width below 29.

    Source: SimMIM, arXiv 2111.09886.
    """

    def __init__(
        self,
        config: SegFormerConfig | dict[str, Any],
        *,
        image_size: tuple[int | None, int | None] = (None, None),
        name: str = "mix_transformer_reconstructor",
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        config = as_config(config)
        image = keras.Input((*image_size, 3), name="image")
        encoder = MixTransformer(config, dtype=dtype, name="encoder")
        head = PixelHead(config, dtype=encoder.dtype_policy, name="head")
        super().__init__(inputs=image, outputs=head(encoder(image)["c4"], image), name=name, **kwargs)
        self.config = config
        self.image_size = tuple(image_size)
        self.encoder = encoder
        self.head = head
        self.dtype_policy = encoder.dtype_policy  # by which `compile` decides on loss scaling

    def get_config(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "image_size": list(self.image_size),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.encoder.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MixTransformerReconstructor:
        return cls(**config)


def build_reconstructor(variant: str, *, dtype: Any = None, **overrides: Any) -> MixTransformerReconstructor:
    """A built reconstructor with fresh weights.

    Args:
        variant: "b0".."b5" (Table 6 of the paper) or "tiny".
        dtype: dtype or policy of the layers, such as "mixed_float16"; None takes Keras' global one.
        overrides: fields of `SegFormerConfig`, such as ``drop_path_rate=0.0``.

    Raises:
        InputError: an unknown variant, or a bad field.
    """
    return MixTransformerReconstructor(variant_config(variant, num_classes=1, **overrides), dtype=dtype)
