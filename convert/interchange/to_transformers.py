"""`segformer export --format transformers`: a Keras SegFormer as a folder that transformers loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from convert.sample_images import synthetic_images
from convert.trained import float32_copy, refuse_one_class
from segformer_tf.checkpoints.dialects import TRANSFORMERS
from segformer_tf.checkpoints.importer import read_checkpoint, torch_weights
from segformer_tf.checkpoints.preprocessor import FILE, preprocessor_config
from segformer_tf.checkpoints.sizes import HIDDEN_ACTS
from segformer_tf.checkpoints.state_dict import Tensors
from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError
from segformer_tf.files import new_folder
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer


def export_transformers(model: SegFormer, out: Path, *, size: tuple[int, int]) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``preprocessor_config.json``; whole or not at all.

    They are read back, and every tensor is compared.

    transformers computes every norm with epsilon 1e-5, whatever the model was trained with.

    Args:
        model: with the paper's decoder.
        out: folder to make.
        size: (height, width) that transformers' image processor stretches images to.

    Raises:
        InputError: a decoder that transformers does not have, or a folder that exists or cannot be written.
    """
    from safetensors.numpy import save

    if model.config.decoder != "all_mlp":
        raise InputError("transformers has the paper's decoder only, not mmseg's")
    refuse_one_class(model.config)
    if out.exists():
        raise InputError(f"{out}: exists already; choose another --out")
    tensors = transformers_tensors(model)
    with new_folder(out) as part:
        (part / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        (part / "config.json").write_text(json.dumps(transformers_config(model.config), indent=2) + "\n", "utf-8")
        (part / FILE).write_text(json.dumps(preprocessor_config(model.config, size), indent=2) + "\n", "utf-8")
        _read_back(model, part)


def shift_of_epsilons(model: SegFormer) -> float | None:
    """How far transformers' epsilons move the logits on a synthetic image, over max(1, largest logit).

    Returns:
        None where the model has transformers' epsilons already.
    """
    same = replace(
        model.config, norm_epsilon=1e-5, patch_norm_epsilon=1e-5, batch_norm_epsilon=1e-5, stage_norm_epsilon=None
    )
    if same.epsilons == model.config.epsilons:
        return None
    pixels = synthetic_images((256, 256), 1)[0][None]
    copies = [float32_copy(model, config=config, image_size=(None, None)) for config in (model.config, same)]
    ours, theirs = (copy.logits(pixels) for copy in copies)
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))


def transformers_tensors(model: SegFormer) -> Tensors:
    """The model's weights under transformers' names, in torch's layout."""
    parts = dict(TRANSFORMERS.layers(model.config, "segformer.encoder."))
    tensors: Tensors = {}
    for key, tensor in torch_weights(model).items():
        layer, _, name = key.rpartition("/")
        pieces = np.split(tensor, len(parts[layer]))  # kv into key and value
        for part, piece in zip(parts[layer], pieces, strict=True):
            assert isinstance(part, str)
            tensors[part + name] = np.ascontiguousarray(piece)
    tensors["decode_head.batch_norm.num_batches_tracked"] = np.array(0, np.int64)
    return tensors


def transformers_config(config: SegFormerConfig) -> dict[str, object]:
    """``config.json`` as `transformers.SegformerConfig` reads it."""
    names = (config.labels or Labels.numbered(config.num_classes)).names
    terms = {"license": config.license} if config.license else {}
    return {
        **terms,
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "num_channels": 3,
        "num_encoder_blocks": 4,
        "depths": list(config.depths),
        "hidden_sizes": list(config.embed_dims),
        "decoder_hidden_size": config.decoder_width,
        "num_attention_heads": list(config.num_heads),
        "sr_ratios": list(config.sr_ratios),
        "patch_sizes": list(config.patch_sizes),
        "strides": list(config.strides),
        "mlp_ratios": [config.mlp_ratio] * 4,
        "hidden_act": HIDDEN_ACTS[config.gelu],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": config.dropout_rate,
        "drop_path_rate": config.drop_path_rate,
        "semantic_loss_ignore_index": 255,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _read_back(model: SegFormer, folder: Path) -> None:
    read = read_checkpoint(folder)
    for name in ("embed_dims", "depths", "num_heads", "sr_ratios", "patch_sizes", "strides", "mlp_ratio", "gelu"):
        assert getattr(read.config, name) == getattr(model.config, name), name
    for name in ("image_mean", "image_std"):
        np.testing.assert_allclose(getattr(read.config, name), getattr(model.config, name), rtol=1e-6, atol=1e-6)
    for key, tensor in torch_weights(model).items():
        if not np.array_equal(read.weights[key], tensor):
            raise AssertionError(f"{key} changed on its way to transformers")
