"""Fixes of Keras 3.15's `fit` under `tf.distribute.MultiWorkerMirroredStrategy` (keras issue 20585)."""

from __future__ import annotations

from typing import Any

from segformer_tf import keras_settings  # noqa: F401  before Keras is imported

# isort: split
import keras
import tensorflow as tf
from keras import tree


class MultiWorkerFit:
    """Mixin of a `keras.Model` whose plain `fit` and `evaluate` work under any tf.distribute strategy.

    Two things fail in Keras itself: the symbolic build reduces a distributed batch to one tensor, and the scalars that
    a step returns cannot be concatenated over workers.
    """

    def train_step(self, data: Any) -> Any:
        return self.stackable(super().train_step(data))  # type: ignore[misc]

    def test_step(self, data: Any) -> Any:
        return self.stackable(super().test_step(data))  # type: ignore[misc]

    def stackable(self, logs: dict[str, Any]) -> dict[str, Any]:
        """The results of a step, in a shape that can be concatenated over workers."""
        if not self.distribute_strategy.extended._in_multi_worker_mode():  # type: ignore[attr-defined]
            return logs
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is None or self._distribute_strategy is None:  # type: ignore[attr-defined]
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)  # type: ignore[misc]
            return
        # From the shapes alone; Keras would fetch a batch and drop it.
        batch = tree.map_structure(_symbolic, iterator._distributed_dataset.element_spec)
        with self._distribute_strategy.scope():  # type: ignore[attr-defined]
            self._symbolic_build(data_batch=batch)  # type: ignore[attr-defined]


def _symbolic(spec: Any) -> Any:
    spec = getattr(spec, "_value_specs", (spec,))[0]  # of a PerReplicaSpec
    return keras.KerasTensor(spec.shape, keras.backend.standardize_dtype(spec.dtype))
