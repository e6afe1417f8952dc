"""`Segmenter`: from a ``.tflite`` and an image to a mask of the image's own size."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from segformer_tf.config import check_bits
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.metadata import find_model_info, read_model_info
from segformer_tf.edge.runtime import GPU
from segformer_tf.edge.sliding import Block, StageClock, slide_segment, sliding_blocks, stride_of
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.model import TFLiteModel, answer_to_mask
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import ImageLike, Pixels, fit_image, load_image
from segformer_tf.labels import Labels
from segformer_tf.overlay import class_ids, overlay, with_legend
from segformer_tf.slide import Reader

STAGES = ("load", "resize", "invoke", "mask")


@dataclass(frozen=True)
class ClassShare:
    """A class that occurs in a mask: its id, its name, and its share of the pixels, 0..1."""

    id: int
    name: str
    share: float


@dataclass(frozen=True)
class Result:
    """The segmentation of one image.

    Attributes:
        image: (H, W, 3) uint8 RGB, as it was read.
        mask: (H, W) uint8 class ids, at the image's own size.
        labels: names and colors of the ids.
        speed: milliseconds of "load", "resize", "invoke" and "mask".
    """

    image: Pixels
    mask: NDArray[np.uint8]
    labels: Labels
    speed: dict[str, float]

    @property
    def classes(self) -> list[ClassShare]:
        """Classes that occur, the largest first."""
        return class_shares(np.bincount(self.mask.ravel(), minlength=len(self.labels.names)), self.labels)

    def overlay(self, alpha: float = 0.55, *, legend: bool = False) -> Image.Image:
        """The mask's colors over the image, by a share `alpha`, 0..1; with a legend of the classes below if asked."""
        picture = Image.fromarray(overlay(self.image, self.mask, self.labels, alpha=alpha))
        return with_legend(picture, self.labels, class_ids(self.mask)) if legend else picture

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME_mask.png`` (palette PNG, index = class id) and ``NAME_overlay.png`` (with a legend).

        Raises:
            InputError: the folder cannot be written.
        """
        mask = Image.fromarray(self.mask)
        mask.putpalette([value for color in self.labels.colors for value in color])
        paths = self.paths(folder, name)
        overlay = self.overlay(legend=bool(features.check("freetype2")))  # a Pillow without it has no scalable font
        for path, picture in zip(paths, (mask, overlay), strict=True):
            with atomic(path) as part:
                picture.save(part)
        return paths

    @staticmethod
    def paths(folder: str | Path, name: str) -> tuple[Path, Path]:
        """The files that `save` writes."""
        return Path(folder) / f"{name}_mask.png", Path(folder) / f"{name}_overlay.png"

    def to_json(self) -> str:
        """Size, classes and speed as JSON, without the mask."""
        return json.dumps(summary(self.mask.shape, self.classes, self.speed))


def class_shares(counts: NDArray[np.integer], labels: Labels) -> list[ClassShare]:
    """Classes that occur, the largest first, from the number of pixels of each id; other ids count for the whole."""
    named = counts[: len(labels.names)]
    ids = [int(i) for i in np.argsort(-named, kind="stable") if named[i]]
    return [ClassShare(i, labels.names[i], float(counts[i] / counts.sum())) for i in ids]


def summary(size: tuple[int, ...], classes: Sequence[ClassShare], speed: Mapping[str, float]) -> dict[str, Any]:
    """What ``predictions.json`` says of an image, in plain JSON types."""
    height, width = size
    shares = [{"id": c.id, "name": c.name, "share": round(c.share, 6)} for c in classes]
    times = {key: round(value, 3) for key, value in speed.items()}
    return {"height": height, "width": width, "classes": shares, "speed_ms": times}


class Segmenter:
    """An exported SegFormer, ready to run.

    Args:
        path: a ``.tflite`` made by ``segformer export``, or another one, which needs `labels` and may need the rest.
        runtime: "litert", "tflite-runtime" or "litert-gpu"; None takes the preferred one on the CPU that is installed.
        threads: CPU threads; None takes all cores, four at most.
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

    def __call__(self, image: ImageLike, *, slide: bool | int = False, scale: float = 1.0) -> Result:
        """Segment one image. Threads may share the segmenter; the network runs one image at a time.

        Args:
            image: a path, a PIL image, the bytes of an image file or a file object, or (H, W, 3) uint8 **RGB**. OpenCV
                gives BGR: pass ``image[..., ::-1]``.
            slide: instead of stretching the image to the model's size, cut it into windows of that size and take the
                mean of their logits: the stride in pixels, or True for three quarters of the shorter side.
            scale: with `slide`, factor on the image before it is cut, for objects larger or smaller than in training.

        Raises:
            InputError: an image that cannot be read, class ids beyond the labels, or a stride or scale out of range.
        """
        if slide is False:
            if scale != 1.0:
                raise InputError(f"scale is for slide=True. Received: {scale:g}")
            pixels, mask, speed = segment(self._model, image, bits=self.bits)
        else:
            clock = StageClock()
            pixels = clock.timed("load", load_image)(image, bits=self.bits)
            mask = slide_segment(self._model, pixels, stride=stride_of(slide), scale=scale, clock=clock)
            speed = clock.spent
        if (largest := int(mask.max())) >= len(self.labels.names):
            raise InputError(f"the file gives class id {largest}. Received: names of 0..{len(self.labels.names) - 1}")
        return Result(pixels, mask, self.labels, speed)

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
    model: TFLiteModel | IsolatedModel, image: ImageLike, *, bits: int | None = None
) -> tuple[Pixels, NDArray[np.uint8], dict[str, float]]:
    """`image`, `mask` and `speed` of a `Result`, without labels; raises InputError for an unreadable image."""
    clock = [perf_counter()]
    pixels = load_image(image, bits=bits or model.bits)
    clock.append(perf_counter())
    fitted = fit_image(pixels, model.size)
    clock.append(perf_counter())
    answer, _ = model.answer(fitted)
    clock.append(perf_counter())
    mask = answer_to_mask(answer, (pixels.shape[0], pixels.shape[1]))
    clock.append(perf_counter())
    return pixels, mask, dict(zip(STAGES, (np.diff(clock) * 1e3).tolist(), strict=True))


def _tuple(values: float | Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in np.atleast_1d(values))
