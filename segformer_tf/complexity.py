"""Multiply-adds of SegFormer at an image size, counted from its configuration without building it.

The decoder is counted in its commuted form, which maps before it resizes and which is what runs here.
"""

from __future__ import annotations

from dataclasses import dataclass

from segformer_tf.config import SegFormerConfig


@dataclass(frozen=True)
class Complexity:
    """Of one image. `linear` grows with its pixels, `attention` with their square.

    Attributes:
        linear: multiply-adds of all convolutions and maps.
        attention: multiply-adds of the two products of each attention, q by k and weights by v.
    """

    linear: int
    attention: int

    @property
    def total(self) -> int:
        """Multiply-adds together."""
        return self.linear + self.attention


def complexity(config: SegFormerConfig, size: tuple[int, int]) -> Complexity:
    """Multiply-adds of a network for images of `size`, (height, width) in pixels."""
    height, width = size
    linear = attention = 0
    channels, quarter = 3, 0
    for i, c in enumerate(config.embed_dims):
        height, width = (-(-side // config.strides[i]) for side in (height, width))
        places, sr, hidden = height * width, config.sr_ratios[i], config.mlp_ratio * c
        quarter = quarter or places
        keys = (height // sr) * (width // sr)
        linear += places * config.patch_sizes[i] ** 2 * channels * c
        maps = 2 * places * c * c + 2 * keys * c * c  # q and proj; kv
        reduction = keys * sr**2 * c * c if sr > 1 else 0
        mix_ffn = places * (2 * c * hidden + 9 * hidden)
        linear += config.depths[i] * (maps + reduction + mix_ffn)
        attention += config.depths[i] * 2 * places * keys * c
        # "mmseg" has a branch of its own and then the map of fusion; "all_mlp" is folded into one map per stage.
        linear += places * config.decoder_width * (c + (config.decoder_width if config.decoder == "mmseg" else 0))
        channels = c
    return Complexity(linear + quarter * config.decoder_width * config.num_classes, attention)
