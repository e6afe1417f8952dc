"""From a source to tf.data batches. The i-th training sample (order, crop, colors) depends on (seed, i) alone.

Mixing adds the samples that are in one replica's batch with it, and no state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from segformer_tf.config import normalize
from segformer_tf.errors import InputError
from segformer_tf.image import fit_image
from segformer_tf.labels import IGNORE_ID
from training.data.augment import Normalize, augment, mix_classes
from training.data.masks import Sample
from training.data.open import Source
from training.data.order import ClassBalance, shuffled

Samples = Sequence[Sample] | Source


def train_batches(
    source: Samples,
    *,
    crop: tuple[int, int],
    scale: tuple[float, float],
    base: tuple[int, int] | None = None,
    stretch: float = 1.0,
    color: float = 1.0,
    mix: float = 0.0,
    batch_size: int,
    seed: int,
    start: int = 0,
    context: tf.distribute.InputContext | None = None,
    normalize: Normalize = normalize,
    balance: ClassBalance | None = None,
) -> tf.data.Dataset:
    """Endless augmented batches, each epoch in its own order.

    Args:
        source: the training split.
        crop: (height, width) of the samples.
        scale, base, stretch: see `training.data.augment.scale_jitter`.
        color: see `training.data.augment.photometric_distortion`.
        mix: share of the samples to mix, see `training.data.augment.mix_classes`; a replica's batch then has 2 or more.
        batch_size: samples per step, over all replicas.
        seed: of order and augmentation.
        start: number of samples already seen.
        context: tf.distribute's description of this worker; None for a single one.
        normalize: of the network's configuration; ImageNet's by default.
        balance: draws a share of the samples by class.

    Yields:
        ((B / replicas, *crop, 3) float32 normalized, (B / replicas, *crop) uint8).
    """

    def load(index: Any, key: Any, held: Any = None) -> Any:
        image, mask = tf.numpy_function(lambda i: source[int(i)], [index], (tf.uint8, tf.uint8), stateful=False)
        image, mask = tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(mask, (None, None))
        changes: dict[str, Any] = {"scale": scale, "base": base, "stretch": stretch, "color": color}
        sample = augment(image, mask, key, crop=crop, **changes, normalize=normalize, held=held)
        return (*sample, key) if mix else sample

    return endless_batches(
        len(source),
        load,
        batch_size=batch_size,
        seed=seed,
        start=start,
        context=context,
        draw=partial(balance.draw, seed=seed) if balance else None,
        combine=partial(mix_classes, share=mix) if mix else None,
    )


def eval_batches(
    source: Samples,
    *,
    size: tuple[int, int],
    batch_size: int,
    context: tf.distribute.InputContext | None = None,
    normalize: Normalize = normalize,
) -> tf.data.Dataset:
    """Every sample once, in order: the image by the image contract, the mask stretched to the nearest pixel.

    Wholly ignored samples fill the last batch, so that every replica has some.

    Yields:
        ((B / replicas, *size, 3) float32 normalized, (B / replicas, *size) uint8).
    """
    height, width = size

    def read(index: Any) -> Any:
        if index >= len(source):
            return np.zeros((*size, 3), np.uint8), np.full(size, IGNORE_ID, np.uint8)
        image, mask = source[int(index)]
        if mask.shape != size:
            mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        return fit_image(image, size), mask

    def load(index: Any) -> Any:
        image, mask = tf.numpy_function(read, [index], (tf.uint8, tf.uint8), stateful=False)
        return normalize(tf.cast(tf.ensure_shape(image, (*size, 3)), tf.float32)), tf.ensure_shape(mask, size)

    numbers = tf.data.Dataset.range(eval_steps(source, batch_size) * batch_size)
    return batches(numbers, load, batch_size, context)


def eval_steps(source: Sized, batch_size: int) -> int:
    """Number of batches over all replicas for every sample once."""
    return -(-len(source) // batch_size)


@contextmanager
def plain_input_errors(smaller: Callable[[], str] = lambda: "try a smaller --batch-size or --crop") -> Iterator[None]:
    """Raises InputError for what TensorFlow wraps: an `InputError` inside a data set, a full disk, too little memory.

    Args:
        smaller: the advice against too little memory, the end of the line.
    """
    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        message = getattr(error, "message", str(error)) or ""
        if match := re.search(r"InputError: (.*)", message):
            line = match.group(1)
        elif match := re.search(r"(\S+); No space left on device", message):
            line = f"{match.group(1)}: cannot be written (No space left on device)"
        elif isinstance(error, (tf.errors.ResourceExhaustedError, MemoryError)):
            match = re.search(r"OOM when [^\n]*?(?= by allocator|\n|$)|[Uu]nable to allocate [^\n]*", message)
            line = f"out of memory{f' ({match.group()})' if match else ''}; {smaller()}"
        else:
            raise
        print()  # ends the line of the progress bar
        raise InputError(line) from None


def endless_batches(
    count: int,
    load: Callable[[Any, Any], Any],
    *,
    batch_size: int,
    seed: int,
    start: int,
    context: tf.distribute.InputContext | None,
    draw: Callable[[Any], tuple[Any, ...]] | None = None,
    combine: Callable[..., Any] | None = None,
) -> tf.data.Dataset:
    """Endless batches of `count` samples, each epoch in its own order.

    Args:
        load: gives a sample for its index and the (2,) int64 seed of its augmentation.
        batch_size, seed, start, context: see `train_batches`.
        draw: another order: gives the index of sample number i, and what else `load` takes.
        combine: makes a replica's batch of what `load` gave.
    """

    def numbered(i: Any) -> Any:
        index, *rest = draw(i) if draw else (shuffled(i, count, [seed]),)
        return load(index, tf.stack([tf.constant(seed, tf.int64), i]), *rest)

    return batches(tf.data.Dataset.range(start, np.iinfo(np.int64).max), numbered, batch_size, context, combine)


def batches(
    numbers: tf.data.Dataset,
    load: Callable[[Any], Any],
    batch_size: int,
    context: tf.distribute.InputContext | None,
    combine: Callable[..., Any] | None = None,
) -> tf.data.Dataset:
    """Load samples by number in batches of one replica; every worker loads its own part of each global batch."""
    context = context or tf.distribute.InputContext()
    own = batch_size // context.num_input_pipelines
    first = own * context.input_pipeline_id
    numbers = numbers.batch(batch_size).map(lambda batch: batch[first : first + own]).unbatch()
    samples = numbers.map(load, num_parallel_calls=os.cpu_count())
    data = samples.batch(batch_size // context.num_replicas_in_sync, drop_remainder=True)
    if combine:
        data = data.map(combine, num_parallel_calls=2)
    options = tf.data.Options()
    # Tuning is waited for at an iterator's end: on two cores 1.3 s after 50 batches of 8 crops of 320x448, 20 s beside
    # other work. Nor does it read more samples a second there.
    options.autotune.enabled = False
    return data.prefetch(2).with_options(options)
