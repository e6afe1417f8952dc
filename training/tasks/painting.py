"""The task of `segformer pretrain --masked`: the MiT encoder paints what blocks of an image hide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.errors import printable
from segformer_tf.image import Pixels
from segformer_tf.reconstructor import MixTransformerReconstructor, build_reconstructor
from segformer_tf.sampling import evenly_spaced
from training.config import PretrainConfig
from training.data.class_augment import evaluation_view, true_color_view
from training.data.hidden_blocks import hide_blocks
from training.data.image_bits import settle_bits
from training.data.pipeline import batches, endless_batches, eval_steps
from training.data.unlabeled import ImageSource, open_images
from training.distributed.strategy import this_place
from training.optim.losses import Explained, HiddenPixelLoss
from training.runs.folder import Run
from training.runs.plots import plot_panel

_ROWS = 4


class Painting:
    """`training.train.Task` for a `MixTransformerReconstructor`, on images alone, from fresh weights.

    `config` is final once `open` has returned; the splits exist from then on.
    """

    score = "explained"
    head_multiplier = layer_decay = 1.0
    records: ClassVar[dict[str, Any]] = {}
    source: ImageSource
    validation: ImageSource

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def open(self, run: Run | None) -> PretrainConfig:
        config = self.config
        self.source, self.validation = open_images(
            (config.data, *config.more_data), train_split=config.train_split, val_split=config.val_split
        )
        if run is None and this_place().chief:
            for note in self.source.notes:
                print(printable(note))
        self.config = config.resolved(
            f"{self.source.name}-masked",
            images=len(self.source),
            bits=settle_bits(config, (self.source, self.validation), new=run is None),
            more_data=tuple(str(Path(place).resolve()) for place in config.more_data),
        )
        return self.config

    def model(self) -> MixTransformerReconstructor:
        config = self.config
        return build_reconstructor(
            config.variant,
            dtype=config.precision,
            drop_path_rate=config.drop_path,
            image_bits=config.bits,
            license=self.source.license,
        )

    def loss(self) -> HiddenPixelLoss:
        return HiddenPixelLoss()

    def metrics(self) -> list[keras.metrics.Metric]:
        return [Explained()]

    def classes(self) -> dict[str, float]:
        return {}

    def train_batches(self, start: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        config = self.config

        def load(index: Any, seed: Any) -> Any:
            place, blocks = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
            return self._hide(true_color_view(_read(self.source, index), place, size=config.crop), blocks)

        return endless_batches(
            len(self.source), load, batch_size=config.batch_size, seed=config.seed, start=start, context=context
        )

    def eval_batches(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        return self._views(self.validation, self.config.batch_size, context)

    def draw(self, model: MixTransformerReconstructor, out: Path) -> None:
        """A row per sample: the image, the image with its blocks hidden, and those painted."""
        seen, targets = self._shown
        image, hidden = targets[..., :3], targets[..., 3:]
        painted = seen + hidden * np.asarray(model(seen, training=False), np.float32)
        columns = [self._pixels(model, each) for each in (image, seen, painted)]
        rows = list(zip(*columns, strict=True))
        plot_panel(rows, out, titles=[("image", "masked", "reconstruction")] * len(rows))

    @staticmethod
    def _pixels(model: MixTransformerReconstructor, images: Any) -> Pixels:
        """(B, H, W, 3) uint8 RGB of normalized images."""
        pixels = images * np.array(model.config.image_std) + np.array(model.config.image_mean)
        return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)

    def _hide(self, image: Any, seed: Any) -> Any:
        return hide_blocks(image, seed, ratio=self.config.mask_ratio, block=self.config.mask_size)

    def _views(
        self, source: Sequence[Pixels] | ImageSource, batch_size: int, context: tf.distribute.InputContext | None
    ) -> tf.data.Dataset:
        """Each image's blocks are those of its number: the same after every epoch."""

        def load(index: Any) -> Any:
            seen, target = self._hide(
                evaluation_view(_read(source, index), size=self.config.crop), tf.stack([index, tf.zeros_like(index)])
            )
            return seen, tf.where(index < len(source), target, tf.zeros_like(target))

        return batches(tf.data.Dataset.range(eval_steps(source, batch_size) * batch_size), load, batch_size, context)

    @cached_property
    def _shown(self) -> tuple[Any, Any]:
        """Four samples: what the network sees of them, and their targets, as arrays."""
        samples = [self.validation[i] for i in evenly_spaced(range(len(self.validation)), _ROWS)]
        seen, targets = next(iter(self._views(samples, len(samples), None)))
        return np.asarray(seen), np.asarray(targets)


def _read(source: Sequence[Pixels] | ImageSource, index: Any) -> Any:
    """(H, W, 3) uint8; after the last image, one black pixel."""

    def read(i: Any) -> Any:
        return source[int(i)] if i < len(source) else np.zeros((1, 1, 3), np.uint8)

    image = tf.numpy_function(read, [index], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (None, None, 3))
