"""`Segmenter`: from a ``.tflite`` and an image to a mask of the image's own size."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from segformer_tf.config import check_bits
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.metadata import find_model_info, read_model_info
from segformer_tf.edge.runtime import GPU
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.model import TFLiteModel, answer_to_mask
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import ImageLike, Pixels, fit_image, load_image
from segformer_tf.labels import Labels
from segformer_tf.overlay import class_ids, overlay, with_legend

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
        counts = np.bincount(self.mask.ravel(), minlength=len(self.labels.names))
        ids = class_ids(self.mask)
        return [ClassShare(i, self.labels.names[i], float(counts[i] / self.mask.size)) for i in ids]

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
        height, width = self.mask.shape
        classes = [{"id": c.id, "name": c.name, "share": round(c.share, 6)} for c in self.classes]
        speed = {key: round(value, 3) for key, value in self.speed.items()}
        return json.dumps({"height": height, "width": width, "classes": classes, "speed_ms": speed})


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
        self.logits = self._model.logits

    def __call__(self, image: ImageLike) -> Result:
        """Segment one image. Threads may share the segmenter; the network runs one image at a time.

        Args:
            image: a path, a PIL image, the bytes of an image file or a file object, or (H, W, 3) uint8 **RGB**. OpenCV
                gives BGR: pass ``image[..., ::-1]``.

        Raises:
            InputError: an image that cannot be read, or class ids beyond the labels.
        """
        pixels, mask, speed = segment(self._model, image, bits=self.bits)
        if (largest := int(mask.max())) >= len(self.labels.names):
            raise InputError(f"the file gives class id {largest}. Received: names of 0..{len(self.labels.names) - 1}")
        return Result(pixels, mask, self.labels, speed)


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
