"""A ``.tflite`` on a runtime as one function from pixels to logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.compiled import HALF
from segformer_tf.edge.metadata import ModelInfo, find_model_info
from segformer_tf.edge.runtime import GPU, open_interpreter, runtime_version, usual_threads
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.flatbuffer import FlatFile, read_flatfile
from segformer_tf.edge.tflite.graph_stats import GraphStats, read_graph_stats
from segformer_tf.edge.tflite.input_output import EXPECTED_INPUT, EXPECTED_OUTPUT, RAW, Port, class_output, pixel_input
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels
from segformer_tf.mask import ids_to_mask, logits_to_mask

_IDS = (np.uint8, np.int32)  # of a class map


class TFLiteModel:
    """A segmentation network on one of the runtimes; threads may share one.

    Calls take turns: one interpreter per thread was no faster on two cores (CamVid b0, int8, four threads: 169 ms per
    image either way), and each took 70 MB.

    Args:
        path: a ``.tflite``; one without metadata of ``segformer export`` is tried in another process first.
        runtime: "litert", "tflite-runtime", "litert-gpu" or "litert-fp16"; None takes the preferred installed one.
        threads: CPU threads; None takes OMP_NUM_THREADS, or all cores, four at most.
        info: the result of `find_model_info`, to save hashing the file again.
        contract: how to use a file that `segformer export` did not make.

    Attributes:
        size: (height, width) of the input.
        grid: (height, width, classes) of the logits; 0 classes if the file gives class ids and no logits.
        recipe: of the file's quantization, or "unknown".
        bits: of the model's images, for `load_image`.
        one_channel: whether the two classes are background and foreground, by a threshold on the file's one channel.
        threshold: that threshold, or None.
        probabilities: whether the scores are probabilities (or, of one channel, less the threshold), and not logits.
        makes_map: whether the file gives class ids beside the logits (``--class-map``).
        note: the GPU in use, the warnings of export, and how a file from elsewhere is read; "" for our own on a CPU.

    Raises:
        InputError: no such file, a damaged one, a runtime that is missing or refuses it, tensors of another kind, or a
            contract that is incomplete or contradicts the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        info: ModelInfo | None = None,
        contract: Contract | None = None,
    ) -> None:
        if threads is None:
            threads = usual_threads()
        if threads < 1:
            raise InputError(f"--threads must be positive. Received: {threads}")
        info, contract = info or find_model_info(path), contract or Contract()
        self.recipe = info.recipe if info else "unknown"
        self.bits = info.bits if info else None
        contract.check_use(info is None)
        file = None if info else read_flatfile(path)
        shape = _open_shape(path, file.inputs, contract.size) if file else None
        self._interpreter = open_interpreter(
            path, runtime=runtime, threads=threads, intact=info is not None, shape=shape
        )
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if any(-1 in tensor["shape_signature"] for tensor in (*inputs, *outputs)):
            self._interpreter.invoke()  # only then are the shapes known that the graph computes
            outputs = self._interpreter.get_output_details()
        self._inputs, self._outputs = [Port.of(t) for t in inputs], [Port.of(t) for t in outputs]
        self._turn = Lock()
        warning = str(info.created.get("warning", "")) if info else ""
        device = (f"{runtime} {runtime_version(runtime)}",) if runtime in (GPU, HALF) else ()
        self._device = (*device, warning) if runtime == GPU else device
        try:
            self._read_ports(file, contract)
        except InputError as error:
            inputs, outputs = (", ".join(map(str, ports)) for ports in (self._inputs, self._outputs))
            raise InputError(f"{path}: {error}. Received: {inputs} in, {outputs} out") from None
        if contract.size and contract.size != self.size:
            raise InputError(_other_size(path, self.size, contract.size))

    def _read_ports(self, file: FlatFile | None, contract: Contract) -> None:
        """Find how to write the input and read the outputs; raises InputError without the file's name."""
        inputs, outputs = self._inputs, self._outputs
        if len(inputs) != 1:
            raise InputError(f"expected {EXPECTED_INPUT} in")
        self._input = pixel_input(inputs[0], contract.normalization or (file.normalization if file else RAW))
        self.size = inputs[0].shape[1], inputs[0].shape[2]
        full = (1, *self.size)
        maps = [
            i
            for i, p in enumerate(outputs)
            if len(outputs) == 2 and p.dtype in _IDS and p.shape == full and not p.scale
        ]
        if len(outputs) != 1 + len(maps):
            raise InputError(f"expected {EXPECTED_OUTPUT} out")
        number = next(i for i in range(len(outputs)) if i not in maps)
        source = file.sources[number] if file else ""
        self._output = class_output(outputs, number, source=source, above=contract.foreground_above)
        if not _covers(self._output.grid, self.size):
            raise InputError(f"expected {EXPECTED_OUTPUT} out, over the whole image")
        self._map = maps[0] if maps else None
        self.makes_map = bool(maps)
        self.grid = self._output.grid
        self.threshold, self.probabilities = self._output.threshold, self._output.probabilities
        self.one_channel = self.threshold is not None
        use = (self._input.note, self._output.note) if file else ()
        self.note = "; ".join(filter(None, (*self._device, *use)))

    def answer(self, fitted: Pixels) -> tuple[NDArray[Any], NDArray[np.int32] | None]:
        """Run the file on an image of the model's size.

        Args:
            fitted: (height, width, 3) uint8 RGB.

        Returns:
            Scores, `grid` float32, or (height, width) uint8 class ids of a file without scores; and the file's class
            map, `size` int32, if it `makes_map`.

        Raises:
            InputError: another shape or dtype.
        """
        check_pixels(fitted, self.size)
        image, class_map = self._input(fitted), None
        with self._turn:
            self._interpreter.tensor(self._inputs[0].index)()[:] = image  # cast in place
            self._interpreter.invoke()
            stored = self._interpreter.get_tensor(self._outputs[self._output.number].index)[0]
            if self._map is not None:
                class_map = self._interpreter.get_tensor(self._outputs[self._map].index)[0]
        return self._output(stored), class_map

    def logits(self, fitted: Pixels) -> NDArray[np.float32]:
        """The scores of `answer`, for our own files (⌈height/4⌉, ⌈width/4⌉, C); raises InputError if there are none."""
        if not self.grid[2]:
            raise InputError("the file gives class ids, not logits")
        return self.answer(fitted)[0]

    def graph_stats(self) -> GraphStats | None:
        """Operations of the file; None if the runtime does not list them."""
        return read_graph_stats(self._interpreter)


