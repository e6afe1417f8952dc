"""A `TFLiteModel` in a process of its own.

For three reasons: some files crash some runtimes; tflite-runtime 2.14 refuses every file in a process that has
TensorFlow loaded (their symbols collide: "vector::reserve"); and a process keeps the GPU driver that it first loads.

Protocol: the child sends one line of JSON, the model's attributes. Then it answers each image (raw uint8) with logits
(raw float32), and with the class map (raw int32) if the file computes one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.child_process import ChildProcess, answer_stream
from segformer_tf.edge.runtime import child_environment
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.model import TFLiteModel, check_pixels
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels


class IsolatedModel(ChildProcess):
    """Runs a file on a runtime in another process; a context manager. Threads may share it: they take turns.

    Args:
        path, runtime, contract: arguments of `TFLiteModel`.
        seconds: time limit of one image.

    Attributes:
        size: (height, width) of the input.
        grid: (height, width, classes) of the logits.
        recipe, bits, one_channel, threshold, probabilities, note: of the `TFLiteModel`.
        class_map: class ids of the last image, `size` int32 whatever the file's type, if it has them (``--class-map``).

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
        super().__init__(main, *arguments, name=name, seconds=seconds, environment=child_environment(runtime))
        attributes = json.loads(self.read())
        self.size: tuple[int, int] = tuple(attributes["size"])
        self.grid: tuple[int, int, int] = tuple(attributes["grid"])
        self.recipe: str = attributes["recipe"]
        self.bits: int | None = attributes["bits"]
        self.one_channel: bool = attributes["one_channel"]
        self.threshold: float | None = attributes["threshold"]
        self.probabilities: bool = attributes["probabilities"]
        self.note: str = attributes["note"]
        self._makes_map: bool = attributes["makes_map"]
        self.class_map: NDArray[np.int32] | None = None

    def answer(self, fitted: Pixels) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        """Logits, `grid` float32, and the class map, if any, of (*size, 3) uint8 RGB; see `TFLiteModel.answer`."""
        check_pixels(fitted, self.size)
        class_map = None
        with self.exchange():
            self.write(fitted.tobytes())
            logits = np.frombuffer(self.read(4 * int(np.prod(self.grid))), np.float32).reshape(self.grid)
            if self._makes_map:
                class_map = np.frombuffer(self.read(4 * int(np.prod(self.size))), np.int32).reshape(self.size)
        return logits, class_map

    def logits(self, fitted: Pixels) -> NDArray[np.float32]:
        """Logits, `grid` float32, of (*size, 3) uint8 RGB; sets `class_map`."""
        logits, self.class_map = self.answer(fitted)
        return logits


def main(path: str, runtime: str, contract: str) -> None:
    """The child's side."""
    send = answer_stream()
    model = TFLiteModel(path, runtime=runtime or None, contract=Contract.from_json(contract))
    if not model.grid[2]:
        raise InputError(f"{path}: gives class ids, not logits; only predict and benchmark run it, on a CPU runtime")
    names = ("size", "grid", "recipe", "bits", "one_channel", "threshold", "probabilities", "note", "makes_map")
    send(json.dumps({name: getattr(model, name) for name in names}).encode() + b"\n")
    shape = (*model.size, 3)
    while len(image := sys.stdin.buffer.read(int(np.prod(shape)))) == np.prod(shape):
        logits, class_map = model.answer(np.frombuffer(image, np.uint8).reshape(shape))
        send(logits.tobytes() + (b"" if class_map is None else class_map.astype(np.int32).tobytes()))
