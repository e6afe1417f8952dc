"""`segformer train` and `segformer pretrain`: options in, a run folder out, by plain `model.fit`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from segformer_tf.config import variant_config
from segformer_tf.errors import InputError
from segformer_tf.losses.base import MeanOverValid
from training.changes import changes_since, with_changes
from training.config import RunConfig, TrainConfig
from training.data.pipeline import eval_steps, plain_input_errors
from training.distributed.strategy import make_strategy, plain_worker_errors, this_place
from training.optim.accumulate import accumulate
from training.optim.optimizer import SegFormerAdamW, SharedLossScale, WarmupPoly
from training.runs.backup import Backup, Progress
from training.runs.callbacks import (
    DrawPictures,
    SaveRun,
    StopAtDivergence,
    StopBetweenSteps,
    StopEarly,
    Throughput,
    ValidateAveraged,
)
from training.runs.folder import Run, alone_in
from training.tasks.classification import Classification
from training.tasks.painting import Painting
from training.tasks.segmentation import Segmentation


class Task(Protocol):
    """Data, model, loss, metrics and pictures of a run; everything else is the same for all tasks.

    Attributes:
        score: the metric whose best value on the validation split selects the best weights.
        head_multiplier: learning rate of the decoder over the encoder's.
        layer_decay: learning rate of each encoder block over the next one's.
        source, validation: the two splits, after `open`.
        records: data of JSON files for a new run folder, by name, after `open`.
    """

    @property
    def score(self) -> str: ...

    @property
    def head_multiplier(self) -> float: ...

    @property
    def layer_decay(self) -> float: ...

    @property
    def records(self) -> Mapping[str, Any]: ...

    @property
    def source(self) -> Sized: ...

    @property
    def validation(self) -> Sized: ...

    def open(self, run: Run | None) -> RunConfig:
        """Open the data and the initial weights.

        Args:
            run: a run that is resumed, or None.

        Returns:
            The final options.

        Raises:
            InputError: data or weights that cannot be used.
        """

    def model(self) -> keras.Model:
        """The model, not compiled; called once, in the strategy's scope, as are `loss` and `metrics`."""

    def loss(self) -> MeanOverValid: ...

    def metrics(self) -> list[keras.metrics.Metric]:
        """Metrics of every epoch; one of them has the name `score`."""

    def classes(self) -> Mapping[str, float]:
        """IoU of the classes in the validation that just ended, by name, without those that do not occur."""

    def train_batches(self, start: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Endless augmented batches from sample number `start` on, see `training.data.pipeline.endless_batches`."""

    def eval_batches(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Every validation sample once, in order, the last batch filled up with ignored ones."""

    def draw(self, model: Any, out: Path) -> None:
        """A picture of the model's output on a few validation samples."""


TASKS: dict[str, Callable[[Any], Task]] = {
    "segmentation": Segmentation,
    "classification": Classification,
    "masked": Painting,
}


def train(config: RunConfig, before: RunConfig | None = None) -> Run:
    """Train a SegFormer by a `TrainConfig`, or its encoder alone by a `PretrainConfig`.

    Args:
        config: options.
        before: for a run that is resumed, its options until now; see `resume`.

    Returns:
        The run, whose folder holds configuration, environment, weights, history and pictures.

    Raises:
        InputError: data or options that cannot be used, a step that diverged, too little memory, or another worker
            that stopped.
    """
    config.check()
    place = this_place()
    if place.count > 1 and config.out is None:
        raise InputError("--out is needed with several workers, the same for all")
    if before is None and config.out and place.chief:  # again once the data is read, by `Run.create`
        Run.refuse_existing(config.out)
    strategy = make_strategy(config.devices)  # before anything makes TensorFlow look at its devices
    config.check_replicas(strategy.num_replicas_in_sync)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)

    task = TASKS[config.task](config)
    run = Run(config.out) if before and config.out else None
    config = task.open(run)
    root = config.out
    assert root is not None
    if run is None and place.chief:
        run = Run.create(root, config, task.records)

    with (
        plain_worker_errors(f"then start every worker again, with --resume {root} if it was made"),
        plain_input_errors(),
        alone_in(root) if place.chief else nullcontext(),
    ):
        with strategy.scope():
            model = _build(task, config)  # the workers meet here
        run = run or Run.join(root, config, task.records)
        progress = _restore(model, task, run, config, before)
        try:
            _fit(model, task, run, config, progress)
        except KeyboardInterrupt:
            print(f"\ngo on with: {config.resume_command(run.root)}", file=sys.stderr)
            raise
    if place.chief:
        name, epoch = task.score.replace("_", " "), f", epoch {progress.best_epoch}" if progress.best_epoch else ""
        if progress.stopped_early(config.patience) and progress.epoch * config.epoch_length < config.total_steps:
            print(f"stopped early after epoch {progress.epoch}, by --patience {config.patience}")
        print(f"best validation {name}: {progress.best:.4f}{epoch}")
    return run


