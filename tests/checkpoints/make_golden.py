"""Makes tests/checkpoints/golden: one small checkpoint per code base and the logits its network gives.

Needs torch and transformers. The network is transformers' own, with random weights and the epsilons of each code base;
mmseg's decoder, another network, is written out here. Run: python -m tests.checkpoints.make_golden
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

GOLDEN = Path(__file__).parent / "golden"
SIZES = {"hidden_sizes": [8, 8, 10, 16], "depths": [1, 1, 2, 1], "decoder_hidden_size": 8, "num_labels": 3}
EPSILONS = {"nvlabs": (1e-6, 1e-5), "smp": (1e-6, 1e-5), "transformers": (1e-5, 1e-5), "mmseg": (1e-6, 1e-6)}

ENCODER_TO_NVLABS = [
    (r"segformer\.encoder\.patch_embeddings\.(\d)\.layer_norm\.", r"patch_embed<\1>.norm."),
    (r"segformer\.encoder\.patch_embeddings\.(\d)\.", r"patch_embed<\1>."),
    (r"segformer\.encoder\.layer_norm\.(\d)\.", r"norm<\1>."),
    (r"segformer\.encoder\.block\.(\d)\.", r"block<\1>."),
    (r"layer_norm_([12])\.", r"norm\1."),
    (r"attention\.self\.layer_norm\.", "attn.norm."),
    (r"attention\.self\.query\.", "attn.q."),
    (r"attention\.self\.(key|value|sr)\.", r"attn.\1."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"mlp\.dense([12])\.", r"mlp.fc\1."),
]


def random_transformers(seed: int = 0, **sizes: object) -> SegformerForSemanticSegmentation:
    """transformers' model with every weight moved off its default."""
    model = SegformerForSemanticSegmentation(SegformerConfig(**sizes)).eval()
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if "running_var" in name or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.mul_(torch.rand(tensor.shape, generator=dice) * 0.9 + 0.6)
            elif tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=dice) * 0.2)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=dice) / tensor[0].numel() ** 0.5)
    return model


