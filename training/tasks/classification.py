"""The task of `segformer pretrain`: the MiT encoder as a classifier of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.classifier import MixTransformerClassifier, build_classifier
from segformer_tf.sampling import evenly_spaced
from training.config import PretrainConfig
from training.data.class_augment import evaluation_view, training_view
from training.data.classes import ClassSource, Labeled, open_classes
from training.data.image_bits import settle_bits
from training.data.pipeline import batches, endless_batches, eval_steps
from training.optim.losses import IGNORED, ClassificationLoss, TopK
from training.runs.folder import Run
from training.runs.plots import plot_panel

_COLUMNS = 4


class Classification:
    """`training.train.Task` for a `MixTransformerClassifier`, on folders of classes or a TFDS set, from fresh weights.

    `config` is final once `open` has returned; the splits exist from then on.
    """

    score = "top_1"
    head_multiplier = layer_decay = 1.0
    records: ClassVar[dict[str, Any]] = {}
    source: ClassSource
    validation: ClassSource

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def open(self, run: Run | None) -> PretrainConfig:
        config = self.config
        self.source, self.validation = open_classes(config.data, config.train_split, config.val_split)
        for source in (self.source, self.validation):
            if source.skipped and run is None:
                print(source.skipped)
        bits = settle_bits(config, (self.source, self.validation), new=run is None)
        self.config = config.resolved(self.source.name, images=len(self.source), bits=bits)
        return self.config

    def model(self) -> MixTransformerClassifier:
        config = self.config
        return build_classifier(
            config.variant,
            labels=self.source.names,
            dtype=config.precision,
            drop_path_rate=config.drop_path,
            image_bits=config.bits,
        )

    def loss(self) -> ClassificationLoss:
        return ClassificationLoss(self.config.label_smoothing)

    def metrics(self) -> list[keras.metrics.Metric]:
        return [TopK(k) for k in (1, 5) if k == 1 or k < len(self.source.names)]

    def classes(self) -> dict[str, float]:
        return {}

    def train_batches(self, start: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        config = self.config

        def load(index: Any, seed: Any) -> Any:
            image, label = _read(self.source, index)
            return training_view(image, seed, size=config.crop), label

        return endless_batches(
            len(self.source), load, batch_size=config.batch_size, seed=config.seed, start=start, context=context
        )

    def eval_batches(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        return self._views(self.validation, self.config.batch_size, context)

    def draw(self, model: MixTransformerClassifier, out: Path) -> None:
        """Up to eight images with their class and the predicted one."""
        samples, batch = self._shown
        titles = [
            f"{self.source.names[label]}\npredicted: {self.source.names[int(best)]}"
            for (_, label), best in zip(samples, np.argmax(model(batch, training=False), axis=-1), strict=True)
        ]
        starts = range(0, len(samples), min(_COLUMNS, len(samples)))
        rows = [[image for image, _ in samples[i : i + _COLUMNS]] for i in starts]
        plot_panel(rows, out, titles=[titles[i : i + _COLUMNS] for i in starts])

    def _views(
        self, source: Sequence[Labeled] | ClassSource, batch_size: int, context: tf.distribute.InputContext | None
    ) -> tf.data.Dataset:
        def load(index: Any) -> Any:
            image, label = _read(source, index)
            return evaluation_view(image, size=self.config.crop), label

        return batches(tf.data.Dataset.range(eval_steps(source, batch_size) * batch_size), load, batch_size, context)

    @cached_property
    def _shown(self) -> tuple[list[Labeled], Any]:
        """Eight samples, or as many as fill rows, and their batch."""
        count = min(2 * _COLUMNS, len(self.validation))
        count -= count % _COLUMNS if count > _COLUMNS else 0
        samples = [self.validation[i] for i in evenly_spaced(range(len(self.validation)), count)]
        return samples, next(iter(self._views(samples, count, None)))[0]


def _read(source: Sequence[Labeled] | ClassSource, index: Any) -> Any:
    """(H, W, 3) uint8 and the class, int32; after the last sample, one pixel of class `IGNORED`."""

    def read(i: Any) -> Any:
        if i >= len(source):
            return np.zeros((1, 1, 3), np.uint8), np.int32(IGNORED)
        image, label = source[int(i)]
        return image, np.int32(label)

    image, label = tf.numpy_function(read, [index], (tf.uint8, tf.int32), stateful=False)
    return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(label, ())
