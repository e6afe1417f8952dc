"""AdamW with the paper's parameter groups, and its learning-rate schedule."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from segformer_tf.layers import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class WarmupPoly(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 1e-6 of the peak, then polynomial decay of power 1 to 0.

    As the authors' (mmcv "poly" with linear warm-up): during warm-up the decayed rate is scaled.

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

    Paths that hold "norm" (every LayerNorm; not the decoder's "bn") are not decayed; the decoder learns at
    `head_multiplier` times the rate, as a rate: scaling its gradients would leave an Adam step as it is.

    Args:
        learning_rate: rate or schedule of the encoder.
        decay: decoupled weight decay, multiplied by the variable's own rate.
        head_multiplier: rate of the decoder over the encoder's.
        kwargs: of `keras.optimizers.Adam`; epsilon is 1e-8, as in torch (Keras' default is 1e-7).
    """

    def __init__(
        self, learning_rate: Any, *, decay: float = 0.01, head_multiplier: float = 10.0, **kwargs: Any
    ) -> None:
        kwargs.setdefault("epsilon", 1e-8)
        kwargs.setdefault("name", "segformer_adamw")
        super().__init__(learning_rate, **kwargs)
        self.decay = decay
        self.head_multiplier = head_multiplier
        self._groups: list[tuple[float, float]] = []

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            self._groups = [parameter_group(v.path, self.decay, self.head_multiplier) for v in variables]
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Under tf.distribute `variable` is a bare tf.Variable without a path, hence the index.
        multiplier, decay = self._groups[self._get_variable_index(variable)]
        rate = ops.cast(learning_rate, variable.dtype) * multiplier
        if decay:
            self.assign_sub(variable, variable * (rate * decay))
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("weight_decay", None)
        return {**config, "decay": self.decay, "head_multiplier": self.head_multiplier}


def parameter_group(path: str, decay: float, head_multiplier: float) -> tuple[float, float]:
    """(rate multiplier, weight decay) of the variable at `path`, such as "encoder/stage1/norm/gamma"."""
    parts = path.split("/")
    return head_multiplier if "decoder" in parts else 1.0, 0.0 if any("norm" in p for p in parts) else decay
