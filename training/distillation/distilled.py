"""Student and teacher as one model for `fit`: the loss of the masks, plus what the student lacks of the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf

from segformer_tf.distributed_fit import MultiWorkerFit
from segformer_tf.losses.base import is_valid, over_replicas
from segformer_tf.model import SegFormer
from training.distillation.projections import Projections
from training.distillation.stages import View, view
from training.distillation.teacher import Teacher

PARTS = ("mask_loss", "logits_loss", "features_loss")


class Distilled(MultiWorkerFit, keras.Model):
    """Trains `student`; what it validates, predicts and saves is the student alone.

    The loss is that of the masks, which `compile` is given, plus weighted means over the whole step, on all replicas:

    - of `divergence` over the cells of the logits' 1/4 grid. A cell counts by the share of its pixels that are not
      ignored. Both networks speak on that grid: an upsampling to the masks' size would say nothing new, and take 16
      times as many softmaxes.
    - of `unexplained` over the eight embeddings and features of the stages; ignored pixels count here, for a feature
      belongs to no pixel.

    The parts are metrics of a training: mask_loss, logits_loss and features_loss, before their weights. A validation
    has the loss of the masks alone.

    Args:
        student: a model that does not normalize.
        teacher: of the same classes.
        temperature: of the softmax of both logits.
        weights: of logits and of features; of 0, that part is not computed.
    """

    def __init__(
        self, student: SegFormer, teacher: Teacher, *, temperature: float, weights: tuple[float, float]
    ) -> None:
        super().__init__(name="distilled", dtype=student.dtype_policy)
        self.student = student
        self.teacher = teacher
        self.temperature = temperature
        self.weights_of_parts = (1.0, *weights)
        self.projections: Projections | None = None
        if weights[1]:
            self.projections = Projections(student.config, teacher.config, dtype=student.dtype_policy)
            self.projections.build()
        used = [name for name, weight in zip(PARTS, self.weights_of_parts, strict=True) if weight]
        self.part_means = {name: keras.metrics.Mean(name) for name in used}
        self._in_validation = self._hides_parts = False
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Logits; in training the student's `View` as a dict, of which `compute_loss` makes the loss."""
        if not training:
            return self.student(images, training=False)
        seen = view(self.student, images, stages=self.projections is not None, training=True)
        return vars(seen)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if not isinstance(y_pred, dict):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.shared_loss(x, y, y_pred, tf.ones(len(PARTS)))

    def shared_loss(self, x: Any, y: Any, y_pred: Any, shares: Any) -> Any:
        """The loss of a part of a step, by the `shares` (3,) of the step's `loss_weights` that it has."""
        seen = View(**y_pred)
        losses = {"mask_loss": super().compute_loss(x, y, seen.logits, None, True)}
        taught = self.teacher(x, stages=self.projections is not None)
        total, replicas = over_replicas(self.loss_weights(y))
        total = tf.maximum(total, 1e-6)  # below any weight: a step without a valid target has loss 0
        if "logits_loss" in self.part_means:
            cells = divergence(taught.logits, seen.logits, self.temperature) * self._valid_cells(y)
            losses["logits_loss"] = tf.reduce_sum(cells) / total[1]
        if self.projections is not None:
            guessed = self.projections(seen.embeddings, seen.features)
            pairs = zip(guessed, (taught.embeddings, taught.features), strict=True)
            lacking = [unexplained(guess[stage], truth[stage]) for guess, truth in pairs for stage in truth]
            losses["features_loss"] = tf.reduce_sum(tf.add_n(lacking)) / len(lacking) / total[2]
        loss = tf.constant(0.0)
        for i, name in enumerate(PARTS):
            if name in losses:
                self.part_means[name].update_state(losses[name] * replicas, sample_weight=shares[i])
                loss += self.weights_of_parts[i] * shares[i] * losses[name]
        return loss

    def loss_weights(self, masks: Any) -> Any:
        """(3,): what these masks weigh in the mean that each part of the loss is."""
        images = tf.cast(tf.shape(masks)[0], tf.float32)
        return tf.stack([tf.reduce_sum(self.loss.weights(masks)), tf.reduce_sum(self._valid_cells(masks)), images])

    def _valid_cells(self, masks: Any) -> Any:
        """(B, ⌈H/4⌉, ⌈W/4⌉): the share of each cell's pixels that are not ignored."""
        stride = self.student.config.strides[0]
        return tf.nn.avg_pool2d(tf.cast(is_valid(masks), tf.float32)[..., None], stride, stride, "SAME")[..., 0]

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y, y_pred["logits"] if isinstance(y_pred, dict) else y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        results = super().get_metrics_result()
        return {name: value for name, value in results.items() if not (self._hides_parts and name in PARTS)}

    def reset_metrics(self) -> None:
        self._hides_parts = self._in_validation  # not before: until then the metrics are those of the training
        super().reset_metrics()

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self._in_validation = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._in_validation = False

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save the student."""
        self.student.save(filepath, *args, **kwargs)


def divergence(teacher: Any, student: Any, temperature: float) -> Any:
    """``T² · KL(teacher || student)`` of two logits (..., C), each divided by T; float32, without the last axis.

    The factor keeps the gradient's size when the temperature changes (Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531, section 2).
    """
    of_teacher, of_student = (tf.nn.log_softmax(tf.cast(x, tf.float32) / temperature) for x in (teacher, student))
    return temperature**2 * tf.reduce_sum(tf.exp(of_teacher) * (of_teacher - of_student), axis=-1)


def unexplained(guess: Any, truth: Any) -> Any:
    """(B,): the share of the teacher's variance over channels that a guess (B, h, w, C) of it leaves unexplained.

    At each position the truth is brought to mean 0 and variance 1, so that networks of any scale count alike: a guess
    of zeros leaves 1, a perfect one 0.
    """
    truth = tf.cast(truth, tf.float32)
    mean, variance = tf.nn.moments(truth, axes=[-1], keepdims=True)
    truth = (truth - mean) * tf.math.rsqrt(variance + 1e-6)
    return tf.reduce_mean(tf.math.squared_difference(tf.cast(guess, tf.float32), truth), axis=[1, 2, 3])
