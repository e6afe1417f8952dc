"""`segformer evaluate`: a confusion matrix over a split, at each mask's own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.config import check_image_shape
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.metadata import find_model_info
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.errors import InputError
from segformer_tf.image import DEEP_SUFFIXES, Pixels, fit_image, is_deep_file, largest_value_of
from segformer_tf.labels import Labels
from segformer_tf.metrics import (
    confusion_matrix,
    mean_accuracy,
    mean_iou,
    per_class_accuracy,
    per_class_iou,
    pixel_accuracy,
)
from segformer_tf.sampling import evenly_spaced
from training.data.match_names import Match, match_names
from training.data.open import Source, sample_name
from training.protocols import EvalProtocol, Logits, Network, predict_mask

_LOOKED_AT = 16  # files of a split, for their largest value


@dataclass(frozen=True)
class ImageScore:
    """Scores of one model on one image, 0..1.

    Attributes:
        index: of the sample in its split.
        name: of the file, or of the sample.
        per_class: (C,) IoU; nan for a class that is in neither truth nor prediction.
        mean_iou: over the others; nan where all pixels are ignored.
    """

    index: int
    name: str
    per_class: NDArray[np.float64]
    mean_iou: float


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one split, 0..1; nan for a class that never occurs."""

    labels: Labels
    images: int
    matrix: NDArray[np.int64]
    per_image: tuple[ImageScore, ...] = ()

    @property
    def mean_iou(self) -> float:
        return mean_iou(self.matrix)

    @property
    def mean_accuracy(self) -> float:
        return mean_accuracy(self.matrix)

    @property
    def pixel_accuracy(self) -> float:
        return pixel_accuracy(self.matrix)

    @property
    def per_class(self) -> dict[str, float]:
        return dict(zip(self.labels.names, per_class_iou(self.matrix).tolist(), strict=True))

    @property
    def per_class_accuracy(self) -> dict[str, float]:
        return dict(zip(self.labels.names, per_class_accuracy(self.matrix).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; nan becomes None."""

        def plain(value: float) -> float | None:
            return None if np.isnan(value) else round(value, 6)

        return {
            "images": self.images,
            "mean_iou": plain(self.mean_iou),
            "mean_accuracy": plain(self.mean_accuracy),
            "pixel_accuracy": plain(self.pixel_accuracy),
            "per_class": {name: plain(iou) for name, iou in self.per_class.items()},
            "per_class_accuracy": {name: plain(share) for name, share in self.per_class_accuracy.items()},
            "per_image": [
                {
                    "image": image.name,
                    "mean_iou": plain(image.mean_iou),
                    "per_class": {
                        name: plain(iou)
                        for name, iou in zip(self.labels.names, image.per_class.tolist(), strict=True)
                        if not np.isnan(iou)
                    },
                }
                for image in self.per_image
            ],
        }


@dataclass(frozen=True)
class Predictor:
    """Image -> mask: (H, W, 3) uint8 to (H, W) uint8 class ids.

    Attributes:
        network: the model.
        protocol: the views, with the size that the model decides.
        license: of the weights, or "".
        match: the data's class for each class of the model.
        bits: the argument of `load_image` for this model.
        note: for a ``.tflite`` of another origin, how its tensors are read; else "".
    """

    network: Network
    protocol: EvalProtocol
    license: str
    match: Match
    bits: int | None = None
    note: str = ""

    def __call__(self, image: Pixels) -> NDArray[np.uint8]:
        mask = predict_mask(self.network, image, self.protocol)
        return mask if self.match.order is None else self.match.order[mask]


@contextmanager
def open_predictor(
    model: Path,
    *,
    runtime: str | None,
    labels: Labels,
    protocol: EvalProtocol | None = None,
    contract: Contract | None = None,
) -> Iterator[Predictor]:
    """A predictor from a ``.tflite`` (in a process of its own), a ``.keras`` file or a run folder.

    Args:
        model: path.
        runtime: for a ``.tflite``.
        labels: classes of the data.
        protocol: the views of an image; None stretches images to the model's size.
        contract: what a ``.tflite`` of another origin does not say of itself; its size comes from the protocol.

    Raises:
        InputError: a model that cannot be read or has other classes, a protocol that makes no sense or does not suit
            it, or a contract for a model of this project; from a prediction, logits that are no finite numbers.
    """
    protocol, contract = protocol or EvalProtocol(), contract or Contract()
    contract.check_use(model.suffix == ".tflite")
    protocol.check()
    if model.suffix == ".tflite":
        info = find_model_info(model)
        if info is None:  # it may take any size
            size = protocol.window if protocol.slide else protocol.size
            contract = replace(contract, size=size)
            protocol = protocol if protocol.slide else replace(protocol, size=None)
        with IsolatedModel(model, runtime=runtime, contract=contract) as worker:
            match = _match(model, info.labels if info else None, labels, worker.grid[2])
            protocol = protocol.resolved(worker.size, fixed=str(model))
            license, bits = (info.license, info.bits) if info else ("", None)
            # A window of an image that is smaller than the model's size is smaller too.
            network = _finite(lambda pixels: worker.logits(fit_image(pixels, worker.size)), model)
            yield Predictor(network, protocol, license, match, bits, worker.note)
        return

    from segformer_tf.keras_file import load_segformer, run_size

    if protocol.size:
        check_image_shape((None, *protocol.size, 3), "--size")
    loaded = load_segformer(model)
    match = _match(model, loaded.config.labels, labels, loaded.config.num_classes)
    protocol = protocol.resolved(run_size(model))
    # Keras traces twice, for the first size and for any other, so many sizes cost no more.
    network = _finite(lambda pixels: loaded.logits(pixels[None])[0], model)
    yield Predictor(network, protocol, loaded.config.license, match, loaded.config.image_bits)


def evaluate(predict: Callable[[Pixels], NDArray[np.uint8]], source: Source, *, indices: Iterable[int]) -> Scores:
    """Score `predict` on the samples of `source` with the numbers `indices`, which may be wrapped in a progress bar.

    Raises:
        InputError: a mask of another size than its image, or ids outside the classes.
    """
    scoring = Scoring(source)
    for i in indices:
        image, truth = source[i]
        with scoring.sample(i):
            scoring.add(i, truth, predict(image))
    return scoring.scores()


class Scoring:
    """Adds up the scores of one model on the samples of `source`, one at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        count = len(source.labels.names)
        self._matrix, self._images = np.zeros((count, count), np.int64), list[ImageScore]()

    @contextmanager
    def sample(self, index: int) -> Iterator[None]:
        """Names the sample in errors that end the block; raises InputError."""
        try:
            yield
        except (InputError, ValueError) as error:
            raise InputError(f"{self._source.name}, sample {index}: {error}") from None

    def add(self, index: int, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count the pixels of a sample; raises ValueError for masks of two shapes, or ids outside the classes."""
        own = confusion_matrix(truth, prediction, num_classes=len(self._matrix))
        self._matrix += own
        self._images.append(ImageScore(index, sample_name(self._source, index), per_class_iou(own), mean_iou(own)))

    def scores(self) -> Scores:
        """Of the samples until now."""
        return Scores(self._source.labels, len(self._images), self._matrix, tuple(self._images))


def set_bits(source: Source, bits: int | None) -> str | None:
    """Set the bits of `source` to the model's, or leave them at the manifest's; a line where that may surprise."""
    manifest = source.bits
    if bits is None and manifest:
        return (
            f"the data has {manifest} bits by its manifest, the model says none: files of more than 8 are read so; "
            f"on a device give predict --bits {manifest}"
        )
    source.bits = bits
    if bits is None:
        return _seems_dark(source)
    if manifest in (None, bits):
        return None
    return f"the data is said to have {manifest} bits, the model takes {bits}; it is scored with those of the model"


def _seems_dark(source: Source) -> str | None:
    """A line if files of 16 bits seem to use fewer, for as 16 bits they would be nearly black."""
    files = [path for path in getattr(source, "images", ()) if path.suffix.lower() in DEEP_SUFFIXES]
    few = [path for path in evenly_spaced(files, _LOOKED_AT) if is_deep_file(path)]
    if not few or (largest := max(map(largest_value_of, few))) >= 1 << 14:
        return None
    return (
        f"{few[0]} and others: their values reach {largest}, of 65535 that 16 bits hold, and the model does not say "
        f'how many bits it takes; if they are of {largest.bit_length()} bits or so, write "bits" into dataset.json'
    )


def _match(model: Path, model_labels: Labels | None, data_labels: Labels, count: int) -> Match:
    try:
        return match_names(model_labels, data_labels, count=count)
    except InputError as error:
        raise InputError(f"{model} {error}") from None


def _finite(network: Network, model: Path) -> Network:
    """`network`, which now raises InputError for logits with inf or nan, as their arg-max would be a class."""

    def checked(pixels: Pixels) -> Logits:
        logits = network(pixels)
        if not np.isfinite(logits).all():
            raise InputError(f"{model} gives logits that are no finite numbers")
        return logits

    return checked
