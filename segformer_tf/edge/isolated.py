"""A `TFLiteModel` in a process of its own, for MODEL RUNTIME CONTRACT.

For three reasons: some files crash some runtimes; tflite-runtime 2.14 refuses every file in a process that has
TensorFlow loaded (their symbols collide: "vector::reserve"); and a process has one GPU driver for good.

Protocol: the child prints one line of JSON with its shapes, then answers each image (raw uint8) on standard
input with logits (raw float32) on standard output, and with its class map (raw int32) if it makes one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.process import Child, answer_stream, run_child
from segformer_tf.edge.runtime import child_environment
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.model import TFLiteModel
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels


class IsolatedModel(Child):
    """Runs a file on a runtime elsewhere; a context manager. Threads may share it: they take turns.

    Args:
        path: as `TFLiteModel`.
        runtime: as `TFLiteModel`.
        seconds: how long one image may take.
        contract: as `TFLiteModel`.

    Attributes:
        size: (height, width) of the input.
        grid: (height, width, classes) of the logits.
        recipe, bits, one_channel, said: as `TFLiteModel`.
        class_map: class ids of the last image, `size` int32, where the file makes them itself (``--class-map``).

    Raises:
        InputError: the runtime refuses the file, crashes on it or hangs, or the file gives no logits; also from
            `logits`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        runtime: str | None = None,
        seconds: float = 300.0,
        contract: Contract | None = None,
    ) -> None:
        name = runtime or "the runtime"
        arguments = (str(path), runtime or "", (contract or Contract()).to_json())
        environment = child_environment(runtime)
        super().__init__("segformer_tf.edge.isolated", *arguments, name=name, seconds=seconds, environment=environment)
        shapes = json.loads(self.read())
        self.size: tuple[int, int] = (shapes["size"][0], shapes["size"][1])
        self.grid: tuple[int, int, int] = tuple(shapes["grid"])
        self._makes_map = bool(shapes["class_map"])
        self.recipe, self.said = str(shapes["recipe"]), str(shapes["said"])
        self.one_channel, self.bits = bool(shapes["one_channel"]), shapes["bits"]
        self.class_map: NDArray[np.int32] | None = None

    def logits(self, fitted: Pixels) -> NDArray[np.float32]:
        """As `TFLiteModel.logits`."""
        if fitted.shape != (*self.size, 3) or fitted.dtype != np.uint8:
            raise InputError(f"expected uint8 {(*self.size, 3)}. Received: {fitted.dtype} {fitted.shape}")
        with self.exchange():
            self.write(fitted.tobytes())
            logits = np.frombuffer(self.read(4 * int(np.prod(self.grid))), np.float32).reshape(self.grid)
            if self._makes_map:
                self.class_map = np.frombuffer(self.read(4 * int(np.prod(self.size))), np.int32).reshape(self.size)
        return logits

    answer = logits


def main(model: str, runtime: str, contract: str) -> None:
    """The child's side."""
    answers = answer_stream()
    loaded = TFLiteModel(model, runtime=runtime or None, contract=Contract.from_json(contract))
    if not loaded.grid[2]:
        raise InputError(f"{model}: gives class ids, not logits; only predict and benchmark run it, on a CPU runtime")
    height, width = loaded.size
    shapes = {
        "size": loaded.size,
        "grid": loaded.grid,
        "class_map": loaded.makes_map,
        "recipe": loaded.recipe,
        "bits": loaded.bits,
        "one_channel": loaded.one_channel,
        "said": loaded.said,
    }
    answers.write(json.dumps(shapes).encode() + b"\n")
    answers.flush()
    while len(image := sys.stdin.buffer.read(height * width * 3)) == height * width * 3:
        logits, class_map = loaded.logits_and_map(np.frombuffer(image, np.uint8).reshape(height, width, 3))
        answers.write(np.ascontiguousarray(logits).tobytes())
        if class_map is not None:
            answers.write(np.ascontiguousarray(class_map).tobytes())
        answers.flush()


def script() -> None:
    """What `IsolatedModel` starts."""
    run_child(main)
