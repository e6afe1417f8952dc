"""`Segmenter`: a ``.tflite`` and an image in, a mask of the image's own size out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
from segformer_tf.overlay import overlay

STAGES = ("load", "resize", "invoke", "mask")


@dataclass(frozen=True)
class ClassShare:
    """A class that occurs in a mask: its id, its name, and its share of the pixels, 0..1."""

    id: int
    name: str
    share: float


@dataclass(frozen=True)
class Result:
    """What was seen in one image.

    Attributes:
        image: (H, W, 3) uint8 RGB, as it was read.
        mask: (H, W) uint8 class ids, at the image's own size.
        labels: names and colours of the ids.
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
        order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
        return [ClassShare(i, self.labels.names[i], float(counts[i] / self.mask.size)) for i in order]

    def overlay(self, alpha: float = 0.55) -> Image.Image:
        """The mask's colours over the image; `alpha` is the colours' share, 0..1."""
        return Image.fromarray(overlay(self.image, self.mask, self.labels, alpha=alpha))

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME_mask.png`` (palette PNG, index = class id) and ``NAME_overlay.png``; give both paths.

        Raises:
            InputError: the folder cannot be written.
        """
        mask = Image.fromarray(self.mask)
        mask.putpalette([value for color in self.labels.colors for value in color])
        paths = self.paths(folder, name)
        for path, picture in zip(paths, (mask, self.overlay()), strict=True):
            with atomic(path) as part:
                picture.save(part)
        return paths

    @staticmethod
    def paths(folder: str | Path, name: str) -> tuple[Path, Path]:
        """What `save` writes."""
        return Path(folder) / f"{name}_mask.png", Path(folder) / f"{name}_overlay.png"

    def to_json(self) -> str:
        """Size, classes and speed as JSON; the mask is a picture's work."""
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
        labels: names and colours of the classes; None takes those in the file. Of a file of one channel: one name, or
            background's and its own.
        size: (height, width), for a file that takes images of any size.
        mean: of one value or three (R, G, B), for a file from elsewhere: it sees ``(x - mean) / std`` of x in 0..255.
        std: likewise.
        foreground_above: for a file of one channel, the value above which a pixel is foreground: 0 of logits, 0.5 of
            probabilities. None: as the operation says that it ends in.
        bits: as `load_image` takes them, where the model does not say.

    Attributes:
        labels: class names and colours.
        recipe: how the file was quantised, or "unknown".
        size: (height, width) of the model's input.
        license: terms of the weights, or "".
        bits: as `load_image` takes them for this model.
        said: the GPU that is used, and how a file from elsewhere is; "" of our own on a CPU.

    Raises:
        InputError: no such file, a damaged one, no labels, no runtime, a runtime that refuses the file, or a file from
            elsewhere that needs more said, or says other things.

    Example:
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
        contract = Contract(size=size, mean=_each(mean), std=_each(std), foreground_above=foreground_above)
        described = find_model_info(path) if labels else read_model_info(path)
        if labels is None:
            assert described is not None  # `read_model_info` gives one
            labels = described.labels
        self.license = described.license if described else ""
        self._model: TFLiteModel | IsolatedModel
        if runtime == GPU:
            self._model = IsolatedModel(path, runtime=runtime, contract=contract)
        else:
            self._model = TFLiteModel(path, runtime=runtime, threads=threads, info=described, contract=contract)
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
        self.said = self._model.said
        self.logits = self._model.logits

    def __call__(self, image: ImageLike) -> Result:
        """Segment one image; threads may share the segmenter, the network takes their images in turn.

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
    """What `Segmenter` does with an image, for a file that may have no labels: `image`, `mask` and `speed` of `Result`.

    Raises:
        InputError: an image that cannot be read.
    """
    clock = [perf_counter()]
    pixels = load_image(image, bits=bits or model.bits)
    clock.append(perf_counter())
    fitted = fit_image(pixels, model.size)
    clock.append(perf_counter())
    answer = model.answer(fitted)
    clock.append(perf_counter())
    mask = answer_to_mask(answer, (pixels.shape[0], pixels.shape[1]))
    clock.append(perf_counter())
    return pixels, mask, dict(zip(STAGES, (np.diff(clock) * 1e3).tolist(), strict=True))


def _each(values: float | Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in np.atleast_1d(values))
