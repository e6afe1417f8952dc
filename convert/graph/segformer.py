"""A trained SegFormer as a `Graph` made for a TFLite delegate: the same function, folded, of rank 4 throughout.

Each block of the paper stands here under its name in `segformer_tf.layers`. The rewrites are exact (`.fold`):

- every write to the residual stream has its mean over channels removed, so LayerNorm need not subtract it;
- LayerNorm's affine part goes into what follows, batch normalization and the decoder's maps into one map per stage;
- 1/sqrt(d) goes into q; the key bias drops out of the softmax; the value bias, as a softmax sums to 1, goes into proj;
- with one head (stage 1) proj goes into the values.

tflite-runtime 2.14 delegates neither GELU, RSQRT nor MEAN over channels: for it they are built of operations that it
delegates.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import keras
import numpy as np

from convert.graph.fold import Affine, Map, affine, affine_in, array, batch_norm, centered, scale_in, then
from convert.graph.ir import Graph, Tensor
from segformer_tf.config import SegFormerConfig
from segformer_tf.layers import EfficientSelfAttention, MixFFN, OverlapPatchMerging, TransformerBlock
from segformer_tf.model import STAGES, AllMLPDecoder, MixTransformerStage, MMSegDecoder, SegFormer

Features = dict[str, tuple[Tensor, Affine]]  # normalized, and the stage norm's affine part that is still to come

# GELU(x) = x·Φ(x) with Φ(x) = sigmoid(x·(c0 + c1·x² + c2·x⁴)), minimax for the error of GELU: 8.1e-5 at most.
# c2 is negative, so x² is cut off at 122, where the sigmoid is 1 or 0 to 1e-11.
GELU_COEFFICIENTS = (1.5965222663319492, 0.07282929586913786, -0.0005348701118906527)
GELU_ERROR = 8.1e-5
# of the tanh form, for (1 + tanh(y)) / 2 = sigmoid(2y): Φ(x) = sigmoid(x·(c0 + c1·x²))
TANH_GELU_COEFFICIENTS = (2 * sqrt(2 / pi), 2 * sqrt(2 / pi) * 0.044715)


def network(model: SegFormer, size: tuple[int, int], *, runtime: str = "litert") -> Graph:
    """The float graph of `model`.

    Args:
        model: trained model, computing in float32.
        size: (height, width) of the input.
        runtime: "litert", or "tflite-runtime" for forms that 2.14 runs faster and LiteRT slower.

    Returns:
        A graph from ``image`` (1, height, width, 3), RGB 0..255, to ``logits`` (1, ⌈height/4⌉, ⌈width/4⌉, classes).
    """
    graph = Graph()
    writer = _Writer(graph, old=runtime == "tflite-runtime")
    features = writer.mix_transformer(model.encoder.stages, graph.input("image", (1, *size, 3)), model.config)
    decode = writer.all_mlp_decoder if isinstance(model.decoder, AllMLPDecoder) else writer.mmseg_decoder
    graph.outputs = [decode(model.decoder, features)]
    return graph


@dataclass
class _Writer:
    """Appends blocks to a graph; `old` for tflite-runtime 2.14."""

    graph: Graph
    old: bool

    def mix_transformer(self, stages: list[MixTransformerStage], image: Tensor, config: SegFormerConfig) -> Features:
        # As `SegFormerConfig.normalize`, the division in the first convolution.
        # The mean for every column: a vector of 3 would be broadcast pixel by pixel.
        mean = np.tile(np.asarray(config.image_mean), (1, 1, image.shape[2], 1))
        x, scale = self.graph.binary("SUB", "image/centred", image, mean), 1 / np.asarray(config.image_std)
        features: Features = {}
        for name, stage in zip(STAGES, stages, strict=True):
            normalized = self.stage(f"stage{name[1]}", stage, x, scale)
            gamma, beta = affine(stage.norm)
            features[name] = normalized, (gamma, beta)
            if name != STAGES[-1]:  # the next patch embedding pads with zeros after beta, so beta stays out of it
                x = self.graph.binary("MUL", f"{name}/gamma", normalized, gamma)
                x, scale = self.graph.binary("ADD", name, x, beta), np.ones(len(gamma))
        return features

    def stage(self, name: str, stage: MixTransformerStage, x: Tensor, scale: np.ndarray) -> Tensor:
        x = self.overlap_patch_merging(f"{name}/patch_embed", stage.patch_embed, x, scale)
        for j, block in enumerate(stage.blocks):
            x = self.transformer_block(f"{name}/block{j}", block, x)
        return self.layer_norm(f"{name}/norm", x, stage.norm.epsilon)

    def overlap_patch_merging(self, name: str, layer: OverlapPatchMerging, x: Tensor, scale: np.ndarray) -> Tensor:
        """Patches of ``x * scale``. The norm's affine part is a map of its own, centered for the residual stream."""
        kernel, bias = centered(scale_in(array(layer.proj.kernel), scale), array(layer.proj.bias))
        x = self.graph.pad(f"{name}/pad", x, layer.patch_size // 2)
        x = self.graph.conv(f"{name}/proj", x, kernel, bias, stride=layer.stride)
        gamma, beta = affine(layer.norm)
        return self.graph.conv(name, self.layer_norm(f"{name}/norm", x, layer.epsilon), *centered(np.diag(gamma), beta))

    def transformer_block(self, name: str, block: TransformerBlock, x: Tensor) -> Tensor:
        normalized = self.layer_norm(f"{name}/norm1", x, block.norm1.epsilon)
        attended = self.efficient_self_attention(f"{name}/attn", block.attn, normalized, affine(block.norm1))
        x = self.graph.binary("ADD", f"{name}/attended", x, attended)
        normalized = self.layer_norm(f"{name}/norm2", x, block.norm2.epsilon)
        mixed = self.mix_ffn(f"{name}/mlp", block.mlp, normalized, affine(block.norm2))
        return self.graph.binary("ADD", name, x, mixed)

    def efficient_self_attention(self, name: str, attn: EfficientSelfAttention, x: Tensor, pending: Affine) -> Tensor:
        """Attention over ``x`` with the norm's `pending` affine part."""
        g, heads = self.graph, attn.num_heads
        depth = x.shape[-1] // heads
        reduced, reduced_pending = x, pending
        if attn.sr is not None and attn.norm is not None:
            kernel, bias = centered(*affine_in(array(attn.sr.kernel), array(attn.sr.bias), pending))
            reduced = g.conv(f"{name}/sr", x, kernel, bias, stride=attn.sr_ratio)
            reduced = self.layer_norm(f"{name}/norm", reduced, attn.epsilon)
            reduced_pending = affine(attn.norm)
        count = reduced.shape[1] * reduced.shape[2]

        query, query_bias = affine_in(array(attn.q.kernel), array(attn.q.bias), pending)
        key, value = np.split(array(attn.kv.kernel), 2, axis=1)
        key = scale_in(key, reduced_pending[0])  # what all keys share drops out of the softmax
        value, value_bias = affine_in(value, np.split(array(attn.kv.bias), 2)[1], reduced_pending)
        proj, proj_bias = array(attn.proj.kernel), array(attn.proj.bias)
        proj, proj_bias = centered(proj, proj_bias + value_bias @ proj)

        q = g.conv(f"{name}/q", x, query * depth**-0.5, query_bias * depth**-0.5)
        q = self._rows(f"{name}/q", q, heads)
        k = g.conv(f"{name}/k", reduced, key)
        k = g.reshape(f"{name}/k/heads", k, (1, count, heads, depth))
        k = g.transpose(f"{name}/k/columns", k, (0, 2, 3, 1))  # (1, heads, d, M)
        scores = g.matmul(f"{name}/scores", q, k)  # (1, heads, H·W, M)
        weights = g.unary("SOFTMAX", f"{name}/weights", scores, beta=1.0)
        if heads == 1:  # the values are projected already
            v = self._rows(f"{name}/v", g.conv(f"{name}/v", reduced, value @ proj, proj_bias), heads)
            return g.reshape(name, g.matmul(f"{name}/mixed", weights, v), x.shape)  # (1, H, W, C)
        v = self._rows(f"{name}/v", g.conv(f"{name}/v", reduced, value), heads)
        mixed = g.transpose(f"{name}/mixed/pixels", g.matmul(f"{name}/mixed", weights, v), (0, 2, 1, 3))
        return g.conv(name, g.reshape(f"{name}/mixed/image", mixed, x.shape), proj, proj_bias)

    def _rows(self, name: str, x: Tensor, heads: int) -> Tensor:
        """(1, H, W, C) as (1, heads, H·W, d), one row per pixel."""
        g, (_, height, width, channels) = self.graph, x.shape
        if heads == 1:
            return g.reshape(f"{name}/rows", x, (1, 1, height * width, channels))
        x = g.reshape(f"{name}/heads", x, (1, height * width, heads, channels // heads))
        return g.transpose(f"{name}/rows", x, (0, 2, 1, 3))

    def mix_ffn(self, name: str, mlp: MixFFN, x: Tensor, pending: Affine) -> Tensor:
        """MixFFN of ``x`` with the norm's `pending` affine part."""
        g = self.graph
        unit = self.gelu_unit(mlp.gelu)
        x = g.conv(f"{name}/fc1", x, *affine_in(array(mlp.fc1.kernel), array(mlp.fc1.bias), pending))
        x = g.depthwise(f"{name}/dwconv", x, array(mlp.dwconv.kernel) * unit, array(mlp.dwconv.bias) * unit)
        x = self.gelu(f"{name}/gelu", x, mlp.gelu)
        fc2, bias = centered(array(mlp.fc2.kernel), array(mlp.fc2.bias))
        return g.conv(name, x, fc2 / unit, bias)

    def gelu_unit(self, form: str) -> float:
        """The unit of the input and output of `gelu`: 1, or what makes a polynomial's highest coefficient 1."""
        if not self.old:
            return 1.0
        return TANH_GELU_COEFFICIENTS[1] ** (1 / 3) if form == "tanh" else abs(GELU_COEFFICIENTS[2]) ** (1 / 5)

    def gelu(self, name: str, z: Tensor, form: str) -> Tensor:
        """``unit · GELU(x)`` of ``z = unit · x``; `form` as of `segformer_tf.layers.gelu`."""
        if not self.old:
            return self.graph.unary("GELU", name, z, approximate=form == "tanh")
        return self._tanh_gelu_of_old(name, z) if form == "tanh" else self._gelu_of_old(name, z)

    def _gelu_of_old(self, name: str, z: Tensor) -> Tensor:
        """``unit · GELU(x)`` of ``z = unit · x``, within `GELU_ERROR`.

        The unit makes x's coefficient of degree 5 one of z, so that the polynomial is ``z·(k - (z² - h)²)``, and
        ReLU6, which 2.14 fuses, cuts z² off at 6, which is x² at 122.
        """
        g, (c0, c1, c2) = self.graph, GELU_COEFFICIENTS
        unit = abs(c2) ** (1 / 5)
        h = c1 / unit**3 / 2
        squares = g.binary("MUL", f"{name}/squares", z, z, activation="RELU6")
        x = g.binary("SQUARED_DIFFERENCE", f"{name}/bent", squares, h)
        x = g.binary("SUB", f"{name}/slope", np.asarray(c0 / unit + h * h), x)
        x = g.unary("LOGISTIC", f"{name}/share", g.binary("MUL", f"{name}/logit", x, z))
        return g.binary("MUL", name, x, z)

    def _tanh_gelu_of_old(self, name: str, z: Tensor) -> Tensor:
        """``unit · GELU(x)`` of ``z = unit · x``, exact for the tanh form, whose Φ is ``sigmoid(z·(k + z²))``."""
        g, (c0, c1) = self.graph, TANH_GELU_COEFFICIENTS
        x = g.binary("ADD", f"{name}/slope", g.binary("MUL", f"{name}/squares", z, z), c0 / c1 ** (1 / 3))
        x = g.unary("LOGISTIC", f"{name}/share", g.binary("MUL", f"{name}/logit", x, z))
        return g.binary("MUL", name, x, z)

    def layer_norm(self, name: str, x: Tensor, epsilon: float) -> Tensor:
        """``x / sqrt(mean(x²) + epsilon)`` of an x whose mean over channels is 0."""
        g, channels = self.graph, x.shape[-1]
        squares = g.binary("MUL", f"{name}/squares", x, x)
        if self.old:
            variance = g.conv(f"{name}/variance", squares, np.full((channels, 1), 1 / channels), np.full(1, epsilon))
            return g.binary("DIV", name, x, g.unary("SQRT", f"{name}/deviation", variance))
        variance = g.binary("ADD", f"{name}/epsilon", g.mean_of_channels(f"{name}/variance", squares), epsilon)
        return g.binary("MUL", name, x, g.unary("RSQRT", f"{name}/deviation", variance))

    def all_mlp_decoder(self, decoder: AllMLPDecoder, features: Features) -> Tensor:
        """The commuted form: per stage one map of its features to the fused sum, batch normalization in it."""
        scale, shift = batch_norm(decoder.bn)
        # The paper concatenates c4, c3, c2, c1.
        fuse = dict(zip(reversed(STAGES), np.split(array(decoder.linear_fuse.kernel)[0, 0] * scale, 4), strict=True))
        maps: dict[str, Map] = {}
        for name, linear in zip(STAGES, decoder.linear_c, strict=True):
            own = affine_in(array(linear.kernel), array(linear.bias), features[name][1])
            maps[name] = then(own, fuse[name], np.zeros(len(shift)))
        bias = shift + sum(b for _, b in maps.values())  # a constant is the same after a resize
        branches = {}
        for name in STAGES:
            kernel, constant = maps[name][0], bias if name == "c1" else None
            branches[name] = self.graph.conv(f"decoder/{name}", features[name][0], kernel, constant)
        return self._classify(branches, decoder.linear_pred)

    def mmseg_decoder(self, decoder: MMSegDecoder, features: Features) -> Tensor:
        """Its ReLU comes before the resize, so the fusing map, which comes after, changes places with it as well."""
        g = self.graph
        scale, shift = batch_norm(decoder.bn)
        fuse = np.split(array(decoder.conv_fuse.kernel)[0, 0] * scale, 4)
        branches = {}
        for name, conv, norm, part in zip(STAGES, decoder.conv_c, decoder.bn_c, fuse, strict=True):
            x, pending = features[name]
            own_scale, own_shift = batch_norm(norm)
            kernel, bias = affine_in(array(conv.kernel)[0, 0] * own_scale, own_shift, pending)
            x = g.conv(f"decoder/{name}/own", x, kernel, bias, activation="RELU")
            branches[name] = g.conv(f"decoder/{name}", x, part, shift if name == "c1" else None)
        return self._classify(branches, decoder.linear_pred)

    def _classify(self, branches: dict[str, Tensor], linear_pred: keras.layers.Conv2D) -> Tensor:
        """ReLU of the sum of the upsampled branches, then the classifier."""
        g, fused = self.graph, branches["c1"]
        size = fused.shape[1], fused.shape[2]
        for name in STAGES[1:]:
            upsampled = g.resize(f"decoder/{name}/upsampled", branches[name], size)
            activation = "RELU" if name == STAGES[-1] else "NONE"
            fused = g.binary("ADD", f"decoder/{name}/sum", fused, upsampled, activation=activation)
        return g.conv("logits", fused, array(linear_pred.kernel), array(linear_pred.bias))
