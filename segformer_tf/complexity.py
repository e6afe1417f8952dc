"""Multiply-adds and parameters of SegFormer at an image size, counted from its configuration without building it.

In two forms: as it is computed here, where the decoder maps before it resizes (see `segformer_tf.model.AllMLPDecoder`),
and as the paper writes it. Encoder, weights and logits are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segformer_tf.config import SegFormerConfig


@dataclass(frozen=True)
class LayerCost:
    """A layer, or the layers of one kind of all blocks of a stage. Multiply-adds are of one image.

    Attributes:
        part: "stage1" to "stage4", or "decoder".
        name: of the layer in its part; of blocks with their number, "2 x attn". Norms and batch normalizations count
            with what they go with, but for the stage's.
        output: (height, width, channels).
        parameters: trainable ones.
        linear: multiply-adds of convolutions and maps, as computed here.
        attention: multiply-adds of the products q by k and weights by v.
        plain: all multiply-adds in the paper's form.
    """

    part: str
    name: str
    output: tuple[int, int, int]
    parameters: int
    linear: int
    attention: int = 0
    plain: int = 0

    @property
    def total(self) -> int:
        """Multiply-adds together, as computed here."""
        return self.linear + self.attention


@dataclass(frozen=True)
class Complexity:
    """Of one image. `linear` grows with its pixels, `attention` with their square.

    Attributes:
        linear: multiply-adds of all convolutions and maps, as computed here.
        attention: multiply-adds of the two products of each attention, q by k and weights by v.
        plain: all multiply-adds with the decoder as the paper writes it.
    """

    linear: int
    attention: int
    plain: int

    @property
    def total(self) -> int:
        """Multiply-adds together, as computed here."""
        return self.linear + self.attention

    @classmethod
    def of(cls, costs: Sequence[LayerCost]) -> Complexity:
        """Of layers together."""
        return cls(*(sum(getattr(cost, name) for cost in costs) for name in ("linear", "attention", "plain")))


def complexity(config: SegFormerConfig, size: tuple[int, int]) -> Complexity:
    """Multiply-adds of a network for images of `size`, (height, width) in pixels."""
    return Complexity.of(layer_costs(config, size))


def layer_costs(config: SegFormerConfig, size: tuple[int, int]) -> list[LayerCost]:
    """Each layer of a network in its order, for images of `size`, (height, width) in pixels."""
    grids, (height, width) = [], size
    for stride in config.strides:
        height, width = -(-height // stride), -(-width // stride)
        grids.append((height, width))
    encoder = [cost for i in range(4) for cost in _stage(config, i, grids[i])]
    return [*encoder, *_decoder(config, grids)]


def _stage(config: SegFormerConfig, i: int, grid: tuple[int, int]) -> Iterator[LayerCost]:
    part, c, places = f"stage{i + 1}", config.embed_dims[i], grid[0] * grid[1]
    depth, sr, hidden = config.depths[i], config.sr_ratios[i], config.mlp_ratio * c
    keys = (grid[0] // sr) * (grid[1] // sr)

    def cost(name: str, parameters: int, linear: int, attention: int = 0) -> LayerCost:
        return LayerCost(part, name, (*grid, c), parameters, linear, attention, linear + attention)

    patch = config.patch_sizes[i] ** 2 * (config.embed_dims[i - 1] if i else 3) * c
    yield cost("patch_embed", patch + 3 * c, places * patch)
    reduction = (sr**2 * c * c + 3 * c, keys * sr**2 * c * c) if sr > 1 else (0, 0)
    yield cost(
        f"{depth} x attn",  # with norm1
        depth * (2 * c + 4 * (c * c + c) + reduction[0]),
        depth * (2 * places * c * c + 2 * keys * c * c + reduction[1]),  # q and proj; kv
        depth * 2 * places * keys * c,
    )
    yield cost(
        f"{depth} x mlp",  # with norm2
        depth * (2 * c + 2 * c * hidden + hidden + c + 10 * hidden),
        depth * places * (2 * c * hidden + 9 * hidden),
    )
    yield cost("norm", 2 * c, 0)


def _decoder(config: SegFormerConfig, grids: list[tuple[int, int]]) -> Iterator[LayerCost]:
    """The 1x1 maps; what follows a branch's map and precedes its resize moves to the branch's own grid."""
    d, quarter = config.decoder_width, grids[0][0] * grids[0][1]
    mmseg = config.decoder == "mmseg"
    kind, bias = ("conv", 2) if mmseg else ("linear", 1)  # mmseg: no bias, but a batch normalization
    for i, (c, grid) in enumerate(zip(config.embed_dims, grids, strict=True)):
        macs = grid[0] * grid[1] * c * d
        yield LayerCost("decoder", f"{kind}_c{i + 1}", (*grid, d), c * d + bias * d, macs, plain=macs)
    # "all_mlp": one with the branch's map. "mmseg" has a ReLU between them.
    fuse = sum(h * w for h, w in grids) * d * d if mmseg else 0
    yield LayerCost("decoder", f"{kind}_fuse", (*grids[0], d), 4 * d * d + 2 * d, fuse, plain=4 * quarter * d * d)
    classes = config.num_classes
    macs = quarter * d * classes
    yield LayerCost("decoder", "linear_pred", (*grids[0], classes), (d + 1) * classes, macs, plain=macs)
