"""The paper's blocks: overlap patch merging, efficient self-attention, Mix-FFN, drop path.

Features stay images, (B, H, W, C), from end to end: H and W are carried by the tensor and
never inferred from a token count, so any height and width work. Source: arXiv 2105.15203,
sections 3.1 and 3.2.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
from keras import initializers, layers, ops

from segformer_tf.unquantized import Dense

PACKAGE = "segformer_tf"


def linear_init() -> keras.Initializer:
    """Truncated normal, 0.02: every linear map."""
    return initializers.TruncatedNormal(stddev=0.02)


def conv_init() -> keras.Initializer:
    """Normal, sqrt(2 / fan_out): every convolution."""
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


@keras.saving.register_keras_serializable(PACKAGE)
class DropPath(layers.Layer):
    """Drops whole residual branches, sample by sample, in training (stochastic depth).

    Kept branches are scaled by 1 / (1 - rate), so the expectation is the input. Identity at inference.

    Args:
        rate: probability that a sample's branch is dropped, in [0, 1).
        seed: integer seed of the layer's own generator.

    Reference: https://arxiv.org/abs/1603.09382
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if rate else None
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training or self.seed_generator is None:
            return x
        keep = 1.0 - self.rate
        shape = (ops.shape(x)[0], 1, 1, 1)
        mask = ops.floor(keep + keras.random.uniform(shape, seed=self.seed_generator))  # 1 with probability keep
        return x * ops.cast(mask / keep, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class OverlapPatchMerging(layers.Layer):
    """Strided convolution over overlapping patches, then LayerNorm (section 3.1).

    Padding is ``patch_size // 2`` on every side, which Keras' "same" is not at even sizes.

    Args:
        dim: output channels.
        patch_size: kernel side.
        stride: stride.
        epsilon: LayerNorm epsilon.

    Input shape: (B, H, W, C). Output shape: (B, ceil(H / stride), ceil(W / stride), dim).
    """

    def __init__(self, dim: int, *, patch_size: int, stride: int, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.patch_size = patch_size
        self.stride = stride
        self.epsilon = epsilon
        self.pad = layers.ZeroPadding2D(patch_size // 2, dtype=self.dtype_policy, name="pad")
        self.proj = layers.Conv2D(
            dim, patch_size, strides=stride, kernel_initializer=conv_init(), dtype=self.dtype_policy, name="proj"
        )
        self.norm = layers.LayerNormalization(epsilon=epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any) -> None:
        self.proj.build(self.pad.compute_output_shape(input_shape))
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, x: Any) -> Any:
        return self.norm(self.proj(self.pad(x)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, _ = input_shape
        return batch, _ceil_div(height, self.stride), _ceil_div(width, self.stride), self.dim

    def get_config(self) -> dict[str, Any]:
        own = {"dim": self.dim, "patch_size": self.patch_size, "stride": self.stride, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(PACKAGE)
class EfficientSelfAttention(layers.Layer):
    """Multi-head attention whose keys and values come from a reduced image (section 3.1, equations 1 and 2).

    ``softmax(q kᵀ / sqrt(d)) v``, where k and v are computed from sr_ratio x sr_ratio blocks merged by a
    convolution (kernel = stride = sr_ratio, remainders at the right and bottom dropped) and normalized.

    Args:
        dim: channels.
        num_heads: heads; must divide dim.
        sr_ratio: side of the merged block; 1 leaves the keys as they are.
        epsilon: epsilon of the reduction's LayerNorm.

    Input and output shape: (B, H, W, dim).
    """

    def __init__(self, dim: int, *, num_heads: int, sr_ratio: int, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dim % num_heads:
            raise ValueError(f"dim must be divisible by num_heads. Received: dim={dim}, num_heads={num_heads}")
        self.dim = dim
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.epsilon = epsilon
        self.q = _linear(dim, self, "q")
        self.kv = _linear(2 * dim, self, "kv")
        self.proj = _linear(dim, self, "proj")
        self.sr: layers.Layer | None = None
        self.norm: layers.Layer | None = None
        if sr_ratio > 1:
            self.sr = layers.Conv2D(
                dim, sr_ratio, strides=sr_ratio, kernel_initializer=conv_init(), dtype=self.dtype_policy, name="sr"
            )
            self.norm = layers.LayerNormalization(epsilon=epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any) -> None:
        for layer in (self.q, self.kv, self.proj, self.sr, self.norm):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x: Any) -> Any:
        batch, height, width, _ = ops.shape(x)
        keys, values = self._keys_values(x)
        out = ops.matmul(self._weights(x, keys), self._heads(values))  # (B, heads, H·W, d)
        out = ops.reshape(ops.transpose(out, (0, 2, 1, 3)), (batch, height, width, self.dim))
        return self.proj(out)

    def attention(self, x: Any, row: int, column: int) -> Any:
        """The softmax weights with which one position of x takes values: (B, heads, H/sr, W/sr), each head's sum 1."""
        keys, _ = self._keys_values(x)
        weights = self._weights(x[:, row : row + 1, column : column + 1], keys)
        batch, height, width, _ = ops.shape(keys)
        return ops.reshape(weights, (batch, self.num_heads, height, width))

    def _keys_values(self, x: Any) -> tuple[Any, Any]:
        """(B, H/sr, W/sr, C) each."""
        reduced = x if self.sr is None or self.norm is None else self.norm(self.sr(x))
        keys, values = ops.split(self.kv(reduced), 2, axis=-1)
        return keys, values

    def _weights(self, x: Any, keys: Any) -> Any:
        """(B, heads, H·W, M)."""
        # Scaling q is cheaper than scaling the H·W x M products.
        query = self._heads(self.q(x) * (self.dim // self.num_heads) ** -0.5)  # (B, heads, H·W, d)
        return ops.softmax(ops.matmul(query, ops.transpose(self._heads(keys), (0, 1, 3, 2))), axis=-1)

    def _heads(self, x: Any) -> Any:
        batch, height, width, _ = ops.shape(x)
        x = ops.reshape(x, (batch, height * width, self.num_heads, self.dim // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))  # (B, heads, H·W, d)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"dim": self.dim, "num_heads": self.num_heads, "sr_ratio": self.sr_ratio, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(PACKAGE)
class MixFFN(layers.Layer):
    """``fc2(GELU(dwconv3x3(fc1(x))))`` (section 3.1, equation 3); the zero padding tells positions apart.

    Args:
        dim: input and output channels.
        hidden_dim: channels between.
        gelu: "erf" or "tanh", see `gelu`.

    Input and output shape: (B, H, W, dim).
    """

    def __init__(self, dim: int, *, hidden_dim: int, gelu: str = "erf", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden_dim = hidden_dim
        self.gelu = gelu
        self.fc1 = _linear(hidden_dim, self, "fc1")
        self.dwconv = layers.DepthwiseConv2D(
            3, padding="same", depthwise_initializer=conv_init(), dtype=self.dtype_policy, name="dwconv"
        )
        self.fc2 = _linear(dim, self, "fc2")

    def build(self, input_shape: Any) -> None:
        self.fc1.build(input_shape)
        hidden_shape = (*input_shape[:-1], self.hidden_dim)
        self.dwconv.build(hidden_shape)
        self.fc2.build(hidden_shape)

    def call(self, x: Any) -> Any:
        return self.fc2(gelu(self.dwconv(self.fc1(x)), self.gelu))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "hidden_dim": self.hidden_dim, "gelu": self.gelu}


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerBlock(layers.Layer):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``, both branches under drop path.

    Args:
        dim: channels.
        num_heads, sr_ratio: of its `EfficientSelfAttention`.
        mlp_ratio: hidden width of Mix-FFN over dim.
        drop_path: rate of `DropPath`.
        epsilon: epsilon of norm1 and norm2.
        patch_epsilon: epsilon of the reduction's norm.
        gelu: of its `MixFFN`.

    Input and output shape: (B, H, W, dim).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        sr_ratio: int,
        mlp_ratio: int,
        drop_path: float,
        epsilon: float,
        patch_epsilon: float,
        gelu: str = "erf",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config = {
            "dim": dim,
            "num_heads": num_heads,
            "sr_ratio": sr_ratio,
            "mlp_ratio": mlp_ratio,
            "drop_path": drop_path,
            "epsilon": epsilon,
            "patch_epsilon": patch_epsilon,
            "gelu": gelu,
        }
        policy = self.dtype_policy
        self.norm1 = layers.LayerNormalization(epsilon=epsilon, dtype=policy, name="norm1")
        self.attn = EfficientSelfAttention(
            dim, num_heads=num_heads, sr_ratio=sr_ratio, epsilon=patch_epsilon, dtype=policy, name="attn"
        )
        self.norm2 = layers.LayerNormalization(epsilon=epsilon, dtype=policy, name="norm2")
        self.mlp = MixFFN(dim, hidden_dim=mlp_ratio * dim, gelu=gelu, dtype=policy, name="mlp")
        self.drop_path = DropPath(drop_path, dtype=policy, name="drop_path")

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm1, self.attn, self.norm2, self.mlp):
            layer.build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = x + self.drop_path(self.attn(self.norm1(x)), training=training)
        return x + self.drop_path(self.mlp(self.norm2(x)), training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config}


def gelu(x: Any, form: str = "erf") -> Any:
    """``x/2 · (1 + erf(x/√2))``, the exact form, as the paper's; or, where `form` is "tanh", Keras' approximation.

    Keras' own exact form is of erfc, which ONNX does not have, and a step of this one takes three quarters of its time
    on a CPU.
    """
    return ops.gelu(x, approximate=True) if form == "tanh" else 0.5 * x * (1.0 + ops.erf(x * sqrt(0.5)))


def _linear(units: int, parent: layers.Layer, name: str) -> Dense:
    return Dense(units, kernel_initializer=linear_init(), dtype=parent.dtype_policy, name=name)


def _ceil_div(size: int | None, stride: int) -> int | None:
    return None if size is None else -(-size // stride)
