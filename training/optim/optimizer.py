"""AdamW with the paper's parameter groups, and its learning-rate schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from segformer_tf.layers import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class WarmupPoly(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 1e-6 of the peak, then polynomial decay of power 1 to 0.

    Like the authors' (mmcv "poly" with linear warm-up), which scales the decayed rate during warm-up.

    Args:
        peak: learning rate that is decayed from.
        total_steps: steps until 0.
        warmup_steps: steps of warm-up; 0 for none.
    """

    def __init__(self, peak: float, *, total_steps: int, warmup_steps: int) -> None:
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"expected 0 <= warmup_steps < total_steps. Received: {warmup_steps} and {total_steps}")
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = self.peak * ops.maximum(1.0 - step / self.total_steps, 0.0)
        if not self.warmup_steps:
            return rate
        warmup = 1.0 - (1.0 - step / self.warmup_steps) * (1.0 - 1e-6)
        return rate * ops.minimum(warmup, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(PACKAGE)
class SegFormerAdamW(keras.optimizers.Adam):
    """AdamW with the authors' two rules on parameters, by variable path.

    Paths with "norm" in them (every LayerNorm; not the decoder's "bn") are not decayed; the decoder's learning rate is
    multiplied by `head_multiplier` (Adam's step does not depend on the scale of a gradient). A step is torch's, epsilon
    included: ``m̂ / (√v̂ + epsilon)``, where Keras adds epsilon to ``√v``.

    With `layer_decay` the rate falls from the decoder down to the first layer: in layer n it is multiplied by
    ``layer_decay ** (sum(depths) + 1 - n)``, see `layer_number`. The decoder is the last layer, so `head_multiplier`
    alone applies to it. These factors are constants: warm-up and decay of the schedule are the same in every layer.

    Args:
        learning_rate: rate or schedule of the encoder.
        decay: decoupled weight decay, multiplied by the variable's own rate.
        head_multiplier: rate of the decoder over the encoder's.
        layer_decay: rate of each encoder layer over that of the next one, 0..1; 1 for one rate.
        depths: blocks of each stage, for `layer_decay`.
        clip_norm: largest norm of all gradients together, of the whole step over all replicas; None for no limit.
            Keras' `global_clipnorm` would clip each replica's gradients separately.
        kwargs: of `keras.optimizers.Adam`; epsilon is 1e-8, as in torch (Keras' default is 1e-7).
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        decay: float = 0.01,
        head_multiplier: float = 10.0,
        layer_decay: float = 1.0,
        depths: Sequence[int] | None = None,
        clip_norm: float | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("epsilon", 1e-8)
        kwargs.setdefault("name", "segformer_adamw")
        super().__init__(learning_rate, **kwargs)
        if self.amsgrad or self.weight_decay or self.gradient_accumulation_steps:
            raise ValueError("SegFormerAdamW knows no amsgrad, weight_decay (see decay) or gradient_accumulation_steps")
        if not 0 < layer_decay <= 1 or (layer_decay < 1 and not depths):
            raise ValueError(
                f"layer_decay must be above 0 and at most 1, and below 1 it needs depths. Received: {layer_decay}"
            )
        self.decay = decay
        self.head_multiplier = head_multiplier
        self.layer_decay = layer_decay
        self.depths = list(depths) if depths else None
        self.clip_norm = clip_norm
        self._groups: list[tuple[float, float]] = []

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            self._groups = [self._group(v.path) for v in variables]
        super().build(variables)

    def _group(self, path: str) -> tuple[float, float]:
        """(rate multiplier, weight decay) of the variable at `path`."""
        rate, decay = parameter_group(path, self.decay, self.head_multiplier)
        if self.layer_decay < 1 and self.depths:
            rate *= self.layer_decay ** (sum(self.depths) + 1 - layer_number(path, self.depths))
        return rate, decay

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Update by the clipped sum of all replicas' gradients, if that is finite."""
        bare = [v.value if isinstance(v, keras.Variable) else v for v in trainable_variables]
        pairs = self._all_reduce_sum_gradients(zip(grads, bare, strict=True))
        norm = tf.linalg.global_norm([gradient for gradient, _ in pairs])
        if self.clip_norm is not None:
            clipped, _ = tf.clip_by_global_norm([gradient for gradient, _ in pairs], self.clip_norm, use_norm=norm)
            pairs = list(zip(clipped, bare, strict=True))
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._update_if_finite, self._distribution_strategy, pairs, learning_rate, tf.math.is_finite(norm)
        )

    @tf.autograph.experimental.do_not_convert
    def _update_if_finite(self, strategy: tf.distribute.Strategy, pairs: Any, rate: Any, finite: Any) -> None:
        if tf.distribute.in_cross_replica_context():  # once for all replicas, which have the same sum
            finite = strategy.experimental_local_results(finite)[0]

        def take_back() -> None:  # `apply` counts every call, but `iterations` is the number of updates
            self._iterations.value.assign_sub(1)

        tf.cond(finite, lambda: self._distributed_tf_update_step(strategy, pairs, rate), take_back)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Under tf.distribute `variable` is a bare tf.Variable without a path, hence the index.
        i = self._get_variable_index(variable)
        multiplier, decay = self._groups[i]
        rate = ops.cast(learning_rate, "float32") * multiplier
        if decay:
            variable.assign_sub(variable * (rate * decay))
        step = ops.cast(self.iterations + 1, "float32")
        beta_1_power, beta_2_power = ops.power(self.beta_1, step), ops.power(self.beta_2, step)
        # One kernel that updates all three in place; it adds its epsilon to √v, hence the factor.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=_on(variable, self._momentums[i]).handle,
            v=_on(variable, self._velocities[i]).handle,
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon * ops.sqrt(1.0 - beta_2_power),
            grad=gradient,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("weight_decay", None)
        return {
            **config,
            "decay": self.decay,
            "head_multiplier": self.head_multiplier,
            "layer_decay": self.layer_decay,
            "depths": self.depths,
            "clip_norm": self.clip_norm,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class SharedLossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling for mixed_float16 that all replicas agree on.

    Keras' own checks the gradients of the first replica alone, as if they were summed already: an overflow on another
    replica would go into the weights.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            broken = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~self.check_finite(grads), tf.float32))
            grads = [grads[0] * tf.where(broken > 0, np.nan, 1.0), *grads[1:]]
        super().apply(grads, trainable_variables)


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Give `model` the moving average of its trainable weights for the length of a block; see `swap_average`."""
    swap_average(model)
    try:
        yield
    finally:
        swap_average(model)


def swap_average(model: keras.Model) -> None:
    """Exchange the trainable weights and their moving average, if the optimizer keeps one (`use_ema`).

    The optimizer's variables hold the weights meanwhile, also in a file that is saved then. The statistics of batch
    normalization are left alone: they are a moving average already.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.use_ema:
        for variable, average in zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True):
            value = np.asarray(variable.value)
            variable.assign(average)
            average.assign(value)


