"""How five code bases name the weights of SegFormer, and what in them differs from the paper's network.

Our layers are named as Keras paths ("encoder/stage1/block0/attn/q"); a dialect gives each its prefix of keys.
Sources: the keys of released checkpoints and of the code bases' state dicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from segformer_tf.config import SegFormerConfig

# Keras' name of a variable to torch's.
TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Rows:
    """Part of a tensor's rows, in thirds: how mmseg packs q, k and v."""

    prefix: str
    first: int
    last: int


Part = str | Rows
# A prefix with its separator, or several whose rows are stacked.
Parts = Part | tuple[Part, ...]


@dataclass(frozen=True)
class Dialect:
    """Names of one code base. {s} is the stage from 1, {z} from 0, {b} the block from 0.

    Attributes:
        name: of the code base.
        marker: a key that only this code base has, behind one of `roots`.
        roots: prefixes of the encoder's names, the longest first.
        stage: prefix of each layer of a stage, by our name.
        block: prefix of each layer of a block, by our name.
        decoder: prefix of each layer of the decoder, by our name.
        decoder_kind: see `SegFormerConfig.decoder`.
        norm_epsilon, patch_norm_epsilon, stage_norm_epsilon: see `SegFormerConfig`.
        dead: regular expressions of keys that nothing uses.
        terms: of the weights that are published under these names, or "".
    """

    name: str
    marker: str
    roots: tuple[str, ...]
    stage: Mapping[str, str]
    block: Mapping[str, Parts]
    decoder: Mapping[str, str]
    norm_epsilon: float
    patch_norm_epsilon: float
    decoder_kind: Literal["all_mlp", "mmseg"] = "all_mlp"
    stage_norm_epsilon: float | None = None
    dead: tuple[str, ...] = field(default=(r".*num_batches_tracked",))
    terms: str = ""

    def find(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        """(what wraps every key, the encoder's root) of each encoder whose `keys` are of this dialect."""
        found: dict[tuple[str, str], None] = {}
        for key in keys:
            if key.endswith(self.marker):
                before = key.removesuffix(self.marker)
                if (root := next((root for root in self.roots if before.endswith(root)), None)) is not None:
                    found[before.removesuffix(root), root] = None
        return list(found)

    def layers(self, config: SegFormerConfig, root: str) -> Iterator[tuple[str, tuple[Part, ...]]]:
        """Every layer of a network of `config` with what its tensors are made of."""
        for s in range(1, 5):
            for ours, theirs in self.stage.items():
                yield f"encoder/stage{s}/{ours}", (root + theirs.format(s=s, z=s - 1),)
            for b in range(config.depths[s - 1]):
                for ours, parts in self.block.items():
                    if config.sr_ratios[s - 1] == 1 and ours in ("attn/sr", "attn/norm"):
                        continue
                    each = parts if isinstance(parts, tuple) else (parts,)
                    yield f"encoder/stage{s}/block{b}/{ours}", tuple(_filled(p, root, s, b) for p in each)
        for ours, theirs in self.decoder.items():
            yield f"decoder/{ours}", (theirs,)

    def is_encoders(self, key: str, wrap: str, root: str) -> bool:
        """Whether a key is of the encoder: all behind `wrap` and `root`; where the root is "", of its layers alone."""
        if root:
            return key.startswith(wrap + root)
        names = {_first(part).split(".")[0] for part in (*self.stage.values(), *self.block.values())}
        own = {name.format(s=s, z=s - 1) for name in names for s in range(1, 5)}
        return key.startswith(wrap) and key.removeprefix(wrap).split(".")[0] in own

    def is_dead(self, key: str) -> bool:
        return any(re.fullmatch(pattern, key) for pattern in self.dead)


def _first(parts: Parts) -> str:
    part = parts[0] if isinstance(parts, tuple) else parts
    return part.prefix if isinstance(part, Rows) else part


def _filled(part: Part, root: str, s: int, b: int) -> Part:
    if isinstance(part, Rows):
        return Rows(root + part.prefix.format(s=s, z=s - 1, b=b), part.first, part.last)
    return root + part.format(s=s, z=s - 1, b=b)


_NVLABS_STAGE = {
    "patch_embed/proj": "patch_embed{s}.proj.",
    "patch_embed/norm": "patch_embed{s}.norm.",
    "norm": "norm{s}.",
}
_NVLABS_BLOCK = {
    "norm1": "block{s}.{b}.norm1.",
    "attn/q": "block{s}.{b}.attn.q.",
    "attn/kv": "block{s}.{b}.attn.kv.",
    "attn/sr": "block{s}.{b}.attn.sr.",
    "attn/norm": "block{s}.{b}.attn.norm.",
    "attn/proj": "block{s}.{b}.attn.proj.",
    "norm2": "block{s}.{b}.norm2.",
    "mlp/fc1": "block{s}.{b}.mlp.fc1.",
    "mlp/dwconv": "block{s}.{b}.mlp.dwconv.dwconv.",
    "mlp/fc2": "block{s}.{b}.mlp.fc2.",
}

SMP = Dialect(
    name="segmentation_models.pytorch",
    marker="patch_embed1.proj.weight",
    roots=("encoder.",),
    stage=_NVLABS_STAGE,
    block=_NVLABS_BLOCK,
    decoder={
        **{f"linear_c{i}": f"decoder.mlp_stage.{4 - i}.linear." for i in (1, 2, 3, 4)},
        "linear_fuse": "decoder.fuse_stage.0.",
        "bn": "decoder.fuse_stage.1.",
        "linear_pred": "segmentation_head.0.",
    },
    norm_epsilon=1e-6,
    patch_norm_epsilon=1e-5,
)

NVLABS = Dialect(
    name="NVlabs",
    terms="NVIDIA's weights are for research and evaluation only, unless their source says otherwise",
    marker="patch_embed1.proj.weight",
    roots=("backbone.", ""),
    stage=_NVLABS_STAGE,
    block=_NVLABS_BLOCK,
    decoder={
        **{f"linear_c{i}": f"decode_head.linear_c{i}.proj." for i in (1, 2, 3, 4)},
        "linear_fuse": "decode_head.linear_fuse.conv.",
        "bn": "decode_head.linear_fuse.bn.",
        "linear_pred": "decode_head.linear_pred.",
    },
    norm_epsilon=1e-6,
    patch_norm_epsilon=1e-5,
    # conv_seg: made by the head's base class, never called; head: the ImageNet classifier.
    dead=(r".*num_batches_tracked", r"decode_head\.conv_seg\.(weight|bias)", r"(backbone\.)?head\.(weight|bias)"),
)

TRANSFORMERS = Dialect(
    name="transformers",
    marker="patch_embeddings.0.proj.weight",
    roots=("segformer.encoder.", "encoder."),
    stage={
        "patch_embed/proj": "patch_embeddings.{z}.proj.",
        "patch_embed/norm": "patch_embeddings.{z}.layer_norm.",
        "norm": "layer_norm.{z}.",
    },
    block={
        "norm1": "block.{z}.{b}.layer_norm_1.",
        "attn/q": "block.{z}.{b}.attention.self.query.",
        "attn/kv": ("block.{z}.{b}.attention.self.key.", "block.{z}.{b}.attention.self.value."),
        "attn/sr": "block.{z}.{b}.attention.self.sr.",
        "attn/norm": "block.{z}.{b}.attention.self.layer_norm.",
        "attn/proj": "block.{z}.{b}.attention.output.dense.",
        "norm2": "block.{z}.{b}.layer_norm_2.",
        "mlp/fc1": "block.{z}.{b}.mlp.dense1.",
        "mlp/dwconv": "block.{z}.{b}.mlp.dwconv.dwconv.",
        "mlp/fc2": "block.{z}.{b}.mlp.dense2.",
    },
    decoder={
        **{f"linear_c{i}": f"decode_head.linear_c.{i - 1}.proj." for i in (1, 2, 3, 4)},
        "linear_fuse": "decode_head.linear_fuse.",
        "bn": "decode_head.batch_norm.",
        "linear_pred": "decode_head.classifier.",
    },
    norm_epsilon=1e-5,
    patch_norm_epsilon=1e-5,
    dead=(r".*num_batches_tracked", r"classifier\.(weight|bias)"),  # the ImageNet classifier
)

# What transformers 5 calls the same weights in memory, and so in `torch.save(model.state_dict())`.
TRANSFORMERS_5 = Dialect(
    name="transformers",
    marker="stages.0.patch_embeddings.proj.weight",
    roots=("segformer.", ""),
    stage={
        "patch_embed/proj": "stages.{z}.patch_embeddings.proj.",
        "patch_embed/norm": "stages.{z}.patch_embeddings.layer_norm.",
        "norm": "stages.{z}.layer_norm.",
    },
    block={
        "norm1": "stages.{z}.blocks.{b}.layernorm_before.",
        "attn/q": "stages.{z}.blocks.{b}.attention.q_proj.",
        "attn/kv": ("stages.{z}.blocks.{b}.attention.k_proj.", "stages.{z}.blocks.{b}.attention.v_proj."),
        "attn/sr": "stages.{z}.blocks.{b}.attention.sequence_reduction.sequence_reduction.",
        "attn/norm": "stages.{z}.blocks.{b}.attention.sequence_reduction.layer_norm.",
        "attn/proj": "stages.{z}.blocks.{b}.attention.o_proj.",
        "norm2": "stages.{z}.blocks.{b}.layernorm_after.",
        "mlp/fc1": "stages.{z}.blocks.{b}.mlp.fc1.",
        "mlp/dwconv": "stages.{z}.blocks.{b}.mlp.dwconv.dwconv.",
        "mlp/fc2": "stages.{z}.blocks.{b}.mlp.fc2.",
    },
    decoder={
        **TRANSFORMERS.decoder,
        **{f"linear_c{i}": f"decode_head.linear_projections.{i - 1}.proj." for i in (1, 2, 3, 4)},
    },
    norm_epsilon=1e-5,
    patch_norm_epsilon=1e-5,
    dead=TRANSFORMERS.dead,
)

MMSEG = Dialect(
    name="mmseg",
    marker="layers.0.0.projection.weight",
    roots=("backbone.", ""),
    stage={
        "patch_embed/proj": "layers.{z}.0.projection.",
        "patch_embed/norm": "layers.{z}.0.norm.",
        "norm": "layers.{z}.2.",
    },
    block={
        "norm1": "layers.{z}.1.{b}.norm1.",
        "attn/q": Rows("layers.{z}.1.{b}.attn.attn.in_proj_", 0, 1),
        "attn/kv": Rows("layers.{z}.1.{b}.attn.attn.in_proj_", 1, 3),
        "attn/sr": "layers.{z}.1.{b}.attn.sr.",
        "attn/norm": "layers.{z}.1.{b}.attn.norm.",
        "attn/proj": "layers.{z}.1.{b}.attn.attn.out_proj.",
        "norm2": "layers.{z}.1.{b}.norm2.",
        "mlp/fc1": "layers.{z}.1.{b}.ffn.layers.0.",
        "mlp/dwconv": "layers.{z}.1.{b}.ffn.layers.1.",
        "mlp/fc2": "layers.{z}.1.{b}.ffn.layers.4.",
    },
    decoder={
        **{f"conv_c{i}": f"decode_head.convs.{i - 1}.conv." for i in (1, 2, 3, 4)},
        **{f"bn_c{i}": f"decode_head.convs.{i - 1}.bn." for i in (1, 2, 3, 4)},
        "conv_fuse": "decode_head.fusion_conv.conv.",
        "bn": "decode_head.fusion_conv.bn.",
        "linear_pred": "decode_head.conv_seg.",
    },
    norm_epsilon=1e-6,
    patch_norm_epsilon=1e-6,
    decoder_kind="mmseg",
)

# The names that `keras_hub` gives to the places in its files; GELU is the tanh form.
KERAS_HUB = Dialect(
    name="keras-hub",
    marker="patch_and_embed_0.proj.weight",
    roots=("image_encoder.",),
    stage={
        "patch_embed/proj": "patch_and_embed_{z}.proj.",
        "patch_embed/norm": "patch_and_embed_{z}.norm.",
        "norm": "layer_norm_{z}.",
    },
    block={
        "norm1": "hierarchical_encoder_{z}_{b}.norm1.",
        "attn/q": "hierarchical_encoder_{z}_{b}.attn.q.",
        "attn/kv": ("hierarchical_encoder_{z}_{b}.attn.k.", "hierarchical_encoder_{z}_{b}.attn.v."),
        "attn/sr": "hierarchical_encoder_{z}_{b}.attn.sr.",
        "attn/norm": "hierarchical_encoder_{z}_{b}.attn.norm.",
        "attn/proj": "hierarchical_encoder_{z}_{b}.attn.proj.",
        "norm2": "hierarchical_encoder_{z}_{b}.norm2.",
        "mlp/fc1": "hierarchical_encoder_{z}_{b}.mlp.fc1.",
        "mlp/dwconv": "hierarchical_encoder_{z}_{b}.mlp.dwconv.",
        "mlp/fc2": "hierarchical_encoder_{z}_{b}.mlp.fc2.",
    },
    decoder={
        **{f"linear_c{i}": f"linear_c{i}." for i in (1, 2, 3, 4)},
        "linear_fuse": "linear_fuse.0.",
        "bn": "linear_fuse.1.",
        "linear_pred": "output_segmentation_head.",
    },
    norm_epsilon=1e-6,
    patch_norm_epsilon=1e-5,
    stage_norm_epsilon=1e-5,
    dead=TRANSFORMERS.dead,
)

# smp before NVlabs: the same encoder, behind another root.
DIALECTS = (SMP, NVLABS, TRANSFORMERS, TRANSFORMERS_5, MMSEG, KERAS_HUB)
