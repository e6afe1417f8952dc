"""Training steps of SegFormer-B0: ours, keras-hub's and transformers' on torch, interleaved in one process.

Each gets the same random images and masks, cross-entropy at the masks' size and AdamW, through its users' interface:
`model.fit` for the two of Keras, forward, backward and step for torch. A peer that is not installed is left out. Ours
takes part a second and a third time, with stages that are frozen.

    pip install '.[train,peers]'
    python -m benchmarks.train_step --size 256 --batch-size 4
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from time import perf_counter

with contextlib.suppress(ImportError):
    import torch  # before TensorFlow: the other way round their libraries collide

import keras
import numpy as np
import tensorflow as tf
from cyclopts import run
from rich.table import Table

from benchmarks.peers.files import keras_hub_model
from segformer_tf import MeanIoU, SegmentationLoss, build_segformer
from segformer_tf.config import variant_config
from segformer_tf.edge.benchmark.timing import take_turns
from segformer_tf.terminal import plain_console
from training.config import FROZEN_STAGES
from training.optim.optimizer import SegFormerAdamW

CLASSES = 19
Steps = Callable[[int], list[float]]  # from a number of steps to the seconds of each


def ours(images: np.ndarray, masks: np.ndarray, *, freeze: str = "") -> Steps:
    """`build_segformer("b0")` as `segformer train` compiles it, with --freeze or without."""
    model = build_segformer("b0", num_classes=CLASSES)
    for stage in model.encoder.stages[: FROZEN_STAGES.get(freeze, 0)]:
        stage.trainable = False
    model.compile(
        SegFormerAdamW(6e-5), SegmentationLoss(), metrics=[MeanIoU(CLASSES)], jit_compile=False
    )  # XLA is slower on a CPU
    return _fit(model, images, masks)


def keras_hub(images: np.ndarray, masks: np.ndarray) -> Steps:
    """keras-hub's SegFormer over a MiT-B0; its logits are at full size."""
    height, width = images.shape[1:3]
    model = keras_hub_model(variant_config("b0", num_classes=CLASSES), (height, width))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    model.compile(keras.optimizers.AdamW(6e-5), loss, metrics=[], jit_compile=False)
    return _fit(model, images, masks)


def transformers(images: np.ndarray, masks: np.ndarray) -> Steps:
    """transformers' SegformerForSemanticSegmentation, whose default sizes are B0's."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.set_num_threads(os.cpu_count() or 1)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(masks.astype(np.int64))

    def steps(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            started = perf_counter()
            optimizer.zero_grad()
            model(pixel_values=pixels, labels=labels).loss.backward()
            optimizer.step()
            seconds.append(perf_counter() - started)
        return seconds

    return steps


def main(*, size: int = 256, batch_size: int = 4, steps: int = 4, rounds: int = 8) -> None:
    """Print the median step of each contender and how many times faster ours is.

    Parameters
    ----------
    size
        Side of the square images.
    batch_size
        Images per step.
    steps
        Steps of each contender in a round; the first step of a round does not count.
    rounds
        Rounds, after one of warm-up.
    """
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, size, size, 3)).astype(np.float32)
    masks = rng.integers(0, CLASSES, (batch_size, size, size)).astype(np.uint8)
    console, contenders = plain_console(), {}
    for make, package in ((ours, "tensorflow"), (keras_hub, "keras-hub"), (transformers, "transformers")):
        try:
            contenders[f"{make.__name__} ({package} {version(package)})"] = make(images, masks)
        except ImportError as error:
            console.print(f"{make.__name__}: left out ({error})")
    for freeze in ("2", "encoder"):
        contenders[f"ours, --freeze {freeze}"] = ours(images, masks, freeze=freeze)
    runners = [partial(take, steps + 1) for take in contenders.values()]
    seconds = take_turns(runners, repeats=rounds, warm_up=1)
    medians = {name: float(np.median(np.array(turns)[:, 1:])) for name, turns in zip(contenders, seconds, strict=True)}
    table = Table("contender", "ms / step", "images / s", "ours is", title=f"b0, {size}x{size}, batch {batch_size}")
    own = next(iter(medians.values()))
    for name, median in medians.items():
        table.add_row(name, f"{1000 * median:.0f}", f"{batch_size / median:.1f}", f"{median / own:.2f}x")
    console.print(table)
    console.print(f"{os.cpu_count()} CPUs, Keras {keras.__version__}, medians of {rounds * steps} steps, interleaved")


class _Clock(keras.callbacks.Callback):
    """Seconds of each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        self.started = perf_counter()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.seconds.append(perf_counter() - self.started)


def _fit(model: keras.Model, images: np.ndarray, masks: np.ndarray) -> Steps:
    data = tf.data.Dataset.from_tensors((tf.constant(images), tf.constant(masks))).repeat()

    def steps(count: int) -> list[float]:
        clock = _Clock()
        model.fit(data, steps_per_epoch=count, verbose=0, shuffle=False, callbacks=[clock])
        return clock.seconds

    return steps


if __name__ == "__main__":
    run(main)
