"""A network that runs: tensors in, tensors out. What they mean is `segformer_tf.edge.tflite.model`'s to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.runtime import open_interpreter
from segformer_tf.edge.tflite.graph_stats import Contents, read_contents


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        shape: with its batch of 1.
        dtype: of what is stored.
        scale: ``real = scale * (stored - zero_point)``; 0 of what is not quantized.
        zero_point: likewise.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic]
    scale: float = 0.0
    zero_point: int = 0

    def __str__(self) -> str:
        quantized = f", scale {self.scale:.4g}, zero point {self.zero_point}" if self.scale else ""
        return f"{np.dtype(self.dtype).name} [{', '.join(map(str, self.shape))}]{quantized}"


class Engine(Protocol):
    """A file on a runtime. Not for several threads at once: whoever shares one takes turns.

    Attributes:
        inputs: in the file's order.
        outputs: likewise.
    """

    @property
    def inputs(self) -> Sequence[Port]: ...

    @property
    def outputs(self) -> Sequence[Port]: ...

    def run(self, image: NDArray[Any], wanted: Sequence[int]) -> list[NDArray[Any]]:
        """One image.

        Args:
            image: as the first input without its batch, or of a type that is cast to the input's.
            wanted: numbers of the outputs to give.

        Returns:
            Those outputs as they are stored, without their batch; the caller's to keep.
        """

    def contents(self) -> Contents | None:
        """What the file consists of and who runs it; None where the runtime does not tell."""


class InterpreterEngine:
    """An `Engine` by the Interpreter that both TFLite runtimes have.

    Args:
        path: a ``.tflite``.
        runtime: as `open_interpreter`, like `threads`, `intact` and `shape`.

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
            self._interpreter.invoke()  # only then are shapes known that the graph computes
            outputs = self._interpreter.get_output_details()
        self.inputs, self.outputs = [_port(t) for t in inputs], [_port(t) for t in outputs]
        self._inputs, self._outputs = [t["index"] for t in inputs], [t["index"] for t in outputs]

    def run(self, image: NDArray[Any], wanted: Sequence[int]) -> list[NDArray[Any]]:
        """As `Engine.run`."""
        self._interpreter.tensor(self._inputs[0])()[:] = image  # cast in place
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(self._outputs[number])[0] for number in wanted]

    def contents(self) -> Contents | None:
        """As `Engine.contents`."""
        return read_contents(self._interpreter)


def _port(tensor: dict[str, Any]) -> Port:
    scale, zero_point = tensor["quantization"]
    return Port(tuple(int(n) for n in tensor["shape"]), tensor["dtype"], float(scale), int(zero_point))
