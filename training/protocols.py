"""How an image becomes a mask when a model is scored: whole, aligned, by sliding windows, at several scales, mirrored.

No TensorFlow here. Sizes are (height, width); sizes, windows and averages are those of the authors' evaluation (an
early mmsegmentation: ``AlignedResize``, ``slide_inference``, ``aug_test``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from segformer_tf.config import MIN_IMAGE_SIDE
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, fit_image
from segformer_tf.mask import logits_to_mask, resized_rows
from segformer_tf.resample import Resized
from segformer_tf.slide import BLOCK, Logits, Network, SlidingLogits, mask_blocks, scaled_size

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """Options of `segformer evaluate` that decide on pixels."""

    size: Size | None = None
    """Height and width that images are stretched to. Default: a .tflite's own, what a run validated at, else (and with
    --slide) each image's own."""

    resize: tuple[int, int] | None = None
    """Instead of --size: the largest long and short side; images keep their ratio and fill one of the two."""

    align: int = 1
    """Stretch both sides up to the next multiple of this."""

    slide: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True)] = None
    """Crop and stride of square sliding windows, whose logits are averaged; or height, width and stride. Default: the
    whole image at once."""

    scales: Annotated[tuple[float, ...], Parameter(consume_multiple=True, show_default=False)] = (1.0,)
    """Factors on the size above. Default: 1. With several, or with --flip, the mean softmax at the image's own size
    decides."""

    flip: bool = False
    """Mirror each image too."""

    protocol: Literal["contract", "paper"] = "contract"
    """contract: as on the device, images are resized once, antialiased, and logits once, to the mask's size. paper: as
    the authors do, images are resized without antialiasing, once more to be aligned, and logits first to the size of
    the network's input, then to the mask's."""

    def check(self) -> None:
        """Raises InputError for values out of range, and for options that exclude each other."""
        if self.size and self.resize:
            raise InputError("--size stretches images, --resize keeps their ratio; expected one of them")
        for name, value in (("--resize", self.resize), ("--align", (self.align,))):
            if value and min(value) < 1:
                raise InputError(f"{name} must be positive. Received: {_text(value)}")
        if self.slide is not None:
            if len(self.slide) not in (2, 3):
                raise InputError(
                    "--slide: expected a crop and a stride, or height, width and stride. "
                    f"Received: {_text(self.slide) or 'none'}"
                )
            if not (min(self.window) >= MIN_IMAGE_SIDE and 1 <= self.slide[-1] <= min(self.window)):
                raise InputError(
                    f"--slide must be a crop of at least {MIN_IMAGE_SIDE} pixels and a stride from 1 to the crop. "
                    f"Received: {_text(self.slide)}"
                )
        if not self.scales or not all(0 < scale < inf for scale in self.scales):
            raise InputError(f"--scales must be positive factors. Received: {_text(self.scales) or 'none'}")

    @property
    def window(self) -> Size:
        """(height, width) of sliding windows."""
        assert self.slide
        return self.slide[0], self.slide[-2]

    def resolved(self, size: Size | None, *, fixed: str = "") -> EvalProtocol:
        """The final options for one model.

        Args:
            size: of the model's images; None for any.
            fixed: name of the model, if it takes no other size.

        Raises:
            InputError: options that need other sizes than the fixed one.
        """
        if not fixed or size is None:
            return self if self.size or self.resize or self.slide else replace(self, size=size)
        height, width = size
        if self.slide:
            if self.window != size:
                raise InputError(
                    f"--slide: the crop must be {fixed}'s size, {height}x{width}: --slide {height} {width} STRIDE. "
                    f"Received: {_text(self.slide)}"
                )
            return self
        default = EvalProtocol()
        for name in ("size", "resize", "align", "scales"):
            if getattr(self, name) != getattr(default, name):
                raise InputError(
                    f"--{name}: {fixed} sees {height}x{width} pixels, no other size; --slide cuts such windows"
                )
        return replace(self, size=size)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def __str__(self) -> str:
        """The options that are not the default, as on a command line."""
        default = EvalProtocol()
        changed = {name: v for name, v in asdict(self).items() if v != getattr(default, name)}
        return " ".join(f"--{name}" if v is True else f"--{name} {_text(v)}" for name, v in changed.items())


def _text(value: Any) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def rescale_size(size: Size, limits: tuple[int, int]) -> Size:
    """The largest size of the same ratio whose long side is at most max(limits), its short one min(limits).

    Reference: mmcv ``rescale_size``, whose rounding it keeps: int(side * factor + 0.5).
    """
    factor = min(max(limits) / max(size), min(limits) / min(size))
    return scaled_size(size, factor)


