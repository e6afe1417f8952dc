"""A ``.tflite`` and a runtime as one function from pixels to logits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.contents import Contents, read_contents
from segformer_tf.edge.image import Pixels
from segformer_tf.edge.metadata import ModelInfo, find_model_info
from segformer_tf.edge.runtime import open_interpreter
from segformer_tf.errors import InputError


class TFLiteModel:
    """A segmentation network that takes RGB 0..255 and gives logits, on one of the runtimes.

    Args:
        path: a ``.tflite``; one without metadata of ``segformer export`` is tried in another process first.
        runtime: "litert" or "tflite-runtime"; None takes the preferred one that is installed.
        threads: CPU threads; None takes all cores, four at most.
        info: what `find_model_info` says of the file, where the caller has it: the file is not hashed again.

    Attributes:
        size: (height, width) of the input.
        grid: (height, width, classes) of the logits.
        recipe: how the file was quantised, or "unknown".
        bits: as `load_image` takes them for this model.

    Raises:
        InputError: no such file, a damaged one, a runtime that is missing or refuses it, or tensors of another kind.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        info: ModelInfo | None = None,
    ) -> None:
        if threads is None:
            threads = min(4, os.cpu_count() or 1)
        if threads < 1:
            raise InputError(f"--threads must be positive. Received: {threads}")
        info = info or find_model_info(path)
        self.recipe = info.recipe if info else "unknown"
        self.bits = info.bits if info else None
        self._interpreter = open_interpreter(path, runtime=runtime, threads=threads, intact=info is not None)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shapes = [[int(n) for n in tensor["shape"]] for tensor in (*inputs, *outputs)]
        maps = [tensor for tensor in outputs if tensor["dtype"] == np.int32 and len(tensor["shape"]) == 3]
        scores = [
            tensor for tensor in outputs if tensor["dtype"] in (np.float32, np.int8) and len(tensor["shape"]) == 4
        ]
        if (
            len(inputs) != 1
            or len(scores) != 1
            or len(maps) > 1
            or len(outputs) != 1 + len(maps)
            or len(shapes[0]) != 4
            or any([int(n) for n in tensor["shape"][1:]] != shapes[0][1:3] for tensor in maps)
            or any(shape[0] != 1 or min(shape) < 1 for shape in shapes)
            or shapes[0][3] != 3
            or inputs[0]["dtype"] not in (np.uint8, np.float32)
            or inputs[0]["quantization"] not in ((0.0, 0), (1.0, 0))
        ):
            kinds = [f"{t['dtype'].__name__} {s}" for t, s in zip((*inputs, *outputs), shapes, strict=True)]
            raise InputError(
                f"{path}: expected RGB 0..255 [1, H, W, 3] (uint8 or float32) in and logits [1, h, w, classes] "
                f"(float32 or int8) out. "
                f"Received: {', '.join(kinds[: len(inputs)])} in, {', '.join(kinds[len(inputs) :])} out"
            )
        self._input, self._output, self._map = inputs[0], scores[0], maps[0] if maps else None
        self.size = shapes[0][1], shapes[0][2]
        self.grid = tuple(int(n) for n in scores[0]["shape"][1:])

    def logits(self, fitted: Pixels) -> NDArray[np.float32]:
        """Raw scores of an image that has the model's size.

        Args:
            fitted: (height, width, 3) uint8 RGB.

        Returns:
            `grid` float32; of our own files (⌈height/4⌉, ⌈width/4⌉, C).

        Raises:
            InputError: another shape or dtype.
        """
        if fitted.shape != (*self.size, 3) or fitted.dtype != np.uint8:
            raise InputError(f"expected uint8 {(*self.size, 3)}. Received: {fitted.dtype} {fitted.shape}")
        self._interpreter.tensor(self._input["index"])()[:] = fitted  # cast in place
        self._interpreter.invoke()
        logits = self._interpreter.get_tensor(self._output["index"])[0]
        if logits.dtype == np.float32:
            return logits
        scale, zero = self._output["quantization"]
        return (logits.astype(np.float32) - zero) * np.float32(scale)

    def class_map(self) -> NDArray[np.int32] | None:
        """`size` class ids of the image that `logits` saw last, if the file makes them itself (``--class-map``)."""
        return None if self._map is None else self._interpreter.get_tensor(self._map["index"])[0]

    def contents(self) -> Contents | None:
        """What the file consists of and who runs it; None where the runtime does not tell."""
        return read_contents(self._interpreter)
