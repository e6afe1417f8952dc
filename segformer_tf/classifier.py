"""The MiT encoder as an image classifier, for pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
from keras import layers

from segformer_tf.config import SegFormerConfig, variant_config
from segformer_tf.distributed_fit import MultiWorkerFit
from segformer_tf.errors import InputError
from segformer_tf.layers import PACKAGE, linear_init
from segformer_tf.model import MixTransformer, as_config
from segformer_tf.unquantized import Dense, Unquantized


@keras.saving.register_keras_serializable(PACKAGE)
class MixTransformerClassifier(Unquantized, MultiWorkerFit, keras.Model):
    """`MixTransformer`, the mean of c4 over its grid, and one linear map to classes, as a Keras functional model.

    c4 is normalized by the last stage's LayerNorm, so nothing stands between the mean and ``head``.

    Args:
        config: sizes and epsilons of the encoder, and the number of classes; its decoder's fields are for a segmenter
            that starts from the weights. Its `labels` must be None: they are limited to 255 classes.
        labels: names of the classes in order, saved with the weights.
        image_size: (height, width), either of them None for any.

    Input: (B, H, W, 3) float, RGB 0..255 after `SegFormerConfig.normalize`.
    Output: (B, num_classes) logits.

    Attributes:
        config, labels: the arguments.
        encoder: `MixTransformer`; ``model.encoder(images)`` gives {"c1".."c4"}.
        head: the linear map.

    Raises:
        InputError: names that are not one non-empty line for each class, or a known height or width below 29.

    Source: arXiv 2105.15203, section 4.1, says only that the encoder was pretrained on ImageNet-1K. The authors' and
    transformers' classifiers have the mean and the linear map. The training recipe is not published; encoders of this
    kind follow that of DeiT (arXiv 2012.12877): 300 epochs at 224x224, AdamW, batch 1024, peak rate 1e-3 after 5
    epochs of warm-up, cosine decay, weight decay 0.05, drop path 0.1, label smoothing 0.1.
    """

    def __init__(
        self,
        config: SegFormerConfig | dict[str, Any],
        *,
        labels: Sequence[str],
        image_size: tuple[int | None, int | None] = (None, None),
        name: str = "mix_transformer_classifier",
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        config = as_config(config)
        _check_names(labels, config)
        image = keras.Input((*image_size, 3), name="image")
        encoder = MixTransformer(config, dtype=dtype, name="encoder")
        policy = encoder.dtype_policy
        pool = layers.GlobalAveragePooling2D(dtype=policy, name="pool")
        head = Dense(config.num_classes, kernel_initializer=linear_init(), dtype=policy, name="head")
        super().__init__(inputs=image, outputs=head(pool(encoder(image)["c4"])), name=name, **kwargs)
        self.config = config
        self.labels = tuple(labels)
        self.image_size = tuple(image_size)
        self.encoder = encoder
        self.head = head
        self.dtype_policy = policy  # by which `compile` decides on loss scaling

    def get_config(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "labels": list(self.labels),
            "image_size": list(self.image_size),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.encoder.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MixTransformerClassifier:
        return cls(**config)


def build_classifier(
    variant: str, *, labels: Sequence[str], dtype: Any = None, **overrides: Any
) -> MixTransformerClassifier:
    """A built classifier with fresh weights.

    Args:
        variant: "b0".."b5" (Table 6 of the paper) or "tiny".
        labels: names of the classes.
        dtype: dtype or policy of the layers, such as "mixed_float16"; None takes Keras' global one.
        overrides: fields of `SegFormerConfig`, such as ``drop_path_rate=0.0``.

    Raises:
        InputError: an unknown variant, a bad field, or bad names.

    Examples:
        >>> model = build_classifier("b0", labels=["cat", "dog"])
        >>> model(np.zeros((1, 224, 224, 3), "float32")).shape
        TensorShape([1, 2])
    """
    config = variant_config(variant, num_classes=len(labels), **overrides)
    return MixTransformerClassifier(config, labels=labels, dtype=dtype)


def _check_names(labels: Sequence[str], config: SegFormerConfig) -> None:
    if config.labels is not None:
        raise InputError("a classifier's names are an argument of its own, not part of its configuration")
    if len(labels) != config.num_classes:
        raise InputError(f"labels must name every class: expected {config.num_classes} names. Received: {len(labels)}")
    for name in labels:
        if not isinstance(name, str) or len(name.splitlines()) != 1:
            raise InputError(f"a class name is one non-empty line. Received: {name!r}")
