"""Makes tests/checkpoints/golden/keras_hub.*: the arrays of a small keras-hub segmenter, its files, and its logits.

Needs keras-hub. The arrays are kept by their paths in the file that keras-hub writes, so that tests write that file
without it, and broken ones. Run: python -m tests.checkpoints.make_keras_hub
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SIDE = 64


def segmenter(sizes: dict[str, Any], *, width: int, classes: int, side: int) -> Any:
    """keras-hub's segmenter with a preprocessor, and every weight moved off its default."""
    from keras_hub.layers import SegFormerImageConverter
    from keras_hub.models import (
        MiTBackbone,
        SegFormerBackbone,
        SegFormerImageSegmenter,
        SegFormerImageSegmenterPreprocessor,
    )

    encoder = MiTBackbone(
        **sizes, num_layers=4, max_drop_path_rate=0.1, layerwise_strides=[4, 2, 2, 2], image_shape=(side, side, 3)
    )
    converter = SegFormerImageConverter(
        image_size=(side, side), scale=[0.02, 0.0175, 0.017], offset=[-2.25, -2.0, -1.75], antialias=True
    )
    preprocessor = SegFormerImageSegmenterPreprocessor(image_converter=converter)
    model = SegFormerImageSegmenter(
        SegFormerBackbone(encoder, projection_filters=width), classes, preprocessor=preprocessor
    )
    dice = np.random.default_rng(0)
    for variable in model.weights:
        value = np.asarray(variable.value)
        if value.dtype != np.float32:  # the state of a dropout
            continue
        if variable.path.endswith(("gamma", "moving_variance")):
            value = value * dice.uniform(0.6, 1.5, value.shape)
        elif value.ndim == 1:
            value = value + dice.normal(0, 0.2, value.shape)
        else:
            inputs = 9 if "depthwise" in variable.path else value[..., 0].size
            value = dice.normal(0, inputs**-0.5, value.shape)
        variable.assign(value)
    return model


def image(side: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(1, side, side, 3)).astype(np.float32)


def logits(model: Any, images: np.ndarray) -> np.ndarray:
    """At the size of `images`. Without ``training=False`` its normalization would take the batch's statistics."""
    return np.asarray(model(images, training=False))


def main() -> None:
    sizes = {
        "hidden_dims": [8, 6, 10, 16],
        "layerwise_depths": [1, 1, 2, 1],
        "layerwise_num_heads": [1, 2, 5, 8],
        "layerwise_sr_ratios": [8, 4, 2, 1],
        "layerwise_patch_sizes": [7, 3, 3, 3],
    }
    model = segmenter(sizes, width=8, classes=3, side=SIDE)
    held: dict[str, np.ndarray] = {"logits": logits(model, image(SIDE))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        model.save_to_preset(Path(folder) / "preset")
        configurations = {
            name: json.loads((Path(folder) / "preset" / name).read_text())
            for name in ("config.json", "task.json", "preprocessor.json", "image_converter.json")
        }
        with zipfile.ZipFile(path) as archive:
            configurations["model.keras"] = json.loads(archive.read("config.json"))
            archive.extract("model.weights.h5", folder)

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                held[name] = item[()]

        with h5py.File(Path(folder) / "model.weights.h5") as file:
            file.visititems(take)
    np.savez_compressed(GOLDEN / "keras_hub.npz", **held)
    (GOLDEN / "keras_hub.json").write_text(json.dumps(configurations) + "\n", "utf-8")


if __name__ == "__main__":
    main()
