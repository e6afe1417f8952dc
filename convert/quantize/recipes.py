"""Recipes of quantization: how each rewrites the float graph, and where it may be used.

This table is where the command's choices and help, and the manual's table (`markdown_table`), come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from convert.graph.ir import Graph, Op
from convert.quantize.half import FLOAT16_ENTRY, fit_float16
from convert.quantize.int4 import dynamic_int4
from convert.quantize.integer import Choice, Ranges, integer_ends, quantize, tensors_to_calibrate, uint8_input
from convert.quantize.sensitivity import quantize_mixed
from convert.quantize.weights import dynamic_int8, float16_weights, int8_weights
from segformer_tf.edge.compiled import HALF
from segformer_tf.edge.runtime import GPU, RUNTIMES
from segformer_tf.image import Pixels

# The graph to write, of the float graph, the ranges of its tensors, and images of its size.
Rewrite = Callable[[Graph, Ranges, Sequence[Pixels]], Graph]


@dataclass(frozen=True)
class Recipe:
    """How a file is made and how far its logits may be from Keras'.

    Attributes:
        name: as the command spells it.
        weights, activations: how they are stored and computed, for the manual.
        purpose: what it is for, for the manual and the command's help.
        tolerance: largest relative error, see `convert.exported`.
        rewrite: of the float graph.
        integer: whether an operation's activations are quantized, by ranges measured on images; None for no operation.
        fitted: whether kernels are rounded for what images give, though activations stay float.
        entries: metadata that a runtime reads, by name.
        also: what else each file is run on, because its targets compute otherwise here than where it is meant for.
        forms: runtimes whose own form of the float graph it can be made of, see `convert.graph.segformer.network`.
        refused: runtimes where it may not be used, and why.
    """

    name: str
    weights: str
    activations: str
    purpose: str
    tolerance: float
    rewrite: Rewrite
    integer: Choice | None = None
    fitted: bool = False
    entries: Mapping[str, bytes] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    forms: tuple[str, ...] = tuple(RUNTIMES)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Where it may be used."""
        return tuple(name for name in (*RUNTIMES, GPU, *self.also) if name not in self.refused)

    @property
    def needs_calibration(self) -> bool:
        return self.integer is not None or self.fitted

    def fitting(self, runtimes: Sequence[str]) -> list[str]:
        """Those of `runtimes` where it may be used."""
        return [name for name in runtimes if name in self.runtimes]

    def form(self, runtimes: Sequence[str]) -> str:
        """The runtime whose form of the float graph it takes for these targets."""
        only = next(iter(runtimes)) if len(set(runtimes)) == 1 else "litert"
        return only if only in self.forms else "litert"

    def tensors(self, graph: Graph) -> list[str]:
        """Names of the tensors whose ranges it needs."""
        return tensors_to_calibrate(graph, self.integer) if self.integer else []


_INTEGER_AROUND = re.compile("^decoder/|^logits$|/mlp")  # steps whose convolutions follow each other in int8


def worth_int8(op: Op) -> bool:
    """What recipe `int8` computes in integers: convolutions, and the decoder up to the logits.

    Float stay softmax, matrix products (no faster in int8 here), GELU, norms and residual sums, which no delegate takes
    in int8 or which need more than 8 bits; 1x1 maps of 64 channels at most between two of these; and the patch
    embedding of the pixels. Centered, they span 275 gray values, which 8 bits round, and the norm that follows makes
    what is weak as strong as an edge: on CamVid's b0 in int8 this step alone lost more than all others together, and
    was no faster on x86.
    """
    if op.inputs[0].shape[-1] == 3:
        return False
    if op.kind == "CONV_2D":
        out, height, width, channels = op.inputs[1].shape
        wide = out > 1 and (out > 64 or height * width * channels > 64)
        return wide or _INTEGER_AROUND.search(op.output.name) is not None
    return op.kind in ("DEPTHWISE_CONV_2D", "PAD") or op.output.name.startswith("decoder/")


def everything(op: Op) -> bool:
    return True


# A silently wrong file is off by 0.4 to 1.0; tolerances are well below that, and above the cost of rounding.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        # name, weights, activations, purpose, tolerance, rewrite
        Recipe("fp32", "float32", "float32", "the reference", 1e-4, lambda graph, *_: graph),
        Recipe("fp16", "float16", "float32", "half the size, as fast", 1e-2, lambda graph, *_: float16_weights(graph)),
        Recipe(
            "fp16_compute",
            "float16",
            "float16 where the processor computes in it, else float32",
            "half the size, faster on ARM since v8.2",
            tolerance=2e-2,
            rewrite=lambda graph, _, images: float16_weights(fit_float16(graph, images)),
            entries=FLOAT16_ENTRY,
            also=(HALF,),
        ),
        Recipe(
            "weight_int8", "int8", "float32", "a quarter the size, as fast", 0.1, lambda graph, *_: int8_weights(graph)
        ),
        Recipe(
            "dynamic_int8",
            "int8",
            "float32, int8 inside products",
            "a quarter the size, faster on LiteRT",
            tolerance=0.1,
            rewrite=lambda graph, *_: dynamic_int8(graph),
        ),
        Recipe(
            "dynamic_int4",
            "int4, or int8 where LiteRT takes none",
            "as dynamic_int8",
            "the smallest, a seventh the size, on LiteRT only",
            tolerance=0.15,
            rewrite=lambda graph, _, images: dynamic_int4(graph, images),
            fitted=True,
            forms=("litert",),
            refused={"tflite-runtime": "2.14 has no dense layers of int4"},
        ),
        Recipe(
            "int8",
            "int8",
            "int8 in the decoder and all convolutions but the first, else float32",
            "the fastest on LiteRT",
            tolerance=0.2,
            rewrite=lambda graph, ranges, _: uint8_input(quantize(graph, ranges, worth_int8)),
            integer=worth_int8,
        ),
        Recipe(
            "int8_mixed",
            "int8",
            "as int8, but float32 in the steps that lose most, another tenth of the multiply-adds at most",
            "where int8 loses too much, see `segformer verify --per-layer`",
            tolerance=0.2,
            rewrite=lambda graph, ranges, images: uint8_input(quantize_mixed(graph, ranges, worth_int8, images)),
            integer=worth_int8,
        ),
        Recipe(
            "int8_io",
            "int8",
            "integers throughout, int8 logits",
            "accelerators without floats",
            tolerance=0.2,
            rewrite=lambda graph, ranges, _: integer_ends(quantize(graph, ranges, everything)),
            integer=everything,
            forms=("litert",),
            refused={GPU: "its softmax is int16, which the GPU delegate does not take"},
        ),
        Recipe(
            "w8a16",
            "int8",
            "int16",
            "accelerators of 16 bits, on LiteRT only",
            tolerance=0.1,
            rewrite=lambda graph, ranges, _: uint8_input(quantize(graph, ranges, everything, bits=16)),
            integer=everything,
            forms=("litert",),
            refused={
                "tflite-runtime": "2.14 has no int16 RSQRT and GELU",
                GPU: "its activations are int16, which the GPU delegate does not take",
            },
        ),
    )
}


def markdown_table() -> str:
    """The manual's table of recipes."""
    rows = [("recipe", "weights", "activations", "input", "for"), ("---",) * 5]
    for recipe in RECIPES.values():
        pixels = "float32" if recipe.integer is None else "uint8"
        rows.append((f"`{recipe.name}`", recipe.weights, recipe.activations, pixels, recipe.purpose))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
