"""`segformer verify`: how far a Keras model and a checkpoint are apart, weight by weight and step by step.

Every step of the Keras model gets the input of the checkpoint's own step, so that an error shows in the step that
causes it; logits and mask are compared from end to end as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from convert.compare.torch_network import Step, trace
from convert.exported import compare
from segformer_tf.checkpoints.importer import Checkpoint, torch_weights
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import Pixels
from segformer_tf.labels import Labels
from segformer_tf.mask import logits_to_mask
from segformer_tf.model import SegFormer
from segformer_tf.overlay import overlay

STEP_TOLERANCE = 1e-5  # relative error of one step in float32
LOGITS_TOLERANCE = 1e-4  # of logits from end to end
NORMALIZATION_TOLERANCE = 1e-4  # of mean and standard deviation, 0..255; files round them


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: "weights", "epsilons", "normalization", a step as `convert.compare.torch_network.Step` names it,
            "all: logits", or "all: mask".
        max_abs: largest difference; of a mask the share of pixels that differ.
        relative: Euclidean norm of the difference over the checkpoint's; of logits end to end both centered over
            classes, see `segformer_tf.metrics.relative_error`; of a mask the share again.
        tolerance: largest `relative` that passes.
    """

    name: str
    max_abs: float
    relative: float
    tolerance: float

    @property
    def passes(self) -> bool:
        return self.relative <= self.tolerance  # a nan does not


