"""Runs an exported file on its target runtimes and compares it with Keras.

Every runtime gets a process of its own: some files crash a runtime, which must not end the export. Error is
`segformer_tf.metrics.relative_error` over all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.quantize.recipes import Recipe
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.runtime import GPU, runtime_version
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels
from segformer_tf.mask import logits_to_mask
from segformer_tf.metrics import relative_error
from segformer_tf.model import SegFormer

_GPU_IMAGES = 2  # SwiftShader takes seconds for each
_MAP_TOLERANCE = 1e-3  # of the pixels of all images


class WrongClassMap(InputError):
    """A file's class map is not what its logits say."""


@dataclass(frozen=True)
class Verdict:
    """How a file's logits compare with Keras' on one runtime.

    Attributes:
        runtime: name and version, and the GPU where there is one.
        error: relative error.
        max_error: largest difference of a logit, over max(1, largest logit).
        agreement: share of grid pixels with the same arg-max, 0..1.
    """

    runtime: str
    error: float
    max_error: float
    agreement: float


def verify_file(
    path: Path, model: SegFormer, images: Sequence[Pixels], *, recipe: Recipe, runtimes: Sequence[str]
) -> list[Verdict]:
    """Compare the file at `path` with `model` on `images`.

    Raises:
        InputError: no runtime, one that cannot run the file, or one whose error exceeds the recipe's tolerance.
    """
    if not runtimes:
        raise InputError("no TFLite runtime is installed to verify on; pip install 'segformer_tf[convert]'")
    expected = np.concatenate([model.logits(image[None]) for image in images])
    verdicts = []
    for runtime in runtimes:
        logits = run_on(path, images[:_GPU_IMAGES] if runtime == GPU else images, runtime=runtime)
        name = f"{runtime} {runtime_version(runtime)}"
        verdicts.append(judge(logits, expected[: len(logits)], recipe=recipe, name=name))
    return verdicts


def judge(logits: NDArray[np.float32], expected: NDArray[np.float32], *, recipe: Recipe, name: str) -> Verdict:
    """`compare`; raises InputError if the error exceeds the recipe's tolerance."""
    verdict = compare(logits, expected, name=name)
    if not verdict.error <= recipe.tolerance:  # a nan is not
        raise InputError(
            f"{name} gets recipe {recipe.name} wrong: relative error {verdict.error:.3g}, "
            f"expected at most {recipe.tolerance:g}"
        )
    return verdict


def compare(logits: NDArray[np.float32], expected: NDArray[np.float32], *, name: str) -> Verdict:
    """The verdict on `logits` against `expected`, both (B, h, w, C)."""
    if logits.shape != expected.shape:
        raise InputError(f"{name} gives logits {logits.shape}, Keras {expected.shape}")
    return Verdict(
        runtime=name,
        error=relative_error(logits, expected),
        max_error=float(np.abs(logits - expected).max() / max(1.0, float(np.abs(expected).max()))),
        agreement=float((logits.argmax(-1) == expected.argmax(-1)).mean()),
    )


def run_on(path: Path, images: Sequence[Pixels], *, runtime: str) -> NDArray[np.float32]:
    """Logits of a file on a runtime, (B, h, w, C), computed in a process of its own.

    Raises:
        InputError: the runtime refuses the file, crashes on it or hangs.
    """
    with IsolatedModel(path, runtime=runtime) as model:
        return logits_of(model, images, runtime=runtime)


def logits_of(model: IsolatedModel, images: Sequence[Pixels], *, runtime: str) -> NDArray[np.float32]:
    """Logits of a file that is open on a runtime, (B, h, w, C); a class map in it must be the one that they give.

    Raises:
        InputError: the runtime crashes or hangs.
        WrongClassMap: it gets the class map wrong.
    """
    logits, differ = [], []
    for image in images:
        logits.append(model.logits(image))
        if model.class_map is not None:
            differ.append(model.class_map != logits_to_mask(logits[-1], model.size))
    if differ and (share := float(np.mean(differ))) > _MAP_TOLERANCE:
        raise WrongClassMap(
            f"{runtime} gets the class map wrong: {share:.2%} of the pixels are not what its logits say"
        )
    return np.stack(logits)
