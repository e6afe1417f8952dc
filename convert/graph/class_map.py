"""The class map inside the graph, for callers without `segformer_tf.edge`, in C++ or Kotlin.

Exact: a resize of the logits to the input's size, then the arg-max. With 150 classes it costs as much as b0.

Cheap: the grid of logits divides the image into cells, with a logit vector at each corner (`segformer_tf.mask`). In a
cell, only the classes that win at one of its corners are candidates: four at most, whatever the number of classes. An
input of four times the grid has 4x4 pixels in every cell, always at the same places, so that convolutions compute the
candidates' logits there. What it misses is a class that wins inside a cell and at none of its corners: 0.05 % of
CamVid's pixels, more of a network that is unsure. `convert.export` compares, and takes the exact form where it is more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.graph.ir import Graph, Op, Tensor, constant

_UP = 4  # pixels of the input between two grid points
_CORNERS = tuple((y, x) for y in (0, 1) for x in (0, 1))  # of a cell: above or below, left or right
_AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))  # a grid point and its neighbors
_FEW = 24  # classes up to which the exact form costs about as much
_SHARP = 2.0**14  # 1 over the smallest lead of a logit that counts as a whole one; float16 holds it


def with_class_map(graph: Graph, size: tuple[int, int], *, cheap: bool = False) -> Graph:
    """The graph with another output, ``mask`` (1, height, width): arg-max of the logits at the input's size.

    MediaPipe's ImageSegmenter settles order and type. It makes its masks of the last output, so the logits stay last.
    Beside float logits it reads the first output as float32, whatever that is, so ids are int32, of the same four
    bytes. Beside int8 logits it takes bytes only: uint8.

    Args:
        graph: of any recipe, whose output is logits of 255 classes at most.
        size: (height, width) of the input.
        cheap: take the cheap form; only where `cheap_form_fits`. A GPU delegate takes the exact one alone.
    """
    (logits,) = graph.outputs
    steps = Graph(list(graph.ops), graph.inputs)
    ids = _cheap(steps, logits) if cheap else _exact(steps, logits, size)
    mask = _cast(steps, "mask", ids, np.int32 if logits.dtype == np.float32 else np.uint8)
    return replace(graph, ops=steps.ops, outputs=[mask, logits])


def cheap_form_fits(graph: Graph, size: tuple[int, int]) -> bool:
    """Whether the cheap form is one of this graph's, and cheaper."""
    _, *grid, classes = graph.outputs[0].shape
    return classes > _FEW and tuple(size) == (_UP * grid[0], _UP * grid[1])


def _exact(graph: Graph, logits: Tensor, size: tuple[int, int]) -> Tensor:
    real = logits if logits.dtype == np.float32 else graph.add_op("DEQUANTIZE", "mask/real", [logits], logits.shape)
    full = graph.resize("mask/logits", _whole_vectors(graph, real), size)
    return _winners(graph, "mask/ids", full)


def _whole_vectors(graph: Graph, logits: Tensor) -> Tensor:
    """The logits with channels that never win, up to a multiple of four.

    A GPU keeps channels in vectors of four, filled up with zeros. LiteRT's ARG_MAX there reads the fill as well: where
    every logit is negative it gave a class that does not exist.
    """
    if not (missing := -logits.shape[3] % 4):
        return logits
    batch, h, w, classes = logits.shape
    fill = constant("mask/fill", np.full((batch, h, w, missing), np.finfo(np.float16).min / 2))
    return graph.add_op("CONCATENATION", "mask/whole", [logits, fill], (batch, h, w, classes + missing), axis=3)


