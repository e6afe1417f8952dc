"""`segformer train`: a data set and a variant in, a run folder out, by plain `model.fit`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from segformer_tf.config import VARIANTS, variant_config
from segformer_tf.errors import InputError
from segformer_tf.model import SegFormer, build_segformer, check_image_shape
from training.accumulate import accumulate
from training.backup import Backup, Progress
from training.config import TrainConfig
from training.objective import MeanIoU, SegmentationLoss, rare_class_weights
from training.optimizer import SegFormerAdamW, WarmupPoly
from training.pipeline import eval_batches, eval_steps, plain_input_errors, train_batches
from training.run import Keep, Pictures, Run, StopBetweenSteps, ValidateAveraged, locked
from training.sources import Source, check_masks, open_source
from training.start import copy_weights, read_start
from training.strategy import make_strategy, plain_worker_errors, this_place
from training.throughput import Throughput

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def train(config: TrainConfig) -> Run:
    """Train a SegFormer as `config` says.

    Returns:
        The run, whose folder holds configuration, environment, weights, history and pictures.

    Raises:
        InputError: data or options that cannot be used, or a worker of several that was lost.
    """
    return _fit(config, None)


def resume(folder: Path) -> Run:
    """Go on with a run that was stopped, at the first epoch that was not finished.

    Raises:
        InputError: no run folder, a damaged backup, or what `train` raises.
    """
    run, config = Run.reopen(folder)
    return _fit(config, run)


def _fit(config: TrainConfig, run: Run | None) -> Run:
    if config.warmup_steps is None:
        config = replace(config, warmup_steps=min(1500, config.steps // 10))
    check(config)
    place = this_place()
    if place.count > 1 and config.out is None:
        raise InputError("--out is needed with several workers, the same for all")
    strategy = make_strategy(config.devices)  # before anything makes TensorFlow look at its devices
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    if config.batch_size % (strategy.num_replicas_in_sync * config.accumulate):
        raise InputError(
            f"--batch-size must be a multiple of replicas times --accumulate "
            f"({strategy.num_replicas_in_sync} x {config.accumulate}). Received: {config.batch_size}"
        )
    source = open_source(config.data, config.train_split)
    validation = open_source(config.data, config.val_split)
    if not config.data.startswith("tfds:"):
        config = replace(config, data=str(Path(config.data).resolve()))  # a run is resumed from anywhere
    height, width = config.eval_size or validation[0][0].shape[:2]
    check_image_shape((None, height, width, 3), "--eval-size")
    config = replace(config, eval_size=(height, width))
    given = None
    if config.weights:  # a run that goes on has them in its own folder, or in its backup
        path = run.last if run and run.last.exists() else Path(config.weights)
        given = read_start(path, config.variant)
        config = replace(config, weights=Path(config.weights).resolve())
    root = config.out or _free_folder(config, source.name)
    if run is None:
        check_masks(source, validation)
        if place.chief:
            run = Run.create(root, config)
    hint = f"then start every worker again, with --resume {root} if it was made"
    with ExitStack() as stack:
        stack.enter_context(plain_worker_errors(hint))
        stack.enter_context(plain_input_errors())
        if place.chief:
            stack.enter_context(locked(root))
        with strategy.scope():
            model = _build(config, source, given)  # the workers meet here
        del given  # a second model in memory
        if run is None:  # a worker that shares no disk with the chief keeps a folder of its own
            run = Run(root) if root.exists() else Run.create(root, config)
            if Backup(run.backup).exists():
                raise InputError(f"{root}: exists already on worker {place.index}; choose another --out on all of them")
        progress = Backup(run.backup).restore(model)
        if progress.epoch and progress.samples != len(source):
            raise InputError(
                f"{root} began with {progress.samples} training samples, the data has {len(source)}; start a new run"
            )
        progress.samples = len(source)
        if place.chief:
            done = "nothing is left to do" if progress.epoch * _epoch_steps(config) >= config.steps else "training"
            print(f"{root}: {done}, {progress.epoch * _epoch_steps(config)} of {config.steps} steps done")
        try:
            _run_epochs(model, config, run, progress, source, validation)
        except KeyboardInterrupt:
            print(f"\ngo on with: segformer train --resume {root}", file=sys.stderr)
            raise
    return run


def _epoch_steps(config: TrainConfig) -> int:
    return min(config.epoch_steps, config.steps)


def _build(config: TrainConfig, source: Source, given: SegFormer | None) -> SegFormer:
    """The model with its optimizer, loss and metric; called in the strategy's scope."""
    labels = source.labels
    changes: dict[str, Any] = {"num_classes": len(labels.names), "labels": labels}
    changes["license"] = _terms(source, given.config.license if given else "")
    changes |= {"drop_path_rate": config.drop_path, "dropout_rate": config.dropout}
    if given is None:
        model = build_segformer(config.variant, dtype=config.precision, **changes)
    else:  # epsilons, and mmseg's decoder, belong to the weights
        model = SegFormer(replace(given.config, **changes), dtype=config.precision)
        copy_weights(given, model)
    assert config.warmup_steps is not None  # `_fit` put it there
    schedule = WarmupPoly(config.learning_rate, total_steps=config.steps, warmup_steps=config.warmup_steps)
    model.compile(
        optimizer=SegFormerAdamW(
            schedule,
            decay=config.weight_decay,
            head_multiplier=config.head_multiplier,
            clip_norm=config.clip_norm,
            use_ema=config.ema > 0,
            ema_momentum=config.ema,
        ),
        loss=SegmentationLoss(rare_class_weights(source, config.class_weights) if config.class_weights else None),
        metrics=[MeanIoU(len(source.labels.names))],
        jit_compile=False,  # XLA on CPU is 3x slower for this model, and MirroredStrategy refuses it
    )
    model.optimizer.build(model.trainable_variables)
    if config.accumulate > 1:
        accumulate(model, config.accumulate)
    return model


