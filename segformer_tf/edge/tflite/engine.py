"""A file on a runtime as arrays in, arrays out; `segformer_tf.edge.tflite.model` knows what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.runtime import open_interpreter
from segformer_tf.edge.tflite.graph_stats import GraphStats, read_graph_stats


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        shape: with its batch of 1.
        dtype: of the stored values.
        scale, zero_point: ``real = scale * (stored - zero_point)``; a scale of 0 where it is not quantized.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic]
    scale: float = 0.0
    zero_point: int = 0

    def __str__(self) -> str:
        quantized = f", scale {self.scale:.4g}, zero point {self.zero_point}" if self.scale else ""
        return f"{np.dtype(self.dtype).name} [{', '.join(map(str, self.shape))}]{quantized}"


class Engine:
    """A ``.tflite`` on a runtime, by the Interpreter that both TFLite runtimes have. Not for several threads at once.

    Args:
        path: a ``.tflite``.
        runtime, threads, intact, shape: as `open_interpreter`.

    Attributes:
        inputs, outputs: in the file's order.

    Raises:
        InputError: as `open_interpreter`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        runtime: str | None,
        threads: int,
        intact: bool,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self._interpreter = open_interpreter(path, runtime=runtime, threads=threads, intact=intact, shape=shape)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if any(-1 in tensor["shape_signature"] for tensor in (*inputs, *outputs)):
            self._interpreter.invoke()  # only then are the shapes known that the graph computes
            outputs = self._interpreter.get_output_details()
        self.inputs, self.outputs = [_port(t) for t in inputs], [_port(t) for t in outputs]
        self._inputs, self._outputs = [t["index"] for t in inputs], [t["index"] for t in outputs]

    def run(self, image: NDArray[Any], outputs: Sequence[int]) -> list[NDArray[Any]]:
        """Run one image.

        Args:
            image: the first input without its batch, of its type or one that is cast to it.
            outputs: numbers of the outputs to return.

        Returns:
            Copies of those outputs as they are stored, without their batch.
        """
        self._interpreter.tensor(self._inputs[0])()[:] = image  # cast in place
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(self._outputs[number])[0] for number in outputs]

    def graph_stats(self) -> GraphStats | None:
        """As `read_graph_stats`."""
        return read_graph_stats(self._interpreter)


def _port(tensor: dict[str, Any]) -> Port:
    scale, zero_point = tensor["quantization"]
    return Port(tuple(int(n) for n in tensor["shape"]), tensor["dtype"], float(scale), int(zero_point))