def _cheap(graph: Graph, logits: Tensor) -> Tensor:
    _, h, w, _ = logits.shape
    ids = _cast(graph, "mask/grid", _winners(graph, "mask/winners", logits), np.float32)
    ids = _framed(graph, "mask/framed", graph.reshape("mask/column", ids, (1, h, w, 1)))
    shifts = np.zeros((3, 3, 1, len(_AROUND)))
    for n, (dy, dx) in enumerate(_AROUND):
        shifts[dy + 1, dx + 1, 0, n] = 1
    around = _cast(graph, "mask/candidates", graph.conv("mask/around", ids, shifts), np.int32)
    values = Tensor("mask/values", around.shape, logits.dtype, None, logits.quantization)  # of each at this grid point
    graph.ops.append(Op("GATHER", [logits, around], values, {"axis": 3, "batchDims": 3}))
    if logits.dtype != np.float32:
        values = graph.add_op("DEQUANTIZE", "mask/real", [values], values.shape)
    values = _framed(graph, "mask/edge", values, neighbors=True)

    rivals = []
    for n, corner in enumerate(_CORNERS):
        scores = graph.conv(f"mask/corner{n}", values, _interpolation(corner))
        spread = np.zeros((2, 2, 1, _UP * _UP))
        spread[corner] = 1
        rivals.append((scores, graph.conv(f"mask/corner{n}/ids", ids, spread)))
    upper, lower = (_duel(graph, name, *rivals[i : i + 2]) for name, i in (("mask/upper", 0), ("mask/lower", 2)))
    _, best = _duel(graph, "mask/best", upper, lower, last=True)
    best = _cast(graph, "mask/bytes", best, np.uint8)
    pixels = Tensor("mask/pixels", (1, _UP * (h + 1), _UP * (w + 1), 1), np.uint8)
    graph.ops.append(Op("DEPTH_TO_SPACE", [best], pixels, {"blockSize": _UP}))
    flat = Tensor("mask/flat", pixels.shape[:3], np.uint8)
    graph.ops.append(Op("RESHAPE", [pixels, constant("mask/flat/shape", np.array(flat.shape, np.int32))], flat))
    return _part(graph, "mask/ids", flat, (0, _UP // 2, _UP // 2), (1, _UP * h, _UP * w))


def _interpolation(corner: tuple[int, int]) -> NDArray[np.float64]:
    """(2, 2, 9, 16): from the values around each corner to those of the candidate of one corner, at 4x4 pixels."""
    kernel = np.zeros((2, 2, len(_AROUND), _UP, _UP))
    share = (np.arange(_UP) + 0.5) / _UP
    weights = np.stack([1 - share, share])
    for y, x in _CORNERS:
        toward = _AROUND.index((corner[0] - y, corner[1] - x))
        kernel[y, x, toward] = np.outer(weights[y], weights[x])
    return kernel.reshape(2, 2, len(_AROUND), _UP * _UP)


def _framed(graph: Graph, name: str, x: Tensor, *, neighbors: bool = False) -> Tensor:
    """The edge repeated once on each side; `neighbors`: channels are `_AROUND`, and beyond the edge is the edge."""
    for axis in (1, 2):
        parts = [x]
        for side, at in ((-1, 0), (1, x.shape[axis] - 1)):
            begin, shape = [0] * 4, list(x.shape)
            begin[axis], shape[axis] = at, 1
            part = _part(graph, f"{name}{axis}{side:+}", x, begin, shape)
            if neighbors:
                # From a point beyond the edge, the next one inward is the edge itself.
                order = np.zeros((len(_AROUND), len(_AROUND)))
                for n, step in enumerate(_AROUND):
                    inward = step[axis - 1] == -side
                    source = tuple(0 if inward and a == axis - 1 else s for a, s in enumerate(step))
                    order[_AROUND.index((source[0], source[1])), n] = 1
                part = graph.conv(f"{name}{axis}{side:+}/inward", part, order)
            parts = [part, *parts] if side < 0 else [*parts, part]
        shape = list(x.shape)
        shape[axis] += 2
        x = graph.add_op("CONCATENATION", f"{name}{axis}", parts, tuple(shape), axis=axis)
    return x


def _duel(
    graph: Graph, name: str, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], *, last: bool = False
) -> tuple[Tensor, Tensor]:
    """Of two candidates' scores and ids, those of the better one at every pixel; of the `last`, the ids alone."""
    # In arithmetic that XNNPACK takes; it leaves GREATER and SELECT to slower kernels.
    lead = graph.binary("SUB", f"{name}/lead", other[0], one[0])
    beaten = graph.binary("MUL", f"{name}/sharp", lead, _SHARP, activation="RELU")
    beaten = graph.binary("MINIMUM", f"{name}/beaten", beaten, 1.0)
    step = graph.binary("SUB", f"{name}/step", other[1], one[1])
    ids = graph.binary("ADD", f"{name}/ids", one[1], graph.binary("MUL", f"{name}/way", beaten, step))
    return (one[0] if last else graph.add_op("MAXIMUM", name, [one[0], other[0]], one[0].shape)), ids


def _winners(graph: Graph, name: str, logits: Tensor) -> Tensor:
    ids = Tensor(name, logits.shape[:3], np.int32)
    axis = constant(f"{name}/axis", np.array([3], np.int32))
    graph.ops.append(Op("ARG_MAX", [logits, axis], ids, {"outputType": "INT32"}))
    return ids


def _cast(graph: Graph, name: str, x: Tensor, dtype: Any) -> Tensor:
    """``x`` in another type, under a name of its own even where the type is the same."""
    made = Tensor(name, x.shape, dtype)
    kinds = {key: np.dtype(t.dtype).name.upper() for key, t in (("inDataType", x), ("outDataType", made))}
    graph.ops.append(Op("CAST", [x], made, kinds))
    return made


def _part(graph: Graph, name: str, x: Tensor, begin: Any, shape: Any) -> Tensor:
    part = Tensor(name, tuple(shape), x.dtype)
    limits = [constant(f"{name}/{key}", np.array(n, np.int32)) for key, n in (("begin", begin), ("shape", shape))]
    graph.ops.append(Op("SLICE", [x, *limits], part))
    return part
