"""The task of `segformer train`: SegFormer, image and mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from segformer_tf.config import check_image_shape, normalize, variant_config
from segformer_tf.errors import InputError, printable
from segformer_tf.keras_file import read_config
from segformer_tf.keras_metrics import MeanIoU
from segformer_tf.losses.base import MeanOverValid
from segformer_tf.losses.table import make_loss
from segformer_tf.mask import logits_to_mask
from segformer_tf.metrics import confusion_matrix, mean_iou, per_class_iou
from segformer_tf.model import SegFormer, build_segformer
from segformer_tf.overlay import class_ids, errors, overlay
from segformer_tf.sampling import evenly_spaced
from training.config import FROZEN_STAGES, TrainConfig
from training.data.augment import Normalize
from training.data.check_masks import Tally, check_masks, classes_shown, sampled_pixels
from training.data.eval_size import bounded_size
from training.data.first_manifest import first_manifest
from training.data.folder.manifest_file import MANIFESTS
from training.data.image_bits import settle_bits
from training.data.masks import Sample
from training.data.open import Source, open_source, sample_name
from training.data.order import ClassBalance
from training.data.pipeline import Samples, eval_batches, train_batches
from training.distillation.distilled import Distilled
from training.distillation.teacher import RECORD, Teacher, TeacherFile, find_teacher, refuse_other_teacher
from training.distributed.strategy import this_place
from training.optim.losses import rare_class_weights
from training.runs.backup import Backup
from training.runs.folder import Run
from training.runs.plots import plot_panel, shortened
from training.tasks.warm_start import Start, copy_weights, read_start
from training.tasks.worst_image import WorstImage


class Segmentation:
    """`training.train.Task` for a `SegFormer`, on a folder of images and masks or a TFDS set.

    `config` is final once `open` has returned; the splits exist from then on.
    """

    score = "mean_iou"
    source: Source
    validation: Source

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.head_multiplier, self.layer_decay = config.head_multiplier, config.layer_decay
        self.records: dict[str, Any] = {}
        self._start: Start | None = None
        self._teacher: TeacherFile | None = None
        self._resumed = False  # the weights are those of the run itself
        self._normalize: Normalize = normalize
        self._tally: Tally | None = None  # once the masks are checked
        self._balance: ClassBalance | None = None
        self._worst: WorstImage | None = None  # of one replica

    def open(self, run: Run | None) -> TrainConfig:
        config = self.config
        data, manifest, first = config.data, None, None
        if run and run.manifest.is_file():
            data = str(run.manifest)
        elif run is None and (first := first_manifest(data, chief=this_place().chief)):
            manifest = first.manifest
        self.source = open_source(data, config.train_split, manifest)
        self.validation = open_source(data, config.val_split, manifest)
        if run:
            self.refuse_other_classes(run)
        if config.weights:  # a resumed run has its own weights in the backup, and needs the sizes alone
            kept = run.last if run and Backup(run.backup).exists() else None
            self._resumed = kept is not None
            self._start = read_start(kept or config.weights, config.variant if "variant" in config.explicit else None)
            origin = config.weights if kept else self._start.origin
            config = replace(config, variant=self._start.variant, weights=origin)
            self._normalize = self._start.model.config.normalize
        elif config.learning_rate <= 1e-4 and run is None and this_place().chief:
            print("from scratch: --learning-rate 6e-4 --head-multiplier 1 learns faster than the default, which suits "
                  "pretrained --weights")  # fmt: skip
        if config.teacher:
            sizes = self._start.model.config if self._start else variant_config(config.variant, num_classes=1)
            self._teacher = find_teacher(config.teacher, self.source.labels, sizes)
            if run:
                refuse_other_teacher(self._teacher, run.root)
            elif this_place().chief:
                print(*map(printable, self._teacher.notes), sep="\n")
            config = replace(config, teacher=str(self._teacher.path))
            self.records[RECORD] = self._teacher.record
        both = self.source, self.validation
        inherited = self._start.model.config.image_bits if self._start else None
        bits = settle_bits(config, both, new=run is None, inherited=inherited)
        if self._teacher:
            self._teacher.check_bits(bits)
        eval_size = config.eval_size or self._default_size()
        quiet = not this_place().chief
        if run is None:
            allow = config.allow_missing_classes

            def keep() -> None:  # refusals after this name dataset.json
                if first and (record := first.keep()):
                    self.records[MANIFESTS[0]] = record

            self._tally = check_masks(self.source, self.validation, allow_missing=allow, quiet=quiet, once_read=keep)
        if config.balance:
            shown = self._tally.shown if self._tally else classes_shown(self.source, quiet=quiet)
            self._balance = ClassBalance(shown, config.balance)
        images = len(self.source)
        self.config = config.resolved(self.source.name, images=images, bits=bits, eval_size=eval_size)
        return self.config  # chose a free folder, and so comes last

    def refuse_other_classes(self, run: Run) -> None:
        """Raises InputError if the data no longer has the classes that the run began with."""
        if not run.last.is_file():
            return
        before, now = read_config(run.last).labels, self.source.labels
        if before and before.names != now.names:
            names = " and ".join(", ".join(labels.names) for labels in (before, now))
            raise InputError(
                f"{run.root}: was begun with other classes than the data has now: {names}; bring the manifest back, or "
                f"start a new run with --weights {run.root}"
            )

    def _default_size(self) -> tuple[int, int]:
        own = self.validation[0][0].shape
        height, width = size = bounded_size((own[0], own[1]))
        check_image_shape((None, height, width, 3), "--eval-size")
        if size != own[:2] and this_place().chief:
            print(
                f"validation images are stretched to {height}x{width}: {own[0]}x{own[1]}, as the first one has, takes "
                "much memory; --eval-size H W for another size"
            )
        return size

    def model(self) -> SegFormer | Distilled:
        model = self._model()
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            self._worst = WorstImage(model, len(self.source.labels.names))
        return model

    def _model(self) -> SegFormer | Distilled:
        student, config = self._student(), self.config
        if self._teacher is None:
            return student
        teacher = Teacher(self._teacher, student.config, precision=config.precision)
        return Distilled(student, teacher, temperature=config.temperature, weights=config.distill)

    def _student(self) -> SegFormer:
        labels, config = self.source.labels, self.config
        changes: dict[str, Any] = {"num_classes": len(labels.names), "labels": labels}
        before = self._start.model.config if self._start else None, self._teacher.config if self._teacher else None
        changes["license"] = _license(self.source, [each.license for each in before if each])
        changes |= {"drop_path_rate": config.drop_path, "dropout_rate": config.dropout, "image_bits": config.bits}
        if self._start is None:
            return build_segformer(config.variant, dtype=config.precision, **changes)
        # epsilons, normalization and mmseg's decoder stay those of the weights
        frozen = [f"stage{i + 1}" for i in range(FROZEN_STAGES[config.freeze])] if config.freeze else []
        model = SegFormer(replace(self._start.model.config, **changes), frozen=frozen, dtype=config.precision)
        copy_weights(self._start, model, quiet=self._resumed or not this_place().chief)
        if frozen and this_place().chief:
            trained = sum(variable.shape.num_elements() for variable in model.trainable_variables)
            total = model.config.parameter_count
            print(f"--freeze {config.freeze}: {trained:,} parameters are trained, {total - trained:,} frozen")
        self._start = None  # free its memory
        return model

    def loss(self) -> MeanOverValid:
        power, weights = self.config.class_weights, None
        if power:
            pixels = self._tally.sampled if self._tally else sampled_pixels(self.source)
            weights = rare_class_weights(pixels, power)
        return make_loss(self.config.loss, class_weights=weights)

    def metrics(self) -> list[keras.metrics.Metric]:
        self._metric = MeanIoU(len(self.source.labels.names))
        return [self._metric]

    def classes(self) -> dict[str, float]:
        iou = per_class_iou(keras.ops.convert_to_numpy(self._metric.total_cm).astype(np.int64))
        return {
            name: value for name, value in zip(self.source.labels.names, iou.tolist(), strict=True) if value == value
        }

    def train_batches(self, start: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        config = self.config
        return train_batches(
            self.source,
            crop=config.crop,
            scale=config.scale,
            base=config.base,
            stretch=config.stretch,
            color=config.color,
            mix=config.mix,
            batch_size=config.batch_size,
            seed=config.seed,
            start=start,
            context=context,
            normalize=self._normalize,
            balance=self._balance,
        )

    def eval_batches(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        return self._eval_batches(self.validation, self.config.batch_size, context)

    def draw(self, model: SegFormer | Distilled, out: Path) -> None:
        """A row per sample: image, truth, prediction, errors; below them the worst of the last validation."""
        shown, labels = list(self._shown), self.source.labels
        worst = self._worst.take() if self._worst else None
        if worst is not None and worst not in (index for index, *_ in shown):
            shown.append(self._sample(worst))
        rows, titles, masks = [], [], []
        for index, (image, truth), pixels in shown:  # one at a time: --batch-size may be 1 because memory is short
            prediction = logits_to_mask(np.asarray(model(pixels, training=False))[0], (image.shape[0], image.shape[1]))
            score = mean_iou(confusion_matrix(truth, prediction, num_classes=len(labels.names)))
            rows.append([image, overlay(image, truth, labels), overlay(image, prediction, labels)])
            rows[-1].append(errors(image, truth, prediction))
            name = shortened(sample_name(self.validation, index))
            first = f"worst: {name}" if index == worst else name
            scored = f"mean IoU {score:.2f}" if score == score else "nothing counts"
            titles.append((first, "truth", f"prediction, {scored}", "errors red"))
            masks += [truth.ravel(), prediction.ravel()]
        legend = [(labels.names[i], labels.colors[i]) for i in class_ids(np.concatenate(masks))]
        plot_panel(rows, out, titles=titles, legend=legend)

    @property
    def _size(self) -> tuple[int, int]:
        assert self.config.eval_size is not None  # after `open`
        return self.config.eval_size

    @cached_property
    def _shown(self) -> list[tuple[int, Sample, Any]]:
        """Four of the split, evenly spaced."""
        return [self._sample(i) for i in evenly_spaced(range(len(self.validation)), 4)]

    def _sample(self, index: int) -> tuple[int, Sample, Any]:
        """A validation sample: its number, itself, and a batch of it for the model."""
        sample = self.validation[index]
        return index, sample, next(iter(self._eval_batches([sample], 1)))[0]

    def _eval_batches(
        self,
        source: Samples,
        batch_size: int,
        context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        return eval_batches(source, size=self._size, batch_size=batch_size, context=context, normalize=self._normalize)


def _license(source: Source, inherited: Sequence[str]) -> str:
    """License of the weights: those of the weights they start from and of their teacher, and that of the data."""
    own = f"trained on {source.name}: {source.license}" if source.license else ""
    return joined_terms([*inherited, own])


def joined_terms(texts: Sequence[str]) -> str:
    """Licenses as one text, without those that stand in another whole."""
    each = list(dict.fromkeys(filter(None, texts)))

    def stands_in(text: str, other: str) -> bool:
        return text != other and f"; {text}; " in f"; {other}; "

    return "; ".join(text for text in each if not any(stands_in(text, other) for other in each))
