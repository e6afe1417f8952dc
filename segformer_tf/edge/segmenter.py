"""`Segmenter`: from a ``.tflite`` and an image to a mask of the image's own size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from segformer_tf.confidence import scores_to_confidence
from segformer_tf.config import check_bits
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.metadata import find_model_info, read_model_info
from segformer_tf.edge.result import Result
from segformer_tf.edge.runtime import GPU
from segformer_tf.edge.sliding import Block, StageClock, slide_segment, sliding_blocks, stride_of
from segformer_tf.edge.smoothing import MovingAverage
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.model import TFLiteModel, answer_to_mask
from segformer_tf.errors import InputError
from segformer_tf.image import ImageLike, Pixels, Reader, fit_image, load_image
from segformer_tf.labels import Labels

STAGES = ("load", "resize", "invoke", "mask")


class Segmenter:
    """An exported SegFormer, ready to run.

    Args:
        path: a ``.tflite`` made by ``segformer export``, or another one, which needs `labels` and may need the rest.
        runtime: "litert", "tflite-runtime", "litert-gpu" or "litert-fp16"; None takes the preferred installed one.
        threads: CPU threads; None takes OMP_NUM_THREADS, or all cores, four at most.
        labels: names and colors of the classes; None takes those in the file. For a file of one channel: its name, or
            that of the background and its own.
        size: (height, width), for a file that takes images of any size.
        mean, std: one value or three (R, G, B), for a file from elsewhere: it sees ``(x - mean) / std`` of x in 0..255.
        foreground_above: for a file of one channel, the value above which a pixel is foreground: 0 for logits, 0.5 for
            probabilities. None decides by the file's last operation.
        bits: bits in use, 8 to 16, in images of more than 8 bits; None takes the model's.

    Attributes:
        labels: class names and colors.
        recipe: name of the file's quantization, or "unknown".
        size: (height, width) of the model's input.
        license: terms of the weights, or "".
        bits: bits in use in images of more than 8 bits, or None for 16.
        gives_logits: whether the file gives logits; some from elsewhere give class ids alone.
        said: the GPU in use, and how a file from elsewhere is read; "" for our own on a CPU.

    Raises:
        InputError: no such file, a damaged one, no labels, no runtime, a runtime that refuses the file, or options that
            a file from elsewhere lacks or contradicts.

    Examples:
        >>> result = Segmenter("model.tflite")("photo.jpg")
        >>> result.overlay().show()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        labels: Labels | None = None,
        size: tuple[int, int] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        foreground_above: float | None = None,
        bits: int | None = None,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"expected the path of a .tflite. Received: {type(path).__name__}")
        contract = Contract(size=size, mean=_tuple(mean), std=_tuple(std), foreground_above=foreground_above)
        info = find_model_info(path) if labels else read_model_info(path)
        if labels is None:
            assert info is not None  # by `read_model_info`
            labels = info.labels
        self.license = info.license if info else ""
        self._model: TFLiteModel | IsolatedModel
        if runtime == GPU:
            self._model = IsolatedModel(path, runtime=runtime, contract=contract)
        else:
            self._model = TFLiteModel(path, runtime=runtime, threads=threads, info=info, contract=contract)
        if self._model.one_channel and len(labels.names) == 1:
            labels = Labels(("background", *labels.names), ((0, 0, 0), *labels.colors))
        if (classes := self._model.grid[2]) and len(labels.names) != classes:
            one = " (background and one channel)" if self._model.one_channel else ""
            first = "; do its channels come first?" if self._model.grid[0] == len(labels.names) else ""
            raise InputError(f"{path}: has {classes} classes{one}. Received: {len(labels.names)} names{first}")
        self.labels = labels
        self.recipe = self._model.recipe
        self.bits = check_bits(bits) or self._model.bits
        self.size = self._model.size
        self.said = self._model.note
        self.gives_logits = self._model.grid[2] > 0
        self.logits = self._model.logits

    def __call__(
        self, image: ImageLike, *, slide: bool | int = False, scale: float = 1.0, confidence: bool = False
    ) -> Result:
        """Segment one image. Threads may share the segmenter; the network runs one image at a time.

        Args:
            image: a path, a PIL image, the bytes of an image file or a file object, or (H, W, 3) uint8 **RGB**. OpenCV
                gives BGR: pass ``image[..., ::-1]``.
            slide: instead of stretching the image to the model's size, cut it into windows of that size and take the
                mean of their logits: the stride in pixels, or True for three quarters of the shorter side.
            scale: with `slide`, factor on the image before it is cut, for objects larger or smaller than in training.
            confidence: compute `Result.confidence` as well, which takes longer than the mask; not with `slide`.

        Raises:
            InputError: an image that cannot be read, class ids beyond the labels, a stride or scale out of range, or a
                confidence asked of windows, or of a file that gives class ids alone.
        """
        sure = None
        if slide is False:
            if scale != 1.0:
                raise InputError(f"scale is for slide=True. Received: {scale:g}")
            pixels, mask, speed, sure = segment(self._model, image, bits=self.bits, confidence=confidence)
        else:
            if confidence:
                raise InputError("confidence is computed of an image that is stretched, not of windows (slide)")
            clock = StageClock()
            pixels = clock.timed("load", load_image)(image, bits=self.bits)
            mask = slide_segment(self._model, pixels, stride=stride_of(slide), scale=scale, clock=clock)
            speed = clock.spent
        return self._result(pixels, mask, speed, sure)

    def stream(self, frames: Iterable[Pixels], *, smooth: float = 0) -> Iterator[Result]:
        """Segment the frames of a video or camera, one at a time, as they are asked for.

        Args:
            frames: (H, W, 3) uint8 **RGB** each. OpenCV gives BGR, which no code can tell from RGB: pass
                ``frame[..., ::-1]``.
            smooth: weight of earlier frames in the scores, 0 to below 1, against flicker; see `MovingAverage`.

        Yields:
            A result for each frame.

        Raises:
            InputError: a weight out of range, or one above 0 for a file that gives class ids alone; and, at a frame,
                what a call raises.

        Examples:
            >>> for result in Segmenter("model.tflite").stream(frames, smooth=0.8):
            ...     show(result.overlay())
        """
        average = self.moving_average(smooth)
        return (self.smoothed(frame, average) for frame in frames)

    def moving_average(self, smooth: float) -> MovingAverage:
        """A new average for `smoothed`, one for each video; raises InputError as `stream`."""
        average = MovingAverage(smooth)
        if smooth and not self.gives_logits:
            raise InputError("the file gives class ids and no scores, which have no mean to smooth")
        return average

    def smoothed(self, frame: Pixels, average: MovingAverage) -> Result:
        """Segment the next frame of a video, by scores that go through `average`; see `stream`."""
        if not isinstance(frame, np.ndarray):
            raise InputError(f"expected frames as RGB arrays (H, W, 3) of uint8. Received: {type(frame).__name__}")
        return self._result(*segment(self._model, frame, average=average))

    def _result(
        self, pixels: Pixels, mask: NDArray[np.uint8], speed: dict[str, float], sure: NDArray[np.float32] | None
    ) -> Result:
        if (largest := int(mask.max())) >= len(self.labels.names):
            raise InputError(f"the file gives class id {largest}. Received: names of 0..{len(self.labels.names) - 1}")
        return Result(pixels, mask, self.labels, speed, sure)

    def blocks(
        self,
        read: Reader,
        size: tuple[int, int],
        *,
        slide: bool | int = True,
        scale: float = 1.0,
        clock: StageClock | None = None,
    ) -> Iterator[Block]:
        """The mask of a picture of any size, in blocks, by windows as `slide` cuts them.

        Memory does not grow with the picture; `read` decides where it comes from.

        Args:
            read: called with two slices, rows and columns; gives their (rows, columns, 3) uint8 RGB. Both have ends,
                inside the picture.
            size: (height, width) of the picture.
            slide, scale: as for a call.
            clock: to whose `spent` the milliseconds of each stage are added.

        Yields:
            Rows, columns, and the (rows, columns) uint8 class ids there, which together cover the picture once.

        Raises:
            InputError: a stride or scale out of range, or a file that gives class ids and no logits.
        """
        yield from sliding_blocks(self._model, read, size, stride=stride_of(slide), scale=scale, clock=clock)


