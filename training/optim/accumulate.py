"""Gradient accumulation inside one step, under any tf.distribute strategy."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import keras
import tensorflow as tf

from segformer_tf.losses.base import over_replicas


@runtime_checkable
class SeveralLosses(Protocol):
    """A model whose loss is a sum of means over the step, each over weights of its own."""

    def loss_weights(self, targets: Any) -> Any:
        """(losses,): what these targets weigh in each mean."""

    def shared_loss(self, x: Any, y: Any, y_pred: Any, shares: Any) -> Any:
        """The loss of a part of the step, which has these shares (losses,) of the whole step's weights."""


def accumulate(model: keras.Model, parts: int) -> None:
    """Make `fit` split each replica's batch into `parts` that run one after another, with one update for all.

    Only one part's activations are in memory at a time. Loss and gradient are those of the whole batch: each part
    counts by its share of the step's valid pixels, or images. Batch normalization sees one part at a time. Steps,
    schedule and data are the same as without it; Keras' `gradient_accumulation_steps` counts a step per part, and
    fails under tf.distribute.

    Args:
        model: with `MultiWorkerFit`, compiled with a `MeanOverValid`; it may have `SeveralLosses`.
        parts: must divide a replica's batch.
    """
    several = isinstance(model, SeveralLosses)

    def weights_of(targets: Any) -> Any:  # (losses,)
        return model.loss_weights(targets) if several else tf.reduce_sum(model.loss.weights(targets))[None]

    def loss_of(image: Any, target: Any, outputs: Any, shares: Any) -> Any:
        if several:
            return model.shared_loss(image, target, outputs, shares)
        return shares[0] * model._compute_loss(x=image, y=target, y_pred=outputs, training=True)

    def train_step(data: Any) -> Any:
        images, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        image_parts, target_parts = tf.split(images, parts), tf.split(targets, parts)
        weights = over_replicas(tf.stack([weights_of(part) for part in target_parts]))[0]  # (parts, losses)
        shares = tf.unstack(weights / tf.maximum(tf.reduce_sum(weights, axis=0), 1e-6))
        variables, logs, total = model.trainable_weights, {}, 0.0
        gradients = [tf.zeros_like(variable) for variable in variables]
        for image, target, share in zip(image_parts, target_parts, shares, strict=True):
            with tf.control_dependencies(gradients):  # else TensorFlow would run all parts at once
                image = tf.identity(image)
            with tf.GradientTape() as tape:
                outputs = model(image, training=True)
                part_loss = loss_of(image, target, outputs, share)
                scaled = model.optimizer.scale_loss(part_loss)
            gradients = [a + b for a, b in zip(gradients, tape.gradient(scaled, variables), strict=True)]
            total += part_loss
            logs = model.compute_metrics(image, target, outputs)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        model._loss_tracker.update_state(total * replicas, sample_weight=tf.shape(images)[0])
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return model.stackable({**logs, "loss": model._loss_tracker.result()})

    model.train_step = train_step
