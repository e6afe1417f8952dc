"""How much int8 in each step of the network moves the logits, and a mixed graph that spares the worst steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.graph.ir import Graph, Op
from convert.quantize.calibrate import run
from convert.quantize.integer import Choice, Ranges, quantize
from segformer_tf.image import Pixels
from segformer_tf.metrics import relative_error

_STEP = re.compile(r"stage\d/(?:patch_embed|block\d+/(?:attn|mlp)|norm)|decoder/c\d|decoder|logits|image")

IMAGES = 8  # enough to rank the steps


@dataclass(frozen=True)
class Sensitivity:
    """What int8 does to one step.

    Attributes:
        step: name, such as ``stage1/block0/mlp``.
        error: `relative_error` of the logits when this step alone is computed in int8.
        share: of the network's multiply-adds in convolutions, 0..1.
    """

    step: str
    error: float
    share: float


def step_of(op: Op) -> str:
    """The step an operation belongs to."""
    match = _STEP.match(op.output.name)
    return match.group() if match else op.output.name


def macs(op: Op) -> int:
    """Multiply-adds of a convolution, 0 of anything else."""
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return 0
    _, height, width, channels = op.output.shape
    kernel = op.inputs[1].shape
    return height * width * channels * kernel[1] * kernel[2] * (kernel[3] if op.kind == "CONV_2D" else 1)


def sensitivities(
    graph: Graph,
    ranges: Ranges,
    choose: Choice,
    images: Sequence[Pixels],
    *,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[Sensitivity]:
    """Quantize one step after another, alone, and measure how far the logits move; the worst first.

    Args:
        graph: float graph.
        ranges: of the tensors in `tensors_to_calibrate`.
        choose: the operations that would be computed in int8.
        images: (H, W, 3) uint8 of the graph's size; the first `IMAGES` of them are used.
        progress: wraps the steps, for a bar.
    """
    few = list(images)[:IMAGES]
    expected = _logits(graph, few)
    total = sum(map(macs, graph.ops))
    steps = list(dict.fromkeys(step_of(op) for op in graph.ops if choose(op)))
    results = []
    for step in progress(steps):
        alone = quantize(graph, ranges, lambda op, step=step: choose(op) and step_of(op) == step)  # type: ignore[misc]
        share = sum(macs(op) for op in graph.ops if step_of(op) == step) / total
        results.append(Sensitivity(step, relative_error(_logits(alone, few), expected), share))
    return sorted(results, key=lambda result: -result.error)


def quantize_mixed(
    graph: Graph, ranges: Ranges, choose: Choice, images: Sequence[Pixels], *, spared: float = 0.1
) -> Graph:
    """As `quantize`, but the steps that suffer most for the multiply-adds they save stay in float.

    Args:
        graph, ranges, choose, images: see `sensitivities`.
        spared: share of the multiply-adds that may stay in float, 0..1.
    """
    ranked = sorted(sensitivities(graph, ranges, choose, images), key=lambda s: -(s.error**2) / max(s.share, 1e-6))
    floats: set[str] = set()
    left = spared
    for each in ranked:
        if each.share <= left:
            floats.add(each.step)
            left -= each.share
    return quantize(graph, ranges, lambda op: choose(op) and step_of(op) not in floats)


def _logits(graph: Graph, images: Sequence[Pixels]) -> NDArray[Any]:
    (output,) = graph.outputs
    return np.stack([values[output.name] for values in run(graph, images)])