@dataclass(frozen=True)
class Report:
    """The result of a comparison.

    Attributes:
        rows: in the order of the network.
        weights: variables that differ, and by how much at most.
        masks: of both sides, one pair per image.
        notes: what differs by intent, in words.
    """

    rows: list[Row]
    weights: list[tuple[str, float]]
    masks: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; nan and infinities become None."""

        def plain(value: float) -> float | None:
            return value if isfinite(value) else None

        rows = [
            {**asdict(row), "max_abs": plain(row.max_abs), "relative": plain(row.relative), "passes": row.passes}
            for row in self.rows
        ]
        return {"rows": rows, "weights": {name: plain(v) for name, v in self.weights}, "notes": self.notes}

    @property
    def first_failure(self) -> Row | None:
        return next((row for row in self.rows if not row.passes), None)


def compare_with_checkpoint(model: SegFormer, checkpoint: Checkpoint, images: Sequence[Pixels]) -> Report:
    """Compare weights, every step, logits and masks.

    Args:
        model: Keras side.
        checkpoint: the other side, run by `convert.compare.torch_network` in torch.
        images: (H, W, 3) uint8 RGB, all of one size.

    Raises:
        InputError: networks of other sizes.
    """
    _check_sizes(model, checkpoint)
    differing = weight_differences(model, checkpoint)
    largest = float(np.max([difference for _, difference in differing], initial=0.0))
    rows = [Row("weights", largest, largest, 0.0)]
    pixels = np.stack(images)
    normalized = checkpoint.config.normalize(pixels.astype(np.float64)).astype(np.float32)
    others = checkpoint.config.epsilons
    pairs = {name: (epsilon, others[name]) for name, epsilon in model.config.epsilons.items()}
    apart = max(abs(ours - theirs) for ours, theirs in pairs.values())
    rows.append(Row("epsilons", apart, apart, 0.0))  # what they do to a step can be less than its tolerance
    statistics = [np.concatenate([config.image_mean, config.image_std]) for config in (model.config, checkpoint.config)]
    apart = float(np.abs(statistics[0] - statistics[1]).max())
    rows.append(Row("normalization", apart, apart, NORMALIZATION_TOLERANCE))
    last = None
    for step in trace(checkpoint, normalized):
        rows += compare_steps(model, [step])
        last = step
    masks = []
    if checkpoint.has_decoder and last is not None:
        size = pixels.shape[1], pixels.shape[2]
        ends = compare_logits(model.logits(pixels), last.result, size=size, tolerance=LOGITS_TOLERANCE)
        rows += ends.rows
        masks = ends.masks
    notes = list(checkpoint.notes)
    if checkpoint.one_logit:
        notes.append(
            f"{checkpoint.path} has one logit x, compared as the two classes that `import` makes of it: (0, x)"
        )
    notes += [f"{name} is {a:g} here, {b:g} there" for name, (a, b) in pairs.items() if a != b]
    if apart > NORMALIZATION_TOLERANCE:
        ours, theirs = model.config.normalization, checkpoint.config.normalization
        notes.append(f"images are normalized by {ours} here, {theirs} there")
    return Report(rows, differing, masks, notes)


def compare_steps(model: SegFormer, steps: Sequence[Step]) -> list[Row]:
    """Give each of the model's steps the other side's input, and compare the outputs."""
    return [_row(step, _keras_step(model, step)) for step in steps]


def compare_logits(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], *, size: tuple[int, int], tolerance: float
) -> Report:
    """Compare logits alone, (B, h, w, C) each, as `convert.exported` does: the inside of a file cannot be seen."""
    verdict = compare(ours, theirs, name="the first")
    masks = [(logits_to_mask(a, size), logits_to_mask(b, size)) for a, b in zip(ours, theirs, strict=True)]
    share = float(np.mean([np.mean(a != b) for a, b in masks]))
    rows = [
        Row("all: logits", float(np.abs(ours - theirs).max()), verdict.error, tolerance),
        Row("all: mask", share, share, max(1e-3, tolerance)),
    ]
    return Report(rows, [], masks)


def write_picture(
    pixels: Sequence[Pixels],
    masks: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    labels: Labels,
    out: Path,
) -> None:
    """A PNG of one row per image: the image, both masks over it, and in red where they differ."""
    rows = []
    for image, (ours, theirs) in zip(pixels, masks, strict=True):
        differ = np.where((ours != theirs)[..., None], np.array([255, 0, 0], np.uint8), image // 3)
        rows.append(
            np.concatenate([image, overlay(image, ours, labels), overlay(image, theirs, labels), differ], axis=1)
        )
    with atomic(out) as part:
        Image.fromarray(np.concatenate(rows)).save(part)


def _check_sizes(model: SegFormer, checkpoint: Checkpoint) -> None:
    ours, theirs = model.config, checkpoint.config
    names = ["embed_dims", "depths", "num_heads", "sr_ratios", "patch_sizes", "strides", "mlp_ratio", "gelu"]
    if checkpoint.has_decoder:
        names += ["decoder", "decoder_width", "num_classes"]
    for name in names:
        if getattr(ours, name) != getattr(theirs, name):
            raise InputError(
                f"{checkpoint.path}: another network: its {name} is {getattr(theirs, name)}, "
                f"the model's {getattr(ours, name)}"
            )


def weight_differences(model: SegFormer, checkpoint: Checkpoint) -> list[tuple[str, float]]:
    """Variables that are not bit-equal to the checkpoint's tensors, and by how much at most, the largest first."""
    differing = []
    for variable, (key, ours) in zip(model.weights, torch_weights(model).items(), strict=True):
        if key not in checkpoint.weights:  # a decoder, where the checkpoint has none
            continue
        difference = float(np.abs(ours - checkpoint.weights[key]).max())
        if difference != 0.0:  # nor is a nan
            differing.append((variable.path, difference))
    return sorted(differing, key=lambda each: -each[1])


def _keras_step(model: SegFormer, step: Step) -> NDArray[np.float32]:
    """The Keras model's output for a step's input."""
    kind, _, part = step.name.partition("/")
    x = tf.constant(step.input)
    if kind == "logits":
        decoder = model.decoder
        return np.asarray(decoder.linear_pred(ops.relu(decoder.bn(x, training=False))))
    if kind == "decoder":
        return np.asarray(model.decoder.contribution(part, x, step.result.shape[1:3]))
    stage = model.encoder.stages[int(kind[-1]) - 1]
    if kind.startswith("c"):
        return np.asarray(stage.norm(x))
    layer = stage.patch_embed if part == "patch_embed" else stage.blocks[int(part.removeprefix("block"))]
    return np.asarray(layer(x))


def _row(step: Step, ours: NDArray[np.float32]) -> Row:
    difference = ours - step.result
    relative = float(np.linalg.norm(difference)) / max(float(np.linalg.norm(step.result)), 1e-30)
    return Row(step.name, float(np.abs(difference).max()), relative, STEP_TOLERANCE)
