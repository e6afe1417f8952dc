"""From pixels to the input tensor, and from the output tensor to class scores or class ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.config import normalize
from segformer_tf.edge.tflite.contract import join_numbers
from segformer_tf.edge.tflite.flatbuffer import Normalization
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels

_FLOATS = (np.float32, np.float16)
_BYTES = (np.uint8, np.int8)
_USUAL_RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))  # of the values that a byte of an image may stand for
_PROBABILITIES = ("SOFTMAX", "LOGISTIC")  # operations that give them
_FEWEST_LEVELS = 100  # of 256 gray levels that must stay apart

RAW: Normalization = ((0.0,), (1.0,))  # pixels as they are, 0..255

EXPECTED_INPUT = "an RGB image [1, H, W, 3] of uint8, int8, float32 or float16"
EXPECTED_OUTPUT = "logits or probabilities [1, h, w, classes], one channel [1, h, w, 1], or class ids [1, h, w]"


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        index: of the tensor, for the interpreter.
        shape: with its batch of 1.
        dtype: of the stored values.
        scale, zero_point: ``real = scale * (stored - zero_point)``; a scale of 0 where it is not quantized.
    """

    index: int
    shape: tuple[int, ...]
    dtype: type[np.generic]
    scale: float
    zero_point: int

    def __str__(self) -> str:
        quantized = f", scale {self.scale:.4g}, zero point {self.zero_point}" if self.scale else ""
        return f"{np.dtype(self.dtype).name} [{', '.join(map(str, self.shape))}]{quantized}"

    @classmethod
    def of(cls, tensor: dict[str, Any]) -> Port:
        """From the interpreter's details of a tensor."""
        scale, zero_point = tensor["quantization"]
        return cls(tensor["index"], tuple(map(int, tensor["shape"])), tensor["dtype"], float(scale), int(zero_point))


@dataclass(frozen=True)
class PixelInput:
    """Pixels to the input's tensor.

    Attributes:
        table: (256, 3) of the tensor's type, the stored value for each value of R, G and B; None for the value itself.
        note: how pixels go in, in a few words.
    """

    table: NDArray[Any] | None
    note: str

    def __call__(self, pixels: Pixels) -> NDArray[Any]:
        """(H, W, 3) uint8 to (H, W, 3) of the tensor's type, or uint8 for the engine to cast."""
        if self.table is None:
            return pixels
        return np.stack([self.table[:, c][pixels[..., c]] for c in range(3)], axis=-1)


def pixel_input(port: Port, normalization: Normalization | None) -> PixelInput:
    """How pixels are written to an input.

    Args:
        port: [1, H, W, 3].
        normalization: mean and std; None takes the range of the input's integers.

    Raises:
        InputError: another kind of input, a float one without a normalization, or a normalization that does not fit
            the range of its integers.
    """
    if len(port.shape) != 4 or port.shape[0] != 1 or port.shape[3] != 3 or port.dtype not in (*_FLOATS, *_BYTES):
        raise InputError(f"expected {EXPECTED_INPUT} in")
    if normalization is None:
        return _by_integers(port)
    mean, std = (np.asarray(values, np.float64) for values in normalization)
    if not {mean.size, std.size} <= {1, 3} or not np.isfinite(mean).all() or not (std > 0).all():
        values = normalization if max(mean.size, std.size) <= 3 else f"{mean.size} and {std.size}"
        raise InputError(f"expected a mean and a std of one number or three. Received: {values}")
    raw = not mean.any() and (std == 1).all()
    if raw and (port.dtype in _FLOATS or (port.dtype == np.uint8 and port.scale in (0.0, 1.0) and not port.zero_point)):
        return PixelInput(None, "pixels as they are, 0..255")
    real = np.broadcast_to(normalize(np.arange(256.0)[:, None], mean=mean, std=std), (256, 3))
    note = f"pixels as (x - {_named(normalization[0])}) / {_named(normalization[1])}"
    if np.abs(real).max() > 256:  # torch's 0.485 / 0.229 and the like
        raise InputError(
            f"{note} are {real.min():.0f}..{real.max():.0f}, which no network is trained on; if mean and std are "
            "for 0..1, multiply both by 255"
        )
    if port.dtype in _FLOATS:
        return PixelInput(real.astype(port.dtype), note)
    if not port.scale:
        raise InputError("its input's integers have no scale, so a mean and std cannot be applied")
    limits = np.iinfo(port.dtype)  # type: ignore[type-var]
    stored = np.clip(np.rint(real / port.scale + port.zero_point), limits.min, limits.max).astype(port.dtype)
    if (fewest := min(len(np.unique(stored[:, c])) for c in range(3))) < _FEWEST_LEVELS:
        low, high = _range(port)
        raise InputError(
            f"{note} are {real.min():.3g}..{real.max():.3g}, but its input's integers stand for {low:.3g}..{high:.3g}: "
            f"{fewest} of 256 gray levels would stay apart; give those it was trained with by --mean and --std"
        )
    return PixelInput(stored, note)