def _on(variable: Any, slot: keras.Variable) -> Any:
    """The copy of an optimizer's variable on the replica that `variable` belongs to."""
    value = slot.value
    return value._get_on_device_or_primary() if hasattr(value, "_get_on_device_or_primary") else value


def parameter_group(path: str, decay: float, head_multiplier: float) -> tuple[float, float]:
    """(rate multiplier, weight decay) of the variable at `path`, such as "encoder/stage1/norm/gamma"."""
    parts = path.split("/")
    fresh = "decoder" in parts or "projections" in parts  # of `training.distillation`
    return head_multiplier if fresh else 1.0, 0.0 if any("norm" in p for p in parts) else decay


def layer_number(path: str, depths: Sequence[int]) -> int:
    """The layer of the variable at `path` for layer-wise rate decay, from 0 to sum(depths) + 1.

    Block j of a stage is layer j + 1 after the blocks of earlier stages. The first patch embedding is layer 0; a later
    one, and a stage's closing norm, go with the block before them. The decoder is the last layer. This is BEiT's rule
    (arXiv 2106.08254) with the numbering that SimMIM's code gives a network of stages (arXiv 2111.09886): Swin's patch
    merging goes with the block before it.

    Args:
        path: such as "encoder/stage1/block0/attn/q/kernel".
        depths: blocks of each stage.
    """
    stage = re.search(r"\bstage(\d+)/(?:block(\d+)|(patch_embed))?", path)
    if not stage:
        return sum(depths) + 1
    index = int(stage[1]) - 1
    before = sum(depths[:index])
    if stage[2]:
        return before + int(stage[2]) + 1
    return before if stage[3] else before + depths[index]
