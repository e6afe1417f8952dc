"""The paper's Table 1c: Mix-FFN against learned positions, at the trained resolution and at another.

Two networks that differ in one block, trained with the same steps on crops of the same images: SegFormer's stage, whose
Mix-FFN has a 3x3 convolution and no positional encoding; and a stage whose FFN is plain, to which a learned table of
positions is added after its patch embedding, interpolated where the grid is another. Each is scored by sliding windows
of the trained size, and on whole images, as the paper does with 768x768 and 1024x2048 on Cityscapes. The paper does not
say where in a stage it adds its encoding; here it is where PVT has it.

    pip install '.[train]'
    python -m benchmarks.positional --data path/to/camvid

This is no option of the network: nothing but this comparison would ever set it, and every export, import and test of a
variant would have to know it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from cyclopts import run
from keras import layers, ops
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from rich.table import Table

from segformer_tf import SegmentationLoss
from segformer_tf.config import SegFormerConfig, variant_config
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, fit_image
from segformer_tf.layers import gelu, linear_init
from segformer_tf.model import STAGES, AllMLPDecoder, MixTransformerStage
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console
from training.data.masks import Sample
from training.data.open import Source, open_source
from training.data.pipeline import Samples, train_batches
from training.evaluate import evaluate
from training.optim.optimizer import SegFormerAdamW, WarmupPoly
from training.protocols import EvalProtocol, Size, predict_mask

Stage = Callable[[SegFormerConfig, int, Size], layers.Layer]


class PlainFFN(layers.Layer):
    """``fc2(GELU(fc1(x)))``: Mix-FFN without its convolution. Input and output: (B, H, W, dim)."""

    def __init__(self, dim: int, *, hidden_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fc1 = layers.Dense(hidden_dim, kernel_initializer=linear_init(), name="fc1")
        self.fc2 = layers.Dense(dim, kernel_initializer=linear_init(), name="fc2")
        self.hidden_dim = hidden_dim

    def build(self, input_shape: Any) -> None:
        self.fc1.build(input_shape)
        self.fc2.build((*input_shape[:-1], self.hidden_dim))

    def call(self, x: Any) -> Any:
        return self.fc2(gelu(self.fc1(x)))


class PositionalStage(MixTransformerStage):
    """An encoder stage with a learned table of positions and plain FFNs.

    Args:
        config, index: of `MixTransformerStage`.
        grid: (height, width) of the table, that of the stage's output in training; on other grids it is interpolated.
    """

    def __init__(self, config: SegFormerConfig, index: int, grid: Size, **kwargs: Any) -> None:
        super().__init__(config, index, **kwargs)
        self.grid = grid
        dim = config.embed_dims[index]
        for block in self.blocks:
            block.mlp = PlainFFN(dim, hidden_dim=config.mlp_ratio * dim, name="mlp")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = (1, *self.grid, self.config.embed_dims[self.index])
        self.position = self.add_weight(shape=shape, initializer=linear_init(), name="position")

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.patch_embed(x)
        x = x + positions_at(self.position, ops.shape(x)[1:3])
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x)


def positions_at(table: Any, size: Any) -> Any:
    """(1, h, w, C) resized to (1, *size, C), bilinear with half-pixel centers; itself at its own size."""
    import tensorflow as tf  # Keras' own resize takes no size that is known only when it runs

    return tf.image.resize(ops.convert_to_tensor(table), size)


NETWORKS: dict[str, Stage] = {
    "Mix-FFN": lambda config, index, _: MixTransformerStage(config, index, name=f"stage{index + 1}"),
    "positions": lambda config, index, grid: PositionalStage(config, index, grid, name=f"stage{index + 1}"),
}


def build(name: str, config: SegFormerConfig, crop: Size) -> keras.Model:
    """One of `NETWORKS`, for images of any size: (B, H, W, 3) normalized to (B, ⌈H/4⌉, ⌈W/4⌉, classes)."""
    image = keras.Input((None, None, 3), name="image")
    x, features, grid = image, {}, crop
    for i, stage in enumerate(STAGES):
        grid = -(-grid[0] // config.strides[i]), -(-grid[1] // config.strides[i])
        x = features[stage] = NETWORKS[name](config, i, grid)(x)
    return keras.Model(image, AllMLPDecoder(config, name="decoder")(features), name=name.replace("-", ""))


def train(
    model: keras.Model, samples: Samples, *, crop: Size, steps: int, batch_size: int, rate: float, seed: int
) -> None:
    """Fit by the recipe of `segformer train` from scratch, without a validation."""
    decay = WarmupPoly(rate, total_steps=steps, warmup_steps=steps // 20)
    model.compile(SegFormerAdamW(decay, head_multiplier=1), SegmentationLoss(), jit_compile=False)
    data = train_batches(samples, crop=crop, scale=(0.5, 2.0), batch_size=batch_size, seed=seed)
    parts = 10 if steps % 10 == 0 else 1
    model.fit(data, epochs=parts, steps_per_epoch=steps // parts, verbose=2, shuffle=False)


def shrunk(image: Pixels, mask: NDArray[np.uint8], *, size: Size) -> Sample:
    """A sample at (height, width), the mask by the nearest pixel."""
    resized = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
    return fit_image(image, size), np.asarray(resized)


def score(
    model: keras.Model, config: SegFormerConfig, source: Source, indices: list[int], protocol: EvalProtocol
) -> float:
    """Mean IoU, 0..1."""

    def network(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(config.normalize(pixels[None].astype(np.float32)))[0], np.float32)

    watched = track(indices, f"{model.name} {protocol}", console=plain_console(stderr=True), transient=True)
    return evaluate(lambda image: predict_mask(network, image, protocol), source, indices=watched).mean_iou


def main(
    *,
    data: str,
    variant: str = "tiny",
    size: tuple[int, int] = (180, 240),
    crop: int = 96,
    steps: int = 1000,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seeds: int = 1,
    images: int = 60,
) -> None:
    """Train both networks and print the table.

    Parameters
    ----------
    data
        Folder of images and masks with the splits train and test, its manifest, or tfds:NAME.
    variant
        Of SegFormer.
    size
        Height and width that images are stretched to, in training and when they are scored whole.
    crop
        Side of the square crops and windows, in pixels; below both of --size.
    steps, batch_size, learning_rate
        Of the training.
    seeds
        Number of trainings of each network, whose scores are averaged.
    images
        Number of test images, evenly spread.
    """
    if min(crop, steps, batch_size, seeds, images) < 1:
        raise InputError("expected positive numbers")
    if not 29 <= crop < min(size):
        raise InputError(f"expected --crop from 29 pixels up and below both of --size {size}. Received: {crop}")
    source, test = open_source(data, "train"), open_source(data, "test")
    config = variant_config(variant, num_classes=len(source.labels.names))
    # Kept in memory: decoding and cropping large images would take longer than a step of the tiny network.
    samples = [shrunk(*source[i], size=size) for i in range(len(source))]
    indices = evenly_spaced(range(len(test)), images)
    protocols = (EvalProtocol(size=size, slide=(crop, crop * 2 // 3)), EvalProtocol(size=size))
    table = Table(
        "network",
        "parameters",
        f"windows of {crop}",
        f"whole, {size[0]}x{size[1]}",
        "change",
        title=f"{variant}, {steps} steps",
    )
    for name in NETWORKS:
        scores = np.zeros((seeds, len(protocols)))
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            model = build(name, config, (crop, crop))
            train(
                model,
                samples,
                crop=(crop, crop),
                steps=steps,
                batch_size=batch_size,
                rate=learning_rate,
                seed=seed,
            )
            scores[seed] = [score(model, config, test, indices, each) for each in protocols]
        trained, whole = scores.mean(0)
        spread = ", ".join(f"{a:.4f}/{b:.4f}" for a, b in scores)
        print(f"{name}, windows/whole of each seed: {spread}", flush=True)
        change = f"{100 * (whole - trained):+.1f} points"
        table.add_row(name, f"{model.count_params():,}", f"{trained:.4f}", f"{whole:.4f}", change)
    console = plain_console()
    console.print(table)
    console.print(f"mean IoU of {len(indices)} images, mean of {seeds} seeds; Keras {keras.__version__}")


if __name__ == "__main__":
    try:
        run(main)
    except InputError as error:
        sys.exit(f"positional: {error}")