def _terms(source: Source, inherited: str) -> str:
    """Terms of the weights: those of the weights they come from, and of the data."""
    own = f"trained on {source.name}: {source.license}" if source.license else ""
    return "; ".join(dict.fromkeys(filter(None, [*inherited.split("; "), own])))


def _run_epochs(
    model: SegFormer, config: TrainConfig, run: Run, progress: Progress, source: Source, validation: Source
) -> None:
    assert config.eval_size is not None  # `_fit` put it there
    size, batch_size = config.eval_size, config.batch_size
    epoch_steps = _epoch_steps(config)
    keep: list[keras.callbacks.Callback] = [
        Throughput(batch_size),
        ValidateAveraged(),
        Keep(run, progress),
    ]
    if this_place().chief:
        keep += [
            keras.callbacks.TensorBoard(str(run.tensorboard), write_graph=False),
            Pictures(run, progress, validation, size),
        ]

    def train_data(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return train_batches(
            source,
            crop=config.crop,
            scale=config.scale,
            base=config.base,
            batch_size=batch_size,
            seed=config.seed,
            start=progress.epoch * epoch_steps * batch_size,
            context=context,
        )

    def val_data(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return eval_batches(validation, size=size, batch_size=batch_size, context=context)

    strategy = model.distribute_strategy
    with StopBetweenSteps() as stop:
        model.fit(
            strategy.distribute_datasets_from_function(train_data),
            validation_data=strategy.distribute_datasets_from_function(val_data),
            validation_steps=eval_steps(validation, batch_size),
            steps_per_epoch=epoch_steps,
            initial_epoch=progress.epoch,
            epochs=config.steps // epoch_steps,
            verbose=_verbosity(),
            shuffle=False,  # the pipeline has its own order
            callbacks=[stop, *keep],
        )


def _verbosity() -> int:
    """A bar for a person, a line an epoch for a log, nothing from any but the chief."""
    if not this_place().chief:
        return 0
    return 1 if sys.stdout.isatty() else 2


def check(config: TrainConfig) -> None:
    """Raises InputError for values out of range, as far as they can be told without the data."""
    if config.variant not in VARIANTS:
        raise InputError(f"--variant must be one of {', '.join(VARIANTS)}. Received: {config.variant}")
    variant_config(config.variant, num_classes=1, drop_path_rate=config.drop_path, dropout_rate=config.dropout)
    if config.precision not in PRECISIONS:
        raise InputError(f"--precision must be one of {', '.join(PRECISIONS)}. Received: {config.precision}")
    for name in ("steps", "epoch_steps", "batch_size", "accumulate", "learning_rate", "head_multiplier", "clip_norm"):
        value = getattr(config, name)
        if value is not None and not 0 < value < inf:
            raise InputError(f"--{name.replace('_', '-')} must be positive. Received: {value}")
    for name in ("weight_decay", "class_weights"):
        if not 0 <= getattr(config, name) < inf:
            raise InputError(f"--{name.replace('_', '-')} must not be negative. Received: {getattr(config, name)}")
    if not 0 <= config.ema < 1:
        raise InputError(f"--ema must be from 0 to below 1. Received: {config.ema}")
    if config.base is not None and not 0 < config.base[1] <= config.base[0]:
        raise InputError(f"--base must be a long and a short side, in pixels. Received: {config.base}")
    if not 0 < config.scale[0] <= config.scale[1] < inf:
        raise InputError(f"--scale must be two positive factors, the smaller first. Received: {config.scale}")
    if config.warmup_steps is None or not 0 <= config.warmup_steps < config.steps:
        raise InputError(f"--warmup-steps must be from 0 to below --steps. Received: {config.warmup_steps}")
    if config.steps % min(config.epoch_steps, config.steps):
        raise InputError(
            f"--steps must be a multiple of --epoch-steps. Received: {config.steps} and {config.epoch_steps}"
        )
    if not 0 <= config.seed < 2**32:
        raise InputError(f"--seed must be from 0 to 4294967295. Received: {config.seed}")
    for name, size in (("--crop", config.crop), ("--eval-size", config.eval_size)):
        if size is not None:
            check_image_shape((None, *size, 3), name)


def _free_folder(config: TrainConfig, data_name: str) -> Path:
    """runs/VARIANT-DATA, or with the first free number behind it."""
    base = Path("runs") / f"{config.variant}-{data_name}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))
    return base if not base.exists() else next(path for path in numbered if not path.exists())
