"""SegFormer a second time, in torch and in each code base's plain form, one step after the other, to compare with.

It knows nothing of our Keras layers: tensors are in torch's layout, tokens are a sequence, the decoder upsamples
and concatenates as the paper writes it. Torch is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segformer_tf.checkpoints.importer import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One step of the network: its input and its output, (B, H, W, C) float32.

    Names: "stage1/patch_embed", "stage1/block0", …, "c1" (the stage's norm), …, "decoder/c1" (the stage's part of the
    fused sum, at 1/4), …, "logits" (from the fused sum).
    """

    name: str
    input: Array
    result: Array


def trace(checkpoint: Checkpoint, images: Array) -> Iterator[Step]:
    """Run a checkpoint on normalized images, (B, H, W, 3) float32, and yield every step.

    Ends with "c4" where there is no decoder.
    """
    import torch

    with torch.inference_mode():
        yield from _Network(checkpoint).steps(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2))


class _Network:
    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch

        self.F = torch.nn.functional
        self.config = checkpoint.config
        self.has_decoder = checkpoint.has_decoder
        self.w = {name: torch.from_numpy(tensor) for name, tensor in checkpoint.weights.items()}

    def steps(self, x: Tensor) -> Iterator[Step]:
        features = []
        for s in range(4):
            before, x = x, self.patch_embed(s, x)
            yield _step(f"stage{s + 1}/patch_embed", before, x)
            for b in range(self.config.depths[s]):
                before, x = x, self.block(s, b, x)
                yield _step(f"stage{s + 1}/block{b}", before, x)
            before, x = x, self.norm(f"encoder/stage{s + 1}/norm", x, self.config.epsilons["stage_norm_epsilon"])
            yield _step(f"c{s + 1}", before, x)
            features.append(x)
        if not self.has_decoder:
            return
        parts = [self.decoder_part(s, features[s], features[0].shape[2:]) for s in range(4)]
        for s in range(4):
            yield _step(f"decoder/c{s + 1}", features[s], parts[s])
        fused = parts[0] + parts[1] + parts[2] + parts[3]
        yield _step("logits", fused, self.conv("decoder/linear_pred", self.bn("decoder/bn", fused).relu()))

    def patch_embed(self, s: int, x: Tensor) -> Tensor:
        root, config = f"encoder/stage{s + 1}/patch_embed", self.config
        x = self.conv(f"{root}/proj", x, stride=config.strides[s], padding=config.patch_sizes[s] // 2)
        return self.norm(f"{root}/norm", x, config.patch_norm_epsilon)

    def block(self, s: int, b: int, x: Tensor) -> Tensor:
        root, eps = f"encoder/stage{s + 1}/block{b}", self.config.norm_epsilon
        x = x + self.attention(f"{root}/attn", s, self.norm(f"{root}/norm1", x, eps))
        y = self.linear(f"{root}/mlp/fc1", self.norm(f"{root}/norm2", x, eps))
        kernel = self.w[f"{root}/mlp/dwconv/weight"]
        y = self.F.conv2d(y, kernel, self.w[f"{root}/mlp/dwconv/bias"], padding=1, groups=len(kernel))
        y = self.F.gelu(y, approximate="tanh" if self.config.gelu == "tanh" else "none")
        return x + self.linear(f"{root}/mlp/fc2", y)

    def attention(self, root: str, s: int, x: Tensor) -> Tensor:
        ratio, heads = self.config.sr_ratios[s], self.config.num_heads[s]
        reduced = x
        if ratio > 1:
            reduced = self.conv(f"{root}/sr", x, stride=ratio)
            reduced = self.norm(f"{root}/norm", reduced, self.config.patch_norm_epsilon)
        keys, values = self.linear(f"{root}/kv", reduced).chunk(2, dim=1)

        def split(t: Tensor) -> Tensor:
            return t.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)  # (B, heads, H·W, d)

        y = self.F.scaled_dot_product_attention(split(self.linear(f"{root}/q", x)), split(keys), split(values))
        return self.linear(f"{root}/proj", y.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:]))

    def decoder_part(self, s: int, feature: Tensor, size: Sequence[int]) -> Tensor:
        """A stage's columns of the fusing convolution times its upsampled branch."""
        if self.config.decoder == "mmseg":
            y = self.bn(f"decoder/bn_c{s + 1}", self.conv(f"decoder/conv_c{s + 1}", feature)).relu()
            kernel, place = self.w["decoder/conv_fuse/weight"], s  # mmseg concatenates c1 to c4
        else:
            y = self.linear(f"decoder/linear_c{s + 1}", feature)
            kernel, place = self.w["decoder/linear_fuse/weight"], 3 - s  # the paper c4 to c1
        width = self.config.decoder_width
        y = self.F.interpolate(y, size=size, mode="bilinear", align_corners=False)
        return self.F.conv2d(y, kernel[:, place * width : (place + 1) * width])

    def conv(self, name: str, x: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
        return self.F.conv2d(x, self.w[f"{name}/weight"], self.w.get(f"{name}/bias"), stride=stride, padding=padding)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.F.linear(x.movedim(1, -1), self.w[f"{name}/weight"], self.w[f"{name}/bias"]).movedim(-1, 1)

    def norm(self, name: str, x: Tensor, epsilon: float) -> Tensor:
        weight, bias = self.w[f"{name}/weight"], self.w[f"{name}/bias"]
        return self.F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, epsilon).movedim(-1, 1)

    def bn(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.w[f"{name}/{k}"] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return self.F.batch_norm(x, mean, variance, weight, bias, eps=self.config.batch_norm_epsilon)


def _step(name: str, before: Tensor, result: Tensor) -> Step:
    return Step(name, before.permute(0, 2, 3, 1).numpy(), result.permute(0, 2, 3, 1).numpy())
