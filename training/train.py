"""`segformer train`: a data set and a variant in, a run folder out, by plain `model.fit`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import keras

from segformer_tf.config import VARIANTS
from segformer_tf.errors import InputError
from segformer_tf.model import build_segformer, check_image_shape
from training.config import TrainConfig
from training.objective import MeanIoU, SegmentationLoss, rare_class_weights
from training.optimizer import SegFormerAdamW, WarmupPoly
from training.pipeline import eval_batches, plain_input_errors, train_batches
from training.run import Run
from training.sources import open_source
from training.strategy import make_strategy


def train(config: TrainConfig) -> Run:
    """Train a SegFormer as `config` says.

    Returns:
        The run, whose folder holds configuration, environment, weights, history and pictures.

    Raises:
        InputError: data or options that cannot be used.
    """
    _check(config)
    keras.utils.set_random_seed(config.seed)
    strategy = make_strategy(config.devices)
    if config.batch_size % strategy.num_replicas_in_sync:
        raise InputError(
            f"--batch-size must be a multiple of the replicas ({strategy.num_replicas_in_sync}). "
            f"Received: {config.batch_size}"
        )
    source = open_source(config.data, config.train_split)
    validation = open_source(config.data, config.val_split)
    height, width = config.eval_size or validation[0][1].shape
    check_image_shape((None, height, width, 3))

    with strategy.scope():
        model = build_segformer(
            config.variant,
            num_classes=len(source.labels.names),
            drop_path_rate=config.drop_path,
            labels=source.labels,
        )
        schedule = WarmupPoly(config.learning_rate, total_steps=config.steps, warmup_steps=config.warmup_steps)
        model.compile(
            optimizer=SegFormerAdamW(schedule, decay=config.weight_decay, head_multiplier=config.head_multiplier),
            loss=SegmentationLoss(rare_class_weights(source) if config.class_weights else None),
            metrics=[MeanIoU(len(source.labels.names))],
            jit_compile=False,  # XLA on CPU is 3x slower for this model, and MirroredStrategy refuses it
        )
    folder = config.out or _free_folder(config, source.name)
    run = Run.create(folder, replace(config, eval_size=(height, width), out=folder))
    epoch_steps = min(config.epoch_steps, config.steps)
    with plain_input_errors():
        model.fit(
            train_batches(source, crop=config.crop, scale=config.scale, batch_size=config.batch_size, seed=config.seed),
            validation_data=eval_batches(validation, size=(height, width), batch_size=config.batch_size),
            steps_per_epoch=epoch_steps,
            epochs=config.steps // epoch_steps,
            verbose=1 if sys.stdout.isatty() else 2,  # a bar for a person, a line an epoch for a log
            shuffle=False,  # the pipeline has its own order
            callbacks=run.callbacks(validation, (height, width)),
        )
    return run


def _check(config: TrainConfig) -> None:
    if config.variant not in VARIANTS:
        raise InputError(f"--variant must be one of {', '.join(VARIANTS)}. Received: {config.variant}")
    for name in ("steps", "epoch_steps", "batch_size"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be positive. Received: {getattr(config, name)}")
    if not 0 < config.scale[0] <= config.scale[1]:
        raise InputError(f"--scale must be two positive factors, the smaller first. Received: {config.scale}")
    if not 0 <= config.warmup_steps < config.steps:
        raise InputError(f"--warmup-steps must be from 0 to below --steps. Received: {config.warmup_steps}")
    if config.steps % min(config.epoch_steps, config.steps):
        raise InputError(
            f"--steps must be a multiple of --epoch-steps. Received: {config.steps} and {config.epoch_steps}"
        )
    if config.seed < 0:
        raise InputError(f"--seed must not be negative. Received: {config.seed}")
    for size in (config.crop, config.eval_size):
        if size is not None:
            check_image_shape((None, *size, 3))


def _free_folder(config: TrainConfig, data_name: str) -> Path:
    """runs/VARIANT-DATA, or with the first free number behind it."""
    base = Path("runs") / f"{config.variant}-{data_name}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))
    return base if not base.exists() else next(path for path in numbered if not path.exists())
