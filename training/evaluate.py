"""`segformer evaluate`: a confusion matrix over a split, at each mask's own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from training.data.match_names import Match, match_names
from training.data.open import Source
from training.protocols import EvalProtocol, Logits, Network, predict_mask

_LOOKED_AT = 16  # files of a split, for how bright they are


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one split, 0..1; nan for a class that never occurs."""

    labels: Labels
    images: int
    matrix: NDArray[np.int64]

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
        }


@dataclass(frozen=True)
class Predictor:
    """Image -> mask: (H, W, 3) uint8 to (H, W) uint8 class ids.

    Attributes:
        network: the model.
        protocol: how it is used, with the size that was found where none was given.
        license: terms of the weights, or "".
        match: how the model's classes are read as the data's.
        bits: as `load_image` takes them for this model.
        said: how a ``.tflite`` from elsewhere is used, or "".
    """

    network: Network
    protocol: EvalProtocol
    license: str
    match: Match
    bits: int | None = None
    said: str = ""

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
    """A predictor by a ``.tflite`` (in a process of its own), a ``.keras`` file or a run folder.

    Args:
        model: path.
        runtime: for a ``.tflite``.
        labels: classes of the data.
        protocol: how images are seen; None stretches them whole to the model's size.
        contract: what a ``.tflite`` from elsewhere does not say of itself, but for its size: that is the protocol's.

    Raises:
        InputError: a model that cannot be read or has other classes, a protocol that makes no sense or does not suit
            it, or a contract for a model that is not from elsewhere; from a prediction, logits that are no finite
            numbers.
    """
    protocol, contract = protocol or EvalProtocol(), contract or Contract()
    contract.check_use(model.suffix == ".tflite")
    protocol.check()
    if model.suffix == ".tflite":
        described = find_model_info(model)
        if described is None:  # it may take any size
            seen = (protocol.slide[0], protocol.slide[0]) if protocol.slide else protocol.size
            contract = replace(contract, size=seen)
            protocol = protocol if protocol.slide else replace(protocol, size=None)
        with IsolatedModel(model, runtime=runtime, contract=contract) as worker:
            match = _match(model, described.labels if described else None, labels, worker.grid[2])
            protocol = _for_one_size(protocol, worker.size, model)
            terms, bits = (described.license, described.bits) if described else ("", None)
            # A window at the rim of a small image is smaller than the model.
            network = _finite(lambda pixels: worker.logits(fit_image(pixels, worker.size)), model)
            yield Predictor(network, protocol, terms, match, bits, worker.note)
        return

    from segformer_tf.checkpoint import load_segformer, run_size
    from segformer_tf.model import check_image_shape

    if protocol.size:
        check_image_shape((None, *protocol.size, 3), "--size")
    loaded = load_segformer(model)
    match = _match(model, loaded.config.labels, labels, loaded.config.num_classes)
    if not (protocol.size or protocol.resize or protocol.slide):
        protocol = replace(protocol, size=run_size(model))
    # Keras traces twice, for the first size and for any other: many sizes are no more work.
    network = _finite(lambda pixels: loaded.logits(pixels[None])[0], model)
    yield Predictor(network, protocol, loaded.config.license, match, loaded.config.image_bits)


def _for_one_size(protocol: EvalProtocol, size: tuple[int, int], model: Path) -> EvalProtocol:
    """The protocol with a ``.tflite``'s size in it; raises InputError where it asks for another."""
    height, width = size
    if protocol.slide:
        if (protocol.slide[0],) * 2 != size:
            raise InputError(
                f"--slide: the crop must be {model}'s size, {height}x{width}. Received: {protocol.slide[0]}"
            )
        return protocol
    default = EvalProtocol()
    for name in ("size", "resize", "align", "scales"):
        if getattr(protocol, name) != getattr(default, name):
            raise InputError(
                f"--{name}: {model} sees {height}x{width} pixels, no other size; --slide cuts such windows"
            )
    return replace(protocol, size=size)


def evaluate(predict: Callable[[Pixels], NDArray[np.uint8]], source: Source, *, indices: Iterable[int]) -> Scores:
    """Score `predict` on the samples of `source` named by `indices` (a progress bar may feed them).

    Raises:
        InputError: a mask of another size than its image, or ids outside the classes.
    """
    count = len(source.labels.names)
    matrix, images = np.zeros((count, count), np.int64), 0
    for i in indices:
        image, truth = source[i]
        try:
            matrix += confusion_matrix(truth, predict(image), num_classes=count)
        except (InputError, ValueError) as error:
            raise InputError(f"{source.name}, sample {i}: {error}") from None
        images += 1
    return Scores(source.labels, images, matrix)


def read_as_the_model_does(source: Source, bits: int | None) -> str | None:
    """Have a split read as a model is used to, else as its manifest says; a line where that may surprise."""
    said = source.bits
    if bits is None and said:
        return (
            f"the data has {said} bits by its manifest, the model says none: files of more than 8 are read so; "
            f"on a device give predict --bits {said}"
        )
    source.bits = bits
    if bits is None:
        return _seems_dark(source)
    if said is None or said == bits:
        return None
    return f"the data is said to have {said} bits, the model takes {bits} of files of more than 8, and so do its scores"


def _seems_dark(source: Source) -> str | None:
    """A line where files of 16 bits seem to use fewer: read as 16, they are nearly black."""
    files = [path for path in getattr(source, "images", ()) if path.suffix.lower() in DEEP_SUFFIXES]
    few = [path for path in files[:: max(1, len(files) // _LOOKED_AT)] if is_deep_file(path)]
    if not few or (largest := max(map(largest_value_of, few))) >= 1 << 14:
        return None
    return (
        f"{few[0]} and others: their values reach {largest}, of 65535 that 16 bits hold, and the model does not say "
        f'how many bits it takes; if they are of {largest.bit_length()} bits or so, write "bits" into dataset.json'
    )


def _match(model: Path, ours: Labels | None, theirs: Labels, count: int) -> Match:
    try:
        return match_names(ours, theirs, count=count)
    except InputError as error:
        raise InputError(f"{model} {error}") from None


def _finite(network: Network, model: Path) -> Network:
    """`network`, but logits that hold inf or nan, whose arg-max would be a class, are refused."""

    def checked(pixels: Pixels) -> Logits:
        logits = network(pixels)
        if not np.isfinite(logits).all():
            raise InputError(f"{model} gives logits that are no finite numbers")
        return logits

    return checked