def _by_integers(port: Port) -> PixelInput:
    """Without a normalization: bytes whose range stands for a usual one of images are the pixels themselves."""
    if port.dtype in _FLOATS:
        raise InputError(
            "takes floats and does not say of which range. Give it by --mean and --std; it sees (x - mean) / std of "
            "0..255: 0 and 1 for 0..255, 0 and 255 for 0..1, 127.5 and 127.5 for -1..1, "
            "123.675 116.28 103.53 and 58.395 57.12 57.375 for ImageNet's"
        )
    low, high = _range(port) if port.scale else (0.0, 255.0 if port.dtype == np.uint8 else 0.0)
    if not any(max(abs(low - a), abs(high - b)) <= 0.01 * (b - a) for a, b in _USUAL_RANGES):
        raise InputError(
            f"its input's integers stand for {low:.3g}..{high:.3g}; expected 0..255, 0..1 or -1..1, or those it "
            "was trained with: --mean and --std"
        )
    note = f"pixels as they are, for {low:.3g}..{high:.3g}"
    if port.dtype == np.uint8:
        return PixelInput(None, note)
    return PixelInput(np.repeat((np.arange(256) - 128).astype(np.int8)[:, None], 3, axis=1), note)


def _range(port: Port) -> tuple[float, float]:
    """The real values of the smallest and the largest integer."""
    limits = np.iinfo(port.dtype)  # type: ignore[type-var]
    return port.scale * (limits.min - port.zero_point), port.scale * (limits.max - port.zero_point)


def _named(values: tuple[float, ...]) -> str:
    return join_numbers(values) if len(values) == 1 else f"({', '.join(f'{value:g}' for value in values)})"


@dataclass(frozen=True)
class ClassOutput:
    """How an output is read as classes.

    Attributes:
        number: of the output.
        grid: (height, width, classes); 0 classes for ids without scores.
        threshold: for one channel, the value above which it is foreground, class 1 of two; else None.
        probabilities: whether the values are probabilities, and not logits.
        port: the output.
        note: how it is read, in a few words, or "".
    """

    number: int
    grid: tuple[int, int, int]
    threshold: float | None
    port: Port
    note: str
    probabilities: bool = False

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The stored output without its batch to scores, `grid` float32, or to (height, width) class ids.

        Raises:
            InputError: ids outside 0..254.
        """
        height, width, classes = self.grid
        if not classes:
            ids = stored.reshape(height, width)
            if ids.min() < 0 or ids.max() > 254:
                raise InputError(f"expected class ids 0..254. Received: {ids.min()}..{ids.max()}")
            return ids.astype(np.uint8)
        scores = stored
        if self.port.scale:
            scores = (stored.astype(np.float32) - self.port.zero_point) * np.float32(self.port.scale)
        elif stored.dtype != np.float32:
            scores = stored.astype(np.float32)
        if self.threshold is None:
            return scores
        above = scores.reshape(height, width) - np.float32(self.threshold)
        return np.stack([np.zeros_like(above), above], axis=-1)


def class_output(ports: Sequence[Port], number: int, *, source: str, above: float | None) -> ClassOutput:
    """How to read an output.

    Args:
        ports: all outputs.
        number: of the output to read.
        source: the operation that its values come from, of `FlatFile.sources`, or "".
        above: the user's threshold for one channel, or None.

    Raises:
        InputError: another kind of output, or one channel of unknown meaning.
    """
    port = ports[number]
    one_channel = len(port.shape) == 3 or (len(port.shape) == 4 and port.shape[3] == 1)
    real = port.dtype in _FLOATS or (port.dtype in (*_BYTES, np.int16) and port.scale > 0)
    if not (one_channel or len(port.shape) == 4) or port.shape[0] != 1 or min(port.shape) < 1:
        raise InputError(f"expected {EXPECTED_OUTPUT} out")
    if above is not None and not (one_channel and real):
        raise InputError("--foreground-above is for a file of one channel; this one has others")
    height, width = port.shape[1], port.shape[2]
    if one_channel and (source == "ARG_MAX" or (not real and np.issubdtype(port.dtype, np.integer))):
        return ClassOutput(number, (height, width, 0), None, port, "class ids, resized to the nearest")
    if not real:
        raise InputError(f"expected {EXPECTED_OUTPUT} out")
    if not one_channel:
        return ClassOutput(number, (height, width, port.shape[3]), None, port, "", source in _PROBABILITIES)
    why = "as given"
    if above is None:
        if not source or source == "SOFTMAX":
            raise InputError(
                "gives one channel and does not say what it is; expected --foreground-above 0 for logits, 0.5 for "
                "probabilities"
            )
        above, why = (0.5, "it ends in a sigmoid") if source == "LOGISTIC" else (0.0, f"it ends in {source}")
    # Of an unknown operation the threshold tells: 0 is that of logits, 0.5 that of probabilities.
    probabilities = source == "LOGISTIC" or (source in ("", "SOFTMAX") and 0 < above < 1)
    return ClassOutput(number, (height, width, 2), above, port, f"foreground above {above:g}, {why}", probabilities)
