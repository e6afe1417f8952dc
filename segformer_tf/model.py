"""SegFormer: the MiT encoder, the All-MLP decoder, and the two as one Keras model.

Source: arXiv 2105.15203, sections 3.1 (encoder) and 3.2 (decoder).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from keras.src.backend.common import global_state

from segformer_tf.config import SegFormerConfig, check_image_shape, variant_config
from segformer_tf.distributed_fit import MultiWorkerFit
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels, as_labels
from segformer_tf.layers import PACKAGE, OverlapPatchMerging, TransformerBlock, conv_init, linear_init
from segformer_tf.unquantized import Dense, Unquantized

STAGES = ("c1", "c2", "c3", "c4")

# XLA's bilinear resize is wrong at some sizes, such as from 9 to 17 (c2 to c1 of images of 65 pixels), and Keras asks
# for XLA by itself where there is a GPU, unless a layer says no.
RESIZES_UNDER_XLA = False


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Networks built in here have variables with names and shapes, and never values.

    Without this, Keras 3.15 would keep the variables and fill them later, in the next `fit` of any model.
    """
    name = "uninitialized_variables"
    waiting = list(global_state.get_global_attribute(name) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, waiting)


@keras.saving.register_keras_serializable(PACKAGE)
class MixTransformerStage(layers.Layer):
    """One encoder stage: overlap patch merging, transformer blocks, LayerNorm.

    With ``trainable = False`` it is in inference mode, without drop path: what is frozen gives the same features
    every time, as Keras' own BatchNormalization does.

    Args:
        config: a `SegFormerConfig` or its `to_dict`.
        index: 0..3.

    Input shape: (B, H, W, C). Output shape: (B, ceil(H / stride), ceil(W / stride), embed_dims[index]).
    """

    def __init__(self, config: SegFormerConfig | dict[str, Any], index: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = as_config(config)
        self.index = index
        c, i, policy = self.config, index, self.dtype_policy
        self.patch_embed = OverlapPatchMerging(
            c.embed_dims[i],
            patch_size=c.patch_sizes[i],
            stride=c.strides[i],
            epsilon=c.patch_norm_epsilon,
            dtype=policy,
            name="patch_embed",
        )
        # Drop path rises linearly from 0 over the blocks of all stages.
        rates = np.linspace(0.0, c.drop_path_rate, sum(c.depths))[sum(c.depths[:i]) :]
        self.blocks = [
            TransformerBlock(
                c.embed_dims[i],
                num_heads=c.num_heads[i],
                sr_ratio=c.sr_ratios[i],
                mlp_ratio=c.mlp_ratio,
                drop_path=float(rates[j]),
                epsilon=c.norm_epsilon,
                patch_epsilon=c.patch_norm_epsilon,
                gelu=c.gelu,
                dtype=policy,
                name=f"block{j}",
            )
            for j in range(c.depths[i])
        ]
        self.norm = layers.LayerNormalization(epsilon=c.epsilons["stage_norm_epsilon"], dtype=policy, name="norm")

    def build(self, input_shape: Any) -> None:
        self.patch_embed.build(input_shape)
        shape = self.compute_output_shape(input_shape)
        for layer in (*self.blocks, self.norm):
            layer.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.transform(self.patch_embed(x), training=training)

    def transform(self, x: Any, training: bool | None = None) -> Any:
        """What follows the patch embedding: the blocks, and the closing norm."""
        training = training if self.trainable else False
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.patch_embed.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "index": self.index}


