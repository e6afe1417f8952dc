"""`segformer train` and `segformer pretrain`: options in, a run folder out, by plain `model.fit`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from segformer_tf.errors import InputError
from training.accumulate import accumulate
from training.backup import Backup, Progress
from training.check import check_run
from training.classification import Classification
from training.config import RunConfig, TrainConfig
from training.optimizer import SegFormerAdamW, SharedLossScale, WarmupPoly
from training.pipeline import eval_steps, plain_input_errors
from training.run import Keep, Pictures, Run, StopBetweenSteps, ValidateAveraged, locked
from training.segmentation import Segmentation
from training.strategy import make_strategy, plain_worker_errors, this_place
from training.task import Task
from training.throughput import Throughput

TASKS: dict[str, Any] = {"segmentation": Segmentation, "classification": Classification}


def train(config: RunConfig) -> Run:
    """Train what `config` says: a SegFormer by a `TrainConfig`, its encoder as a classifier by a `PretrainConfig`.

    Returns:
        The run, whose folder holds configuration, environment, weights, history and pictures.

    Raises:
        InputError: data or options that cannot be used, or a worker of several that was lost.
    """
    return _fit(config, None)


def resume(folder: Path, kind: type[RunConfig] = TrainConfig) -> Run:
    """Go on with a run that was stopped, at the first epoch that was not finished.

    Args:
        folder: of the run.
        kind: what its options are; it tells the task.

    Raises:
        InputError: no run folder, one of another task, a damaged backup, or what `train` raises.
    """
    run, config = Run.reopen(folder, kind)
    return _fit(config, run)


def _fit(config: RunConfig, run: Run | None) -> Run:
    if config.warmup_steps is None:
        config = replace(config, warmup_steps=min(1500, config.steps // 10))
    check_run(config)
    task: Task = TASKS[config.task](config)
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
    task.open(run)
    config, samples = task.config, len(task.source)
    if not config.data.startswith("tfds:"):
        config = replace(config, data=str(Path(config.data).resolve()))  # a run is resumed from anywhere
    root = config.out or _free_folder(config, task.source.name)
    if run is None and place.chief:
        run = Run.create(root, config)
    verb = f"segformer {config.verb}"
    hint = f"then start every worker again, with --resume {root} if it was made"
    with ExitStack() as stack:
        stack.enter_context(plain_worker_errors(hint))
        stack.enter_context(plain_input_errors())
        if place.chief:
            stack.enter_context(locked(root))
        with strategy.scope():
            model = _build(task)  # the workers meet here
        if run is None:  # a worker that shares no disk with the chief keeps a folder of its own
            run = Run(root) if root.exists() else Run.create(root, config)
            if Backup(run.backup).exists():
                raise InputError(f"{root}: exists already on worker {place.index}; choose another --out on all of them")
        progress = Backup(run.backup).restore(model)
        if progress.epoch and progress.samples != samples:
            raise InputError(
                f"{root} began with {progress.samples} training samples, the data has {samples}; start a new run"
            )
        progress.samples = samples
        if place.chief:
            done = "nothing is left to do" if progress.epoch * _epoch_steps(config) >= config.steps else "training"
            print(f"{root}: {done}, {progress.epoch * _epoch_steps(config)} of {config.steps} steps done")
        try:
            _run_epochs(model, task, run, progress)
        except KeyboardInterrupt:
            print(f"\ngo on with: {verb} --resume {root}", file=sys.stderr)
            raise
        if place.chief:
            print(f"best validation {task.score.replace('_', ' ')}: {progress.best:.4f}")
    return run


def _epoch_steps(config: RunConfig) -> int:
    return min(config.epoch_steps, config.steps)


def _build(task: Task) -> keras.Model:
    """The model with its optimizer, loss and metrics; called in the strategy's scope."""
    model, config = task.model(), task.config
    assert config.warmup_steps is not None  # `_fit` put it there
    schedule = WarmupPoly(config.learning_rate, total_steps=config.steps, warmup_steps=config.warmup_steps)
    optimizer = SegFormerAdamW(
        schedule,
        decay=config.weight_decay,
        head_multiplier=task.head_multiplier,
        clip_norm=config.clip_norm,
        use_ema=config.ema > 0,
        ema_momentum=config.ema,
    )
    model.compile(
        optimizer=SharedLossScale(optimizer) if config.precision == "mixed_float16" else optimizer,
        loss=task.loss(),
        metrics=task.metrics(),
        jit_compile=False,  # XLA on CPU is 3x slower for this model, and MirroredStrategy refuses it
    )
    model.optimizer.build(model.trainable_variables)
    if config.accumulate > 1:
        accumulate(model, config.accumulate)
    return model


def _run_epochs(model: keras.Model, task: Task, run: Run, progress: Progress) -> None:
    config = task.config
    epoch_steps, batch_size = _epoch_steps(config), config.batch_size
    keep: list[keras.callbacks.Callback] = [
        Throughput(batch_size),
        ValidateAveraged(),
        Keep(run, progress, score=task.score),
    ]
    if this_place().chief:
        keep += [
            keras.callbacks.TensorBoard(str(run.tensorboard), write_graph=False),
            Pictures(run, progress, score=task.score, draw=task.draw),
        ]

    def train_data(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return task.train_batches(progress.epoch * epoch_steps * batch_size, context)

    strategy = model.distribute_strategy
    with StopBetweenSteps() as stop:
        model.fit(
            strategy.distribute_datasets_from_function(train_data),
            validation_data=strategy.distribute_datasets_from_function(task.eval_batches),
            validation_steps=eval_steps(task.validation, batch_size),
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


def _free_folder(config: RunConfig, data_name: str) -> Path:
    """runs/VARIANT-DATA, or with the first free number behind it."""
    base = Path("runs") / f"{config.variant}-{data_name}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))
    return base if not base.exists() else next(path for path in numbered if not path.exists())