def segment(
    model: TFLiteModel | IsolatedModel,
    image: ImageLike,
    *,
    bits: int | None = None,
    confidence: bool = False,
    average: MovingAverage | None = None,
) -> tuple[Pixels, NDArray[np.uint8], dict[str, float], NDArray[np.float32] | None]:
    """`image`, `mask`, `speed` and `confidence` of a `Result`, without labels; raises InputError as a call does."""
    if confidence and not model.grid[2]:
        raise InputError("the file gives class ids and no logits, so there is no confidence")
    clock = [perf_counter()]
    pixels = load_image(image, bits=bits or model.bits)
    clock.append(perf_counter())
    fitted = fit_image(pixels, model.size)
    clock.append(perf_counter())
    answer, _ = model.answer(fitted)
    if average:
        answer = average(answer)
    clock.append(perf_counter())
    size = pixels.shape[0], pixels.shape[1]
    mask, sure = answer_to_mask(answer, size), None
    clock.append(perf_counter())
    if confidence:
        sure = scores_to_confidence(answer, size, probabilities=model.probabilities, threshold=model.threshold)
        clock.append(perf_counter())
    stages = (*STAGES, "confidence") if confidence else STAGES
    return pixels, mask, dict(zip(stages, (np.diff(clock) * 1e3).tolist(), strict=True)), sure


def _tuple(values: float | Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in np.atleast_1d(values))
