"""Recipes of quantisation: how each is made of the float graph, and where it may be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from convert.graph.ir import Graph, Op
from convert.quantize.integer import Ranges, integer_ends, static, static_tensors, uint8_input
from convert.quantize.sensitivity import mixed
from convert.quantize.weights import dynamic_int8, half, weight_int8
from segformer_tf.edge.runtime import GPU, RUNTIMES
from segformer_tf.image import Pixels


@dataclass(frozen=True)
class Recipe:
    """How a file is made and how far its logits may be from Keras'.

    Attributes:
        name: as the command spells it.
        summary: weights, activations and what it is for, in a line.
        tolerance: largest relative error, see `convert.exported`.
        make: the graph to write, of a float graph, the ranges of its tensors, and images of its size.
        integer: chooses the operations whose activations are quantised beforehand, on images; None for none.
        refused: runtimes where it may not be used, and why.
    """

    name: str
    summary: str
    tolerance: float
    make: Callable[[Graph, Ranges, Sequence[Pixels]], Graph]
    integer: Callable[[Op], bool] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Where it may be used."""
        return tuple(name for name in (*RUNTIMES, GPU) if name not in self.refused)

    @property
    def needs_calibration(self) -> bool:
        return self.integer is not None

    def fitting(self, runtimes: Sequence[str]) -> list[str]:
        """Those of `runtimes` where it may be used."""
        return [name for name in runtimes if name in self.runtimes]

    def tensors(self, graph: Graph) -> list[str]:
        """Names of the tensors whose ranges it needs."""
        return static_tensors(graph, self.integer) if self.integer else []


_INTEGER_AROUND = re.compile("^decoder/|^logits$|/mlp")  # steps whose convolutions follow each other in int8


def worth_int8(op: Op) -> bool:
    """What recipe `int8` computes in integers: convolutions, and the decoder up to the logits.

    Float stay softmax, matrix products (no faster in int8 here), GELU, norms and residual sums, which no delegate takes
    in int8 or which need more than 8 bits; and 1x1 maps of 64 channels at most between two of these.
    """
    if op.kind == "CONV_2D":
        out, height, width, channels = op.inputs[1].shape
        wide = out > 1 and (out > 64 or height * width * channels > 64)
        return wide or _INTEGER_AROUND.search(op.output.name) is not None
    return op.kind in ("DEPTHWISE_CONV_2D", "PAD") or op.output.name.startswith("decoder/")


def everything(op: Op) -> bool:
    return True


# A silently wrong file is off by 0.4 to 1.0; tolerances stand well below that, and above what rounding costs.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp32", "float32 throughout", 1e-4, lambda graph, *_: graph),
        Recipe("fp16", "float16 weights, float32 arithmetic", 1e-2, lambda graph, *_: half(graph)),
        Recipe("weight_int8", "int8 weights, float32 arithmetic", 0.1, lambda graph, *_: weight_int8(graph)),
        Recipe(
            "dynamic_int8",
            "int8 weights, int8 products of float activations",
            0.1,
            lambda graph, *_: dynamic_int8(graph),
        ),
        Recipe(
            "int8",
            "int8 convolutions and decoder, calibrated; attention, norms and GELU in float32",
            0.2,
            lambda graph, ranges, _: uint8_input(static(graph, ranges, worth_int8)),
            worth_int8,
        ),
        Recipe(
            "int8_mixed",
            "as int8, but what suffers most from it stays in float32, a tenth of the multiply-adds at most",
            0.2,
            lambda graph, ranges, images: uint8_input(mixed(graph, ranges, worth_int8, images)),
            worth_int8,
        ),
        Recipe(
            "int8_io",
            "integers throughout, calibrated, for accelerators without floats",
            0.2,
            lambda graph, ranges, _: integer_ends(static(graph, ranges, everything)),
            everything,
            {GPU: "its softmax is int16, which the GPU delegate does not take"},
        ),
        Recipe(
            "w8a16",
            "int8 weights, int16 activations, calibrated",
            0.1,
            lambda graph, ranges, _: uint8_input(static(graph, ranges, everything, bits=16)),
            everything,
            {
                "tflite-runtime": "2.14 has no int16 RSQRT and GELU",
                GPU: "its activations are int16, which the GPU delegate does not take",
            },
        ),
    )
}