def resume(root: Path, kind: type[RunConfig] = TrainConfig, changes: Mapping[str, Any] | None = None) -> Run:
    """Go on with a run that was stopped, at the first epoch or validation that was not finished.

    Args:
        root: its folder.
        kind: class of its options.
        changes: other values for options in `training.changes.CHANGEABLE`.

    Raises:
        InputError: no run folder, one of another task, a damaged backup, changes that a run cannot take, or for the
            same reasons as `train`.
    """
    before = kind.read(root)
    return train(with_changes(before, changes or {}), before)


def _schedule(config: RunConfig) -> WarmupPoly:
    assert config.warmup_steps is not None
    return WarmupPoly(config.learning_rate, total_steps=config.total_steps, warmup_steps=config.warmup_steps)


def _build(task: Task, config: RunConfig) -> keras.Model:
    """The model with its optimizer, loss and metrics; called in the strategy's scope."""
    model = task.model()
    optimizer = SegFormerAdamW(
        _schedule(config),
        decay=config.weight_decay,
        head_multiplier=task.head_multiplier,
        layer_decay=task.layer_decay,
        depths=variant_config(config.variant, num_classes=1).depths,
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


def _restore(model: keras.Model, task: Task, run: Run, config: RunConfig, before: RunConfig | None) -> Progress:
    """Put the newest backup into `model`, if there is one, and record that the run goes on."""
    progress, samples, chief = Backup(run.backup).restore(model), len(task.source), this_place().chief
    if progress.epoch and progress.samples != samples:
        raise InputError(
            f"{run.root} began with {progress.samples} training samples, the data has {samples}; start a new run"
        )
    progress.samples = samples
    progress.lengthen(config.total_steps)
    progress.size = progress.size or _eval_size(before or config) or _eval_size(config)  # older backups have none
    if before:
        run.write_changes(before, config, chief=chief)
    if chief:
        for line in changes_since(before, config) if before else []:
            print(line)
        if progress.trained is not None:
            print(f"epoch {progress.epoch} was trained, but not validated: that comes first")
        steps = progress.epoch * config.epoch_length
        ended = steps >= config.total_steps or progress.stopped_early(config.patience)
        state = "nothing is left to do" if ended and progress.trained is None else "training"
        epochs = f" ({config.epochs} epochs)" if config.epochs else ""
        print(f"{run.root}: {state}, {steps} of {config.total_steps} steps{epochs} done")
    return progress


def _fit(model: keras.Model, task: Task, run: Run, config: RunConfig, progress: Progress) -> None:
    """Train the epochs that are left."""
    strategy, chief, batch_size = model.distribute_strategy, this_place().chief, config.batch_size
    throughput, averaged = Throughput(batch_size), ValidateAveraged()
    pictures = DrawPictures(run, progress, score=task.score, draw=task.draw)
    divergence = StopAtDivergence(
        config.epoch_length,
        rate=_schedule(config),
        advice=lambda: _after_divergence(run, config, progress.epoch * config.epoch_length),
    )
    extra = [throughput.values, divergence.values]
    validation_callbacks: list[keras.callbacks.Callback] = [
        SaveRun(run, progress, score=task.score, size=_eval_size(config), extra=extra, classes=task.classes),
        StopEarly(progress, config.patience),
        averaged,
    ]
    if chief:
        validation_callbacks += [keras.callbacks.TensorBoard(str(run.tensorboard), write_graph=False), pictures]

    def out_of_memory() -> str:
        during = "validation" if averaged.running else "pictures" if pictures.running else "training"
        return _smaller(run, config, during, replicas=strategy.num_replicas_in_sync)

    start = progress.epoch * config.epoch_length * batch_size
    data = strategy.distribute_datasets_from_function(lambda context: task.train_batches(start, context))
    validation = strategy.distribute_datasets_from_function(task.eval_batches)
    validation_steps = eval_steps(task.validation, batch_size)
    with StopBetweenSteps() as stop, plain_input_errors(out_of_memory):
        if progress.trained is not None:
            _validate(model, progress, validation, steps=validation_steps, callbacks=[stop, *validation_callbacks])
        if progress.stopped_early(config.patience):
            return
        model.fit(
            data,
            validation_data=validation,
            validation_steps=validation_steps,
            steps_per_epoch=config.epoch_length,
            initial_epoch=progress.epoch,
            epochs=config.total_steps // config.epoch_length,
            verbose=(1 if sys.stdout.isatty() else 2) if chief else 0,  # a bar for a person, a line per epoch for a log
            shuffle=False,  # the pipeline has its own order
            callbacks=[stop, throughput, divergence, *validation_callbacks],
        )


def _validate(
    model: keras.Model,
    progress: Progress,
    data: Any,
    *,
    steps: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """The validation of an epoch that was trained before the run stopped, with the callbacks that `fit` would call."""
    assert progress.trained is not None
    every = keras.callbacks.CallbackList(callbacks, model=model)
    every.on_train_begin()
    logs = model.evaluate(data, steps=steps, callbacks=every, return_dict=True)
    trained = {name: value for name, value in progress.trained.items() if name in logs}
    every.on_epoch_end(progress.epoch - 1, trained | {f"val_{name}": value for name, value in logs.items()})
    every.on_train_end()


def _eval_size(config: RunConfig) -> list[int] | None:
    """(height, width) that validation images are stretched to, in segmentation."""
    return list(config.eval_size) if isinstance(config, TrainConfig) and config.eval_size else None


def _after_divergence(run: Run, config: RunConfig, steps: int) -> str:
    """What the run folder keeps of a training that diverged, and what to try."""
    kept = f"{run.root} keeps what it was after step {steps}" if steps else f"nothing was kept in {run.root}, remove it"
    ways = "a lower --learning-rate, --clip-norm 1 or a longer --warmup-steps"
    if config.precision == "mixed_float16":
        ways += ", or --precision mixed_bfloat16 or float32"
    start = f"; --weights {run.root} begins with its weights" if steps and isinstance(config, TrainConfig) else ""
    return f"{kept}; --resume would meet the same data at the same rate, so start a new run with {ways}{start}"


def _smaller(run: Run, config: RunConfig, during: str, *, replicas: int) -> str:
    """What to try after memory ran out during training, validation or pictures."""
    if during != "training" and isinstance(config, TrainConfig) and config.eval_size:
        height, width = config.eval_size
        again = f"{config.resume_command(run.root)} --eval-size H W of less"
        if during == "pictures":
            return f"that was panel.png, an image of {height}x{width}; the epoch is kept: go on with {again}"
        return (
            f"that was the validation, {config.batch_size} images of {height}x{width} at a time; the epoch's training "
            f"is kept: go on with {again}, or start anew with a smaller --batch-size"
        )
    parts, way = 2 * config.accumulate, "try a smaller --batch-size or --crop"
    if during != "training" or config.batch_size % (replicas * parts):
        return way
    return f"{way}, or go on in smaller parts of a batch with {config.resume_command(run.root)} --accumulate {parts}"