def saved_tensors(model: SegformerForSemanticSegmentation) -> dict[str, np.ndarray]:
    """The tensors under the names that transformers writes to files."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def to_nvlabs(tensors: dict[str, np.ndarray], root: str = "backbone.") -> dict[str, np.ndarray]:
    renamed = {}
    for key, value in tensors.items():
        if key.startswith("decode_head."):
            key = key.replace("batch_norm", "linear_fuse.bn").replace("linear_fuse.weight", "linear_fuse.conv.weight")
            key = key.replace("classifier", "linear_pred")
            key = re.sub(r"linear_c\.(\d)", lambda m: f"linear_c{int(m[1]) + 1}", key)
            renamed[key] = value
            continue
        for pattern, new in ENCODER_TO_NVLABS:
            key = re.sub(pattern, new, key)
        key = re.sub(r"<(\d)>", lambda m: str(int(m[1]) + 1), key)
        renamed[root + key] = value
    for key in [k for k in renamed if ".attn.key." in k]:
        value = renamed.pop(key.replace(".key.", ".value."))
        renamed[key.replace(".key.", ".kv.")] = np.concatenate([renamed.pop(key), value])
    return renamed


def to_smp(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for key, value in to_nvlabs(tensors, root="encoder.").items():
        key = re.sub(r"decode_head\.linear_c(\d)\.proj", lambda m: f"decoder.mlp_stage.{4 - int(m[1])}.linear", key)
        key = key.replace("decode_head.linear_fuse.conv", "decoder.fuse_stage.0")
        key = key.replace("decode_head.linear_fuse.bn", "decoder.fuse_stage.1")
        renamed[key.replace("decode_head.linear_pred", "segmentation_head.0")] = value
    return renamed


def to_mmseg(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for key, value in to_nvlabs(tensors).items():
        if key.startswith("decode_head."):
            continue
        found = re.match(r"backbone\.(patch_embed|block|norm)(\d)\.(.*)", key)
        assert found
        kind, s, rest = found[1], int(found[2]) - 1, found[3]
        if kind == "patch_embed":
            renamed[f"backbone.layers.{s}.0.{rest.replace('proj.', 'projection.')}"] = value
        elif kind == "norm":
            renamed[f"backbone.layers.{s}.2.{rest}"] = value
        else:
            rest = rest.replace("attn.proj.", "attn.attn.out_proj.").replace("mlp.dwconv.dwconv.", "ffn.layers.1.")
            if found := re.search(r"mlp\.fc([12])\.", rest):
                rest = rest.replace(found[0], f"ffn.layers.{0 if found[1] == '1' else 4}.")
                value = value[:, :, None, None] if value.ndim == 2 else value
            renamed[f"backbone.layers.{s}.1.{rest}"] = value
    for key in [k for k in renamed if ".attn.q." in k]:
        packed = np.concatenate([renamed.pop(key), renamed.pop(key.replace(".q.", ".kv."))])
        renamed[key.replace(".attn.q.", ".attn.attn.in_proj_")] = packed
    dice = np.random.default_rng(1)

    def head(name: str, outs: int, ins: int, *, bn: bool = True) -> None:
        conv = f"decode_head.{name}.conv" if bn else f"decode_head.{name}"
        renamed[f"{conv}.weight"] = dice.normal(0, ins**-0.5, (outs, ins, 1, 1)).astype(np.float32)
        if not bn:
            renamed[f"{conv}.bias"] = dice.normal(0, 0.2, outs).astype(np.float32)
            return
        renamed[f"decode_head.{name}.bn.weight"] = dice.uniform(0.6, 1.5, outs).astype(np.float32)
        renamed[f"decode_head.{name}.bn.bias"] = dice.normal(0, 0.2, outs).astype(np.float32)
        renamed[f"decode_head.{name}.bn.running_mean"] = dice.normal(0, 0.2, outs).astype(np.float32)
        renamed[f"decode_head.{name}.bn.running_var"] = dice.uniform(0.6, 1.5, outs).astype(np.float32)
        renamed[f"decode_head.{name}.bn.num_batches_tracked"] = np.array(7)

    width = int(SIZES["decoder_hidden_size"])
    for i, dim in enumerate(SIZES["hidden_sizes"]):
        head(f"convs.{i}", width, dim)
    head("fusion_conv", width, 4 * width)
    head("conv_seg", SIZES["num_labels"], width, bn=False)
    return renamed


def mmseg_head(tensors: dict[str, np.ndarray], features: list[torch.Tensor]) -> torch.Tensor:
    """mmseg 1.x' SegformerHead, written out."""
    t = {key: torch.from_numpy(value) for key, value in tensors.items()}

    def conv_module(name: str, x: torch.Tensor) -> torch.Tensor:
        bn = f"decode_head.{name}.bn"
        x = F.conv2d(x, t[f"decode_head.{name}.conv.weight"])
        stats = (t[f"{bn}.running_mean"], t[f"{bn}.running_var"], t[f"{bn}.weight"], t[f"{bn}.bias"])
        return F.relu(F.batch_norm(x, *stats, eps=1e-5))

    size = features[0].shape[2:]
    ups = [F.interpolate(conv_module(f"convs.{i}", x), size=size, mode="bilinear") for i, x in enumerate(features)]
    fused = conv_module("fusion_conv", torch.cat(ups, dim=1))
    return F.conv2d(fused, t["decode_head.conv_seg.weight"], t["decode_head.conv_seg.bias"])


def set_epsilons(model: SegformerForSemanticSegmentation, block: float, patch: float) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = patch if "patch_embeddings" in name or "sequence_reduction" in name else block


def main() -> None:
    model = random_transformers(**SIZES)
    tensors = saved_tensors(model)
    image = torch.randn((1, 3, 67, 98), generator=torch.Generator().manual_seed(5))
    logits = {}
    layouts = {"nvlabs": to_nvlabs, "smp": to_smp, "transformers": dict, "mmseg": to_mmseg}
    GOLDEN.mkdir(exist_ok=True)
    for name, layout in layouts.items():
        renamed = layout(tensors)
        if name == "nvlabs":
            renamed["decode_head.conv_seg.weight"] = np.zeros((3, 8, 1, 1), np.float32)
            renamed["decode_head.conv_seg.bias"] = np.zeros(3, np.float32)
        save_file({key: np.ascontiguousarray(value) for key, value in renamed.items()}, GOLDEN / f"{name}.safetensors")
        set_epsilons(model, *EPSILONS[name])
        with torch.inference_mode():
            output = model(image, output_hidden_states=True)
            out = mmseg_head(renamed, list(output.hidden_states)) if name == "mmseg" else output.logits
        logits[name] = out.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(GOLDEN / "logits.npz", image=image.permute(0, 2, 3, 1).numpy(), **logits)


if __name__ == "__main__":
    main()