def aligned_size(size: Size, divisor: int) -> Size:
    """Both sides up to a multiple of `divisor`."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def view_size(size: Size, protocol: EvalProtocol, scale: float) -> Size:
    """The size that an image of `size` is resized to, before it is aligned."""
    if protocol.resize:
        long, short = (max(1, int(limit * scale)) for limit in protocol.resize)
        return rescale_size(size, (long, short))
    return scaled_size(protocol.size or size, scale)


def plain_resize(image: Pixels, size: Size) -> Pixels:
    """Bilinear without antialiasing, as OpenCV's default and as training's: (H, W, 3) uint8 to (*size, 3)."""
    return np.rint(upsample(image.astype(np.float32), size)).astype(np.uint8) if size != _size(image) else image


def _fitted(image: Pixels, protocol: EvalProtocol, scale: float) -> Pixels:
    size = view_size(_size(image), protocol, scale)
    aligned = aligned_size(size, protocol.align)
    if protocol.protocol == "paper":
        return plain_resize(plain_resize(image, size), aligned)
    if protocol.slide:  # as a picture is resized that is not in memory
        return Resized(lambda *part: image[part], _size(image), aligned)(slice(0, aligned[0]), slice(0, aligned[1]))
    return fit_image(image, aligned)


def slide_logits(network: Network, image: Pixels, *, window: Size, stride: int) -> Logits:
    """The blended logits of `SlidingLogits` for a whole image, in 4·C bytes per pixel.

    Args:
        network: takes one window.
        image: (H, W, 3) uint8.
        window: (height, width) of the windows.
        stride: from one to the next.

    Returns:
        (H, W, C) float32.
    """
    blended = _sliding(network, image, window, stride)
    height, width = blended.size
    total = np.empty((height, width, blended.classes), np.float32)
    for top in range(0, height, BLOCK):
        rows = slice(top, min(top + BLOCK, height))
        total[rows] = blended.part(rows, slice(0, width))
    return total


def _sliding(network: Network, image: Pixels, window: Size, stride: int) -> SlidingLogits:
    return SlidingLogits(network, lambda *part: image[part], size=_size(image), window=window, stride=stride)


def upsample(logits: Logits, size: Size) -> Logits:
    """(h, w, C) to (*size, C), half-pixel bilinear."""
    out = np.empty((*size, logits.shape[2]), np.float32)
    for rows, block in resized_rows(logits, size):
        out[rows] = block
    return out


def views(network: Network, image: Pixels, protocol: EvalProtocol) -> Iterator[Logits]:
    """Logits of each scale, plain and then mirrored (and mirrored back), one at a time.

    Yields:
        (h, w, C) float32 over the whole image: on the network's own grid by the contract, else at `view_size`.
    """
    for scale in protocol.scales:
        fitted = _fitted(image, protocol, scale)
        yield _view(network, fitted, protocol)
        if protocol.flip:
            yield _view(network, fitted[:, ::-1], protocol)[:, ::-1]


def _view(network: Network, fitted: Pixels, protocol: EvalProtocol) -> Logits:
    if protocol.slide:
        return slide_logits(network, fitted, window=protocol.window, stride=protocol.slide[-1])
    logits = network(fitted)
    return upsample(logits, _size(fitted)) if protocol.protocol == "paper" else logits


def predict_mask(network: Network, image: Pixels, protocol: EvalProtocol) -> NDArray[np.uint8]:
    """The mask of an image, at its own size.

    With one view the arg-max of its logits, in no more memory than the mask. With several the arg-max of their mean
    softmax, in 4·C bytes per pixel of the image and one view's logits.

    Args:
        network: takes an image or a window.
        image: (H, W, 3) uint8.
        protocol: the views.

    Returns:
        (H, W) uint8 class ids.

    Raises:
        InputError: from `network`.
    """
    size = _size(image)
    if len(protocol.scales) == 1 and not protocol.flip:
        if protocol.slide:
            fitted = _fitted(image, protocol, protocol.scales[0])
            mask = np.empty(size, np.uint8)
            for rows, columns, ids in mask_blocks(_sliding(network, fitted, protocol.window, protocol.slide[-1]), size):
                mask[rows, columns] = ids
            return mask
        return logits_to_mask(next(views(network, image, protocol)), size)
    total = np.zeros((*size, 0), np.float32)  # the first view gives the number of classes
    for logits in views(network, image, protocol):
        if not total.size:
            total = np.zeros((*size, logits.shape[2]), np.float32)
        for rows, block in resized_rows(logits, size):
            total[rows] += _softmax(block)
        del logits  # before the next view is made
    return total.argmax(-1).astype(np.uint8)


def _softmax(logits: Logits) -> Logits:
    """Over the last axis, in place."""
    logits -= logits.max(-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    return logits


def _size(image: Pixels) -> Size:
    return image.shape[0], image.shape[1]