@keras.saving.register_keras_serializable(PACKAGE)
class MixTransformer(layers.Layer):
    """The MiT encoder: four stages, no positional encoding.

    Args:
        config: a `SegFormerConfig` or its `to_dict`.

    Input shape: (B, H, W, 3), H and W from 29 up.
    Output: {"c1": (B, ⌈H/4⌉, ⌈W/4⌉, C1), "c2": 1/8, "c3": 1/16, "c4": 1/32}.

    Raises:
        InputError: a known height or width below 29, where a reduction would have no key left.
    """

    def __init__(self, config: SegFormerConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = as_config(config)
        self.stages = [
            MixTransformerStage(self.config, i, dtype=self.dtype_policy, name=f"stage{i + 1}") for i in range(4)
        ]

    def build(self, input_shape: Any) -> None:
        check_image_shape(input_shape)
        for stage in self.stages:
            stage.build(input_shape)
            input_shape = stage.compute_output_shape(input_shape)

    def call(self, image: Any, training: bool | None = None) -> dict[str, Any]:
        check_image_shape(image.shape)
        features, x = {}, image
        for name, stage in zip(STAGES, self.stages, strict=True):
            x = features[name] = stage(x, training=training)
        return features

    def compute_output_shape(self, input_shape: Any) -> dict[str, Any]:
        check_image_shape(input_shape)
        shapes = {}
        for name, stage in zip(STAGES, self.stages, strict=True):
            input_shape = shapes[name] = stage.compute_output_shape(input_shape)
        return shapes

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(PACKAGE)
class AllMLPDecoder(layers.Layer):
    """The All-MLP decoder (section 3.2), computed in commuted form.

    The paper: ``fuse(concat(up(linear_i(c_i))))``. Bilinear weights sum to 1, so a 1x1 affine map commutes
    with bilinear upsampling, and between ``linear_c{i}`` and ``linear_fuse`` everything is linear: the same function
    is ``sum_i up(c_i · (L_i F_i)) + sum_i b_i F_i``, where F_i are the rows of the fuse kernel for stage i. It halves
    the multiply-adds of b0, and the weights keep the paper's names and shapes.

    Args:
        config: a `SegFormerConfig` or its `to_dict`.

    Input: {"c1".."c4"}, the output of `MixTransformer`. Output shape: (B, ⌈H/4⌉, ⌈W/4⌉, num_classes), logits.
    """

    def __init__(self, config: SegFormerConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = RESIZES_UNDER_XLA
        self.config = as_config(config)
        c, policy = self.config, self.dtype_policy
        # These five hold weights only: `call` composes them.
        self.linear_c = [
            Dense(c.decoder_width, kernel_initializer=linear_init(), dtype=policy, name=f"linear_{stage}")
            for stage in STAGES
        ]
        self.linear_fuse = layers.Conv2D(
            c.decoder_width, 1, use_bias=False, kernel_initializer=conv_init(), dtype=policy, name="linear_fuse"
        )
        self.bn = layers.BatchNormalization(
            momentum=0.9, epsilon=c.batch_norm_epsilon, synchronized=True, dtype=policy, name="bn"
        )
        self.dropout = layers.SpatialDropout2D(c.dropout_rate, dtype=policy, name="dropout")
        # Small, so that the first logits are near 0: sqrt(2 / fan_out) grows as classes get fewer.
        self.linear_pred = layers.Conv2D(
            c.num_classes, 1, kernel_initializer=linear_init(), dtype=policy, name="linear_pred"
        )

    def build(self, input_shape: dict[str, Any]) -> None:
        width = self.config.decoder_width
        for name, linear in zip(STAGES, self.linear_c, strict=True):
            linear.build(input_shape[name])
        self.linear_fuse.build((*input_shape["c1"][:-1], 4 * width))
        fused_shape = (*input_shape["c1"][:-1], width)
        self.bn.build(fused_shape)
        self.linear_pred.build(fused_shape)

    def call(self, features: dict[str, Any], training: bool | None = None) -> Any:
        return self.linear_pred(self.dropout(self.hidden(features, training=training), training=training))

    def hidden(self, features: dict[str, Any], training: bool | None = None) -> Any:
        """What the classifier sees: (B, ⌈H/4⌉, ⌈W/4⌉, D), 0 or more."""
        return ops.relu(self.bn(self.fuse(features), training=training))

    def fuse(self, features: dict[str, Any]) -> Any:
        """The output of `linear_fuse` in the paper's form: (B, ⌈H/4⌉, ⌈W/4⌉, D), before batch normalization."""
        fused = self._branch("c1", features["c1"])
        size = ops.shape(fused)[1:3]
        for name in STAGES[1:]:
            fused = fused + self.contribution(name, features[name], size)
        return fused

    def contribution(self, name: str, feature: Any, size: Any) -> Any:
        """One stage's part of the fused sum on the 1/4 grid of `size`, for comparison with other code bases."""
        return upsample(self._branch(name, feature), size)

    def _branch(self, name: str, feature: Any) -> Any:
        """One stage's part of the fused sum on the stage's own grid, (B, H_i, W_i, D)."""
        # The paper concatenates c4, c3, c2, c1.
        slices = dict(zip(reversed(STAGES), ops.split(self.linear_fuse.kernel[0, 0], 4, axis=0), strict=True))
        linear = self.linear_c[STAGES.index(name)]
        kernel = ops.matmul(linear.kernel, slices[name])  # (C_i, D)
        bias = ops.matmul(linear.bias[None], slices[name])  # (1, D)
        x = ops.cast(feature, self.compute_dtype)
        return ops.conv(x, kernel[None, None], data_format="channels_last") + bias[None, None]

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["c1"][:-1], self.config.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(PACKAGE)
class MMSegDecoder(layers.Layer):
    """The decoder of mmsegmentation 1.x, which is not the paper's.

    Per stage a 1x1 convolution without bias, batch normalization and ReLU; upsampled and concatenated from c1 to c4;
    a 1x1 convolution, batch normalization and ReLU; the classifier. Because of the ReLU, the 1x1 maps and the
    upsampling do not commute, so it costs as much as the paper's plain form.

    Args:
        config: a `SegFormerConfig` or its `to_dict`.

    Input: {"c1".."c4"}, the output of `MixTransformer`. Output shape: (B, ⌈H/4⌉, ⌈W/4⌉, num_classes), logits.

    Reference: mmseg/models/decode_heads/segformer_head.py
    """

    def __init__(self, config: SegFormerConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = RESIZES_UNDER_XLA
        self.config = as_config(config)
        c, policy = self.config, self.dtype_policy

        def conv(name: str, channels: int, *, bias: bool = False) -> layers.Conv2D:
            init = linear_init() if bias else conv_init()
            return layers.Conv2D(channels, 1, use_bias=bias, kernel_initializer=init, dtype=policy, name=name)

        def norm(name: str) -> layers.BatchNormalization:
            return layers.BatchNormalization(
                momentum=0.9, epsilon=c.batch_norm_epsilon, synchronized=True, dtype=policy, name=name
            )

        self.conv_c = [conv(f"conv_{stage}", c.decoder_width) for stage in STAGES]
        self.bn_c = [norm(f"bn_{stage}") for stage in STAGES]
        self.conv_fuse = conv("conv_fuse", c.decoder_width)
        self.bn = norm("bn")
        self.dropout = layers.SpatialDropout2D(c.dropout_rate, dtype=policy, name="dropout")
        self.linear_pred = conv("linear_pred", c.num_classes, bias=True)

    def build(self, input_shape: dict[str, Any]) -> None:
        width = self.config.decoder_width
        for name, conv, norm in zip(STAGES, self.conv_c, self.bn_c, strict=True):
            conv.build(input_shape[name])
            norm.build((*input_shape[name][:-1], width))
        grid = input_shape["c1"][:-1]
        self.conv_fuse.build((*grid, 4 * width))
        self.bn.build((*grid, width))
        self.linear_pred.build((*grid, width))

    def call(self, features: dict[str, Any], training: bool | None = None) -> Any:
        return self.linear_pred(self.dropout(self.hidden(features, training=training), training=training))

    def hidden(self, features: dict[str, Any], training: bool | None = None) -> Any:
        """What the classifier sees: (B, ⌈H/4⌉, ⌈W/4⌉, D), 0 or more."""
        size = ops.shape(features["c1"])[1:3]
        branches = [upsample(self._branch(name, features[name], training), size) for name in STAGES]
        return ops.relu(self.bn(self.conv_fuse(ops.concatenate(branches, axis=-1)), training=training))

    def contribution(self, name: str, feature: Any, size: Any) -> Any:
        """One stage's part of the fused sum on the 1/4 grid of `size`, for comparison with other code bases."""
        kernel = ops.split(self.conv_fuse.kernel, 4, axis=2)[STAGES.index(name)]
        return ops.conv(upsample(self._branch(name, feature, False), size), kernel, data_format="channels_last")

    def _branch(self, name: str, feature: Any, training: bool | None) -> Any:
        i = STAGES.index(name)
        return ops.relu(self.bn_c[i](self.conv_c[i](feature), training=training))

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        return (*input_shape["c1"][:-1], self.config.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(PACKAGE)
class SegFormer(Unquantized, MultiWorkerFit, keras.Model):
    """SegFormer as a Keras functional model.

    Args:
        config: sizes, epsilons and labels.
        image_size: (height, width), either of them None for any.
        preprocess: take RGB 0..255 and normalize inside, by a layer without weights.
        frozen: names of the parts that are not trainable at first: stage1 to stage4, and decoder.

    Input: (B, H, W, 3) float, RGB 0..255 after `SegFormerConfig.normalize`; with `preprocess` RGB 0..255, float or
    integers.
    Output: (B, ⌈H/4⌉, ⌈W/4⌉, num_classes) logits. The 1/4 grid is the paper's; upsample logits, not the arg-max.

    Attributes:
        config: the `SegFormerConfig`.
        preprocess: whether the model normalizes.
        encoder: `MixTransformer`; ``model.encoder(images)`` gives {"c1".."c4"} of images that are normalized.
        decoder: `AllMLPDecoder`, or `MMSegDecoder` where the configuration says so.

    Raises:
        InputError: a known height or width below 29, or an unknown part.
    """

    def __init__(
        self,
        config: SegFormerConfig | dict[str, Any],
        *,
        image_size: tuple[int | None, int | None] = (None, None),
        preprocess: bool = False,
        frozen: Iterable[str] = (),
        name: str = "segformer",
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        config = as_config(config)
        image = keras.Input((*image_size, 3), name="image")
        encoder = MixTransformer(config, dtype=dtype, name="encoder")
        kind = AllMLPDecoder if config.decoder == "all_mlp" else MMSegDecoder
        decoder = kind(config, dtype=dtype, name="decoder")
        normalized = _normalization(config)(image) if preprocess else image
        super().__init__(inputs=image, outputs=decoder(encoder(normalized)), name=name, **kwargs)
        self.config = config
        self.image_size = tuple(image_size)
        self.preprocess = preprocess
        self.encoder = encoder
        self.decoder = decoder
        self.dtype_policy = encoder.dtype_policy  # by which `compile` decides on loss scaling
        parts = {part.name: part for part in self._parts}
        for part in frozen:
            if part not in parts:
                raise InputError(f"frozen parts must be among {', '.join(parts)}. Received: {part}")
            parts[part].trainable = False

    @property
    def _parts(self) -> list[layers.Layer]:
        return [*self.encoder.stages, self.decoder]

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Scores of unnormalized images, for comparison with an exported file.

        Args:
            pixels: (B, H, W, 3) uint8 RGB.

        Returns:
            (B, ⌈H/4⌉, ⌈W/4⌉, num_classes) float32.

        Raises:
            InputError: images below 29 pixels, or of another size than the model was built for.
        """
        check_image_shape(pixels.shape)
        if any(n is not None and n != side for n, side in zip(self.image_size, pixels.shape[1:3], strict=True)):
            raise InputError(
                f"the model takes images of {self.image_size} (height, width). Received: {pixels.shape[1:3]}"
            )
        image = pixels.astype(np.float32)
        image = image if self.preprocess else self.config.normalize(image)
        return np.asarray(self.predict_on_batch(image), np.float32)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        _check_images(inputs)  # here, because normalization would make three channels of one
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def fit(self, x: Any = None, *args: Any, class_weight: Any = None, **kwargs: Any) -> Any:
        """As Keras'; raises InputError for images as a call does, and for `class_weight`."""
        if class_weight is not None:
            raise InputError("fit's class_weight is for one label per image; give the loss its class_weights instead")
        _check_images(x)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As Keras'; raises InputError for images as a call does."""
        _check_images(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As Keras'; raises InputError for images as a call does."""
        _check_images(x)
        return super().predict(x, *args, **kwargs)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As Keras', with a line about the 1/4 grid where a loss cannot compare masks with logits of another size."""
        try:
            return super().compute_loss(x, y, y_pred, *args, **kwargs)
        except ValueError as error:
            sizes = [getattr(each, "shape", ())[1:3] for each in (y, y_pred)]
            if isinstance(error, InputError) or () in sizes or sizes[0] == sizes[1]:
                raise
            raise InputError(
                f"masks of {_times(sizes[0])}, logits of {_times(sizes[1])}: SegFormer's logits are on the 1/4 grid, "
                "and Keras' own losses take one size; compile with loss=segformer_tf.SegmentationLoss(), which resizes "
                "logits, or another loss of segformer_tf"
            ) from error

    def get_config(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "image_size": list(self.image_size),
            "preprocess": self.preprocess,
            "frozen": [part.name for part in self._parts if not part.trainable],
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.encoder.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SegFormer:
        return cls(**config)


def upsample(x: Any, size: Any) -> Any:
    """Bilinear to (height, width), half-pixel centers, in x's dtype."""
    # tf.image.resize, because keras.ops' refuses dynamic sizes; it computes in float32.
    return ops.cast(tf.image.resize(x, size, method="bilinear"), x.dtype)


def _check_images(data: Any) -> None:
    """Raises InputError for an array, or a data set, of images that the model cannot take.

    Once `fit` has seen two sizes, Keras compiles a step for any, which no longer knows a batch's.
    """
    spec = getattr(data, "element_spec", data)
    shape = getattr(spec[0] if isinstance(spec, tuple) and spec else spec, "shape", None)
    if shape is not None and len(tf.TensorShape(shape).dims or ()) == 4:
        check_image_shape(shape)


def _normalization(config: SegFormerConfig) -> layers.Layer:
    """`SegFormerConfig.normalize` as a layer, in float32 whatever the model's precision."""
    scale = [1.0 / std for std in config.image_std]
    offset = [-mean / std for mean, std in zip(config.image_mean, config.image_std, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name="normalization")


def _times(size: Any) -> str:
    return "x".join(map(str, size))


def build_segformer(
    variant: str,
    *,
    num_classes: int | None = None,
    labels: Labels | Sequence[str] | None = None,
    image_size: tuple[int | None, int | None] = (None, None),
    preprocess: bool = False,
    dtype: Any = None,
    **overrides: Any,
) -> SegFormer:
    """A built SegFormer with fresh weights.

    Args:
        variant: "b0".."b5" (Table 6 of the paper) or "tiny".
        num_classes: channels of the logits; may be left out where `labels` are given.
        labels: names of the classes in order, or `Labels`, which have colors too. They are saved with the weights, and
            go into exported files.
        image_size: (height, width), either of them None for any; known ones must be 29 or more.
        preprocess: take RGB 0..255, and normalize inside.
        dtype: dtype or policy of the layers, such as "mixed_float16"; None takes Keras' global one.
        overrides: fields of `SegFormerConfig`, such as ``drop_path_rate=0.0``.

    Raises:
        InputError: an unknown variant, a bad field, bad names or another number of them, or a size below 29.

    Examples:
        >>> model = build_segformer("b0", num_classes=150)
        >>> model(np.zeros((1, 512, 512, 3), "float32")).shape
        TensorShape([1, 128, 128, 150])
    """
    named = None if labels is None else as_labels(labels)
    if num_classes is None:
        if named is None:
            raise InputError("build_segformer needs num_classes, or labels, which are the names of the classes")
        num_classes = len(named.names)
    config = variant_config(variant, num_classes=num_classes, labels=named, **overrides)
    return SegFormer(config, image_size=image_size, preprocess=preprocess, dtype=dtype)


def as_config(config: SegFormerConfig | dict[str, Any]) -> SegFormerConfig:
    """A `SegFormerConfig`, or one from its `to_dict`."""
    return config if isinstance(config, SegFormerConfig) else SegFormerConfig.from_dict(config)
