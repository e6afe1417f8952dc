"""`segformer train` and `segformer pretrain`: options in, a run folder out, by plain `model.fit`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from segformer_tf.errors import InputError
from training.check import check_run
from training.config import RunConfig, TrainConfig
from training.data.pipeline import eval_steps, plain_input_errors
from training.distributed.strategy import make_strategy, plain_worker_errors, this_place
from training.optim.accumulate import accumulate
from training.optim.divergence import StopAtDivergence
from training.optim.optimizer import SegFormerAdamW, SharedLossScale, WarmupPoly
from training.runs.backup import Backup, Progress
from training.runs.folder import Keep, Pictures, Run, StopBetweenSteps, ValidateAveraged, alone_in
from training.runs.resume_options import told_changes, with_changes
from training.runs.throughput import Throughput
from training.tasks.base import Task
from training.tasks.classification import Classification
from training.tasks.segmentation import Segmentation

TASKS: dict[str, Any] = {"segmentation": Segmentation, "classification": Classification}


def train(config: RunConfig) -> Run:
    """Train what `config` says: a SegFormer by a `TrainConfig`, its encoder as a classifier by a `PretrainConfig`.

    Returns:
        The run, whose folder holds configuration, environment, weights, history and pictures.

    Raises:
        InputError: data or options that cannot be used, a step that diverged, too little memory, or a worker of
            several that was lost.
    """
    return _fit(config, None)


def resume(folder: Path, kind: type[RunConfig] = TrainConfig, changes: Mapping[str, Any] | None = None) -> Run:
    """Go on with a run that was stopped, at the first epoch or validation that was not finished.

    Args:
        folder: of the run.
        kind: what its options are; it tells the task.
        changes: options to change, of those in `training.runs.resume_options.CHANGEABLE`.

    Raises:
        InputError: no run folder, one of another task, a damaged backup, changes that a run cannot take, or what
            `train` raises.
    """
    run, before = Run.reopen(folder, kind)
    return _fit(with_changes(before, changes or {}), run, before)


def _fit(config: RunConfig, run: Run | None, before: RunConfig | None = None) -> Run:
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
    config = task.config
    if not config.data.startswith("tfds:"):
        config = replace(config, data=str(Path(config.data).resolve()))  # a run is resumed from anywhere
    root = config.out or _free_folder(config, task.source.name)
    task.config = config = replace(config, out=root)
    if run is None and place.chief:
        run = Run.create(root, config)
    with ExitStack() as stack:
        stack.enter_context(plain_worker_errors(f"then start every worker again, with --resume {root} if it was made"))
        stack.enter_context(plain_input_errors())
        if place.chief:
            stack.enter_context(alone_in(root))
        with strategy.scope():
            model = _build(task)  # the workers meet here
        if run is None:  # a worker that shares no disk with the chief keeps a folder of its own
            run = Run(root) if root.exists() else Run.create(root, config)
            if Backup(run.backup).exists():
                raise InputError(f"{root}: exists already on worker {place.index}; choose another --out on all of them")
        _train(model, task, run, before)
    return run


def _train(model: keras.Model, task: Task, run: Run, before: RunConfig | None) -> None:
    """What is left of the run, from its backup on."""
    config, samples, chief = task.config, len(task.source), this_place().chief
    progress = Backup(run.backup).restore(model)
    if progress.epoch and progress.samples != samples:
        raise InputError(
            f"{run.root} began with {progress.samples} training samples, the data has {samples}; start a new run"
        )
    progress.samples = samples
    progress.size = progress.size or (_size(before) if before else None) or _size(config)  # an old backup has none
    if before and chief:
        run.go_on(before, config)
    elif before:
        run.ask(config)  # of a worker with a folder of its own
    steps = progress.epoch * _epoch_steps(config)
    if chief:
        for line in told_changes(before, config) if before else []:
            print(line)
        if progress.trained is not None:
            print(f"epoch {progress.epoch} was trained, but not validated: that comes first")
        done = "nothing is left to do" if steps >= config.steps and progress.trained is None else "training"
        print(f"{run.root}: {done}, {steps} of {config.steps} steps done")
    try:
        _run_epochs(model, task, run, progress)
    except KeyboardInterrupt:
        print(f"\ngo on with: {_again(run, config)}", file=sys.stderr)
        raise
    if chief:
        print(f"best validation {task.score.replace('_', ' ')}: {progress.best:.4f}")


def _size(config: RunConfig) -> list[int] | None:
    """(height, width) of the validation, of a segmenter."""
    return list(config.eval_size) if isinstance(config, TrainConfig) and config.eval_size else None


def _epoch_steps(config: RunConfig) -> int:
    return min(config.epoch_steps, config.steps)


def _schedule(config: RunConfig) -> WarmupPoly:
    assert config.warmup_steps is not None  # `_fit` put it there
    return WarmupPoly(config.learning_rate, total_steps=config.steps, warmup_steps=config.warmup_steps)


def _build(task: Task) -> keras.Model:
    """The model with its optimizer, loss and metrics; called in the strategy's scope."""
    model, config = task.model(), task.config
    optimizer = SegFormerAdamW(
        _schedule(config),
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
    throughput, validating = Throughput(batch_size), ValidateAveraged()
    pictures = Pictures(run, progress, score=task.score, draw=task.draw)
    diverged = StopAtDivergence(
        epoch_steps, rate=_schedule(config), kept=lambda: _after_divergence(run, config, progress.epoch * epoch_steps)
    )
    keep: list[keras.callbacks.Callback] = [
        Keep(run, progress, score=task.score, size=_size(config), told=[throughput.told, diverged.told]),
        validating,
    ]
    if this_place().chief:
        keep += [
            keras.callbacks.TensorBoard(str(run.tensorboard), write_graph=False),
            pictures,
        ]

    def train_data(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return task.train_batches(progress.epoch * epoch_steps * batch_size, context)

    strategy = model.distribute_strategy

    def smaller() -> str:
        seen = "validation" if validating.running else "pictures" if pictures.running else "training"
        return _smaller(run, config, seen, replicas=strategy.num_replicas_in_sync)

    data = strategy.distribute_datasets_from_function(train_data)
    validation = strategy.distribute_datasets_from_function(task.eval_batches)
    validation_steps = eval_steps(task.validation, batch_size)
    with StopBetweenSteps() as stop, plain_input_errors(smaller):
        if progress.trained is not None:
            _validate(model, progress, validation, steps=validation_steps, callbacks=[stop, *keep])
        model.fit(
            data,
            validation_data=validation,
            validation_steps=validation_steps,
            steps_per_epoch=epoch_steps,
            initial_epoch=progress.epoch,
            epochs=config.steps // epoch_steps,
            verbose=_verbosity(),
            shuffle=False,  # the pipeline has its own order
            callbacks=[stop, throughput, diverged, *keep],
        )


def _validate(
    model: keras.Model,
    progress: Progress,
    data: Any,
    *,
    steps: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """The validation that a trained epoch still waits for, and what comes of it, as `fit` would do it."""
    assert progress.trained is not None
    each = keras.callbacks.CallbackList(callbacks, model=model)
    each.on_train_begin()
    found = model.evaluate(data, steps=steps, callbacks=each, return_dict=True)
    trained = {name: value for name, value in progress.trained.items() if name in found}
    each.on_epoch_end(progress.epoch - 1, trained | {f"val_{name}": value for name, value in found.items()})
    each.on_train_end()


def _again(run: Run, config: RunConfig) -> str:
    return f"segformer {config.verb} --resume {run.root}"


def _after_divergence(run: Run, config: RunConfig, steps: int) -> str:
    """What is left of a training that diverged, and what to try."""
    kept = f"{run.root} keeps what it was after step {steps}" if steps else f"nothing was kept in {run.root}, remove it"
    ways = "a lower --learning-rate, --clip-norm 1 or a longer --warmup-steps"
    if config.precision == "mixed_float16":
        ways += ", or --precision mixed_bfloat16 or float32"
    start = f"; --weights {run.root} begins with its weights" if steps and isinstance(config, TrainConfig) else ""
    return f"{kept}; --resume would meet the same data at the same rate, so start a new run with {ways}{start}"


def _smaller(run: Run, config: RunConfig, during: str, *, replicas: int) -> str:
    """What to try where memory is short: `during` is training, validation or pictures."""
    if during != "training" and isinstance(config, TrainConfig) and config.eval_size:
        height, width = config.eval_size
        again = f"{_again(run, config)} --eval-size H W of less"
        if during == "pictures":
            return f"that was panel.png, an image of {height}x{width}; the epoch is kept: go on with {again}"
        return (
            f"that was the validation, {config.batch_size} images of {height}x{width} at a time; the epoch's training "
            f"is kept: go on with {again}, or start anew with a smaller --batch-size"
        )
    parts, way = 2 * config.accumulate, "try a smaller --batch-size or --crop"
    if during != "training" or config.batch_size % (replicas * parts):
        return way
    return f"{way}, or go on in smaller parts of a batch with {_again(run, config)} --accumulate {parts}"


def _verbosity() -> int:
    """A bar for a person, a line an epoch for a log, nothing from any but the chief."""
    if not this_place().chief:
        return 0
    return 1 if sys.stdout.isatty() else 2


def _free_folder(config: RunConfig, data_name: str) -> Path:
    """runs/VARIANT-DATA, or with the first free number behind it."""
    plain = re.sub(r"[^\w.-]+", "-", data_name).strip(".-") or "data"  # a name is not a path
    base = Path("runs") / f"{config.variant}-{plain}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))
    return base if not base.exists() else next(path for path in numbered if not path.exists())