def check_pixels(fitted: Pixels, size: tuple[int, int]) -> None:
    """Raises InputError for anything but (*size, 3) uint8."""
    if fitted.shape != (*size, 3) or fitted.dtype != np.uint8:
        raise InputError(f"expected uint8 {(*size, 3)}. Received: {fitted.dtype} {fitted.shape}")


def _covers(grid: tuple[int, int, int], size: tuple[int, int]) -> bool:
    """Whether an output has the input's proportions, up to rounding; a list of pixels, (1, H·W, C), does not."""
    height, width = grid[:2]
    return abs(height * size[1] / (width * size[0]) - 1) <= 0.1 + 1 / height + 1 / width


def answer_to_mask(answer: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width) uint8 class ids from the scores or ids that `TFLiteModel.answer` gives."""
    return ids_to_mask(answer, size) if answer.ndim == 2 else logits_to_mask(answer, size)


def _open_shape(
    path: str | Path, inputs: Sequence[tuple[int, ...]], size: tuple[int, int] | None
) -> tuple[int, ...] | None:
    """The shape for an input that leaves height or width open; None if it leaves nothing open."""
    if len(inputs) != 1 or len(inputs[0]) != 4:
        return None
    _, height, width, channels = inputs[0]
    if height == 3 != channels:
        raise InputError(
            f"{path}: expected {EXPECTED_INPUT} in. Received: {list(inputs[0])}, channels first; convert it with "
            "channels last"
        )
    if -1 not in (height, width) and (height, width) != (1, 1):
        return None
    if size is None:
        raise InputError(f"{path}: takes images of any size; expected --size H W, best the size it was trained on")
    if any(side not in (-1, 1, n) for side, n in zip((height, width), size, strict=True)):
        raise InputError(_other_size(path, (height, width), size))
    return 1, *size, 3 if channels == -1 else channels


def _other_size(path: str | Path, expected: tuple[int, int], size: tuple[int, int]) -> str:
    sides = "x".join("any" if side == -1 else str(side) for side in expected)
    return f"{path}: sees {sides} pixels, no other size. Received: --size {size[0]} {size[1]}"
