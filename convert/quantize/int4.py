"""Rewrites a float graph into one of int4 weights, rounded for the activations that images give.

LiteRT's delegate takes int4 in FULLY_CONNECTED only, so 1x1 maps become that, and so do convolutions whose windows can
be laid out as rows (`patches`). Rounding each value to 16 steps by itself loses too much. So a kernel is rounded column
by column, and those still to be rounded make up for what a column loses (GPTQ, Frantar et al., ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from convert.graph.ir import Graph, Op, Quantization, Tensor, constant
from convert.quantize.calibrate import run
from convert.quantize.weights import dynamic_kernel, pays_dynamic, unpacked_int8
from segformer_tf.image import Pixels

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]  # of a row x: means of x·xᵀ (inputs, inputs), of x (inputs,)

_LOWEST, _HIGHEST = -8, 7
_ROWS = 16384  # of a convolution's input, over all images, that its rounding is fitted to
_LARGE_KERNEL = 2**18  # values: of a smaller one, overlapping windows cost more time than they save space
_DAMPING = 0.01  # of the mean square, as in the paper
_BLOCK = 64  # columns whose losses are handed on together


def dynamic_int4(graph: Graph, images: Sequence[Pixels]) -> Graph:
    """Kernels as int4 where LiteRT takes them, else int8; activations are quantized to int8 as they come.

    Args:
        graph: float graph.
        images: (H, W, 3) uint8 of the graph's size, like those it will see.
    """
    moments = _moments(graph, images)
    result = replace(graph, ops=[])
    for op in graph.ops:
        if worth_int4(op):
            _fully_connected(result, op, moments[_rows_key(op)])
        elif op.kind == "CONV_2D" and pays_dynamic(op):
            result.ops.append(dynamic_kernel(op))
        else:
            result.ops += unpacked_int8(op)
    return result


def worth_int4(op: Op) -> bool:
    """What `dynamic_int4` stores in int4: what pays in int8, with windows that do not overlap, or a large kernel."""
    if op.kind != "CONV_2D" or not pays_dynamic(op):
        return False
    return op.inputs[1].shape[1] == op.options["strideH"] or op.inputs[1].value.size >= _LARGE_KERNEL


def int4_kernel(kernel: NDArray[np.float64], moments: Moments) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """A kernel (outputs, inputs) as integers -8..7 and the step of each output.

    They are such that ``steps * (integers @ x)`` is near ``kernel @ x`` in the mean square over x.
    """
    square = moments[0]
    # Inputs that the images leave at 0 count a little: other images may not.
    steps = _steps(kernel, np.diag(square) + max(1e-6 * float(np.trace(square)) / len(square), 1e-12))
    square = square + np.eye(len(square)) * max(_DAMPING * float(np.trace(square)) / len(square), 1e-12)
    order = np.argsort(-np.diag(square), kind="stable")  # what weighs most is rounded while most can make up for it
    upper = np.linalg.cholesky(np.linalg.inv(square[order][:, order])).T
    left = kernel[:, order] / steps[:, None]
    stored = np.empty_like(left)
    for start in range(0, len(order), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(order)))
        losses = np.empty((len(left), block.stop - start))
        for j in range(start, block.stop):
            stored[:, j] = np.clip(np.round(left[:, j]), _LOWEST, _HIGHEST)
            losses[:, j - start] = loss = (left[:, j] - stored[:, j]) / upper[j, j]
            left[:, j : block.stop] -= np.outer(loss, upper[j, j : block.stop])
        left[:, block.stop :] -= losses @ upper[block, block.stop :]
    return stored[:, np.argsort(order)].astype(np.int8), steps


def _steps(kernel: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The step of each output that has the least squared error, `weights` being the inputs' mean squares."""
    largest = np.maximum(np.abs(kernel).max(1), 1e-12) / _HIGHEST
    best, least = largest, np.full(len(kernel), np.inf)
    for share in np.linspace(0.5, 1.1, 25):
        steps = (share * largest)[:, None]
        rounded = np.clip(np.round(kernel / steps), _LOWEST, _HIGHEST) * steps
        error = ((rounded - kernel) ** 2) @ weights
        best, least = np.where(error < least, steps[:, 0], best), np.minimum(error, least)
    return best


def _fully_connected(graph: Graph, op: Op, moments: Moments) -> None:
    """Appends a convolution as a FULLY_CONNECTED of its int4 kernel; what the mean input loses goes into the bias."""
    import ml_dtypes  # here, for the command reads the table of recipes where it is not installed

    name, kernel, bias = op.output.name, op.inputs[1], op.inputs[2]
    x = patches(graph, name, op)
    matrix = kernel.value.reshape(kernel.shape[0], -1).astype(np.float64)
    integers, steps = int4_kernel(matrix, moments)
    # Order of the rows that `patches` makes.
    outputs, size, _, channels = kernel.shape
    ordered = integers.reshape(outputs, size * size, channels)[:, window_order(size, op.options["strideH"])]
    lost = (matrix - integers * steps[:, None]) @ moments[1]
    stored = Tensor(
        f"{kernel.name}/int4",
        matrix.shape,
        ml_dtypes.int4,
        ordered.reshape(matrix.shape).astype(ml_dtypes.int4),
        Quantization(steps.astype(np.float32), np.zeros(len(steps), np.int64)),
    )
    options = {"keepNumDims": True, "fusedActivationFunction": op.options["fusedActivationFunction"]}
    graph.ops.append(Op("FULLY_CONNECTED", [x, stored, constant(bias.name, bias.value + lost)], op.output, options))


def patches(graph: Graph, name: str, op: Op) -> Tensor:
    """The windows that a convolution sees, laid out as its kernel is: (1, H, W, kh · kw · C)."""
    x, (_, size, _, channels), stride = op.inputs[0], op.inputs[1].shape, op.options["strideH"]
    if size == 1:
        return x
    (_, height, width, _), reach = op.output.shape, ceil(size / stride)
    cells = height + reach - 1, width + reach - 1  # of stride x stride pixels
    x = _cut_or_pad(graph, name, x, (cells[0] * stride, cells[1] * stride))
    x = graph.reshape(f"{name}/cells/rows", x, (cells[0], stride, cells[1], stride * channels))
    x = graph.transpose(f"{name}/cells/columns", x, (0, 2, 1, 3))
    x = graph.reshape(f"{name}/cells", x, (1, *cells, stride * stride * channels))
    if reach == 1:
        return x
    pieces: list[Tensor] = []
    for down in range(reach):
        for right in range(reach):
            rows, columns = (min(stride, size - stride * n) for n in (down, right))
            # Whole rows of a cell lie side by side; of a part of each row, one is taken at a time.
            runs = [(0, rows * stride)] if columns == stride else [(row * stride, columns) for row in range(rows)]
            for first, count in runs:
                begin, shape = (0, down, right, first * channels), (1, height, width, count * channels)
                pieces.append(_slice(graph, f"{name}/piece{len(pieces)}", x, begin, shape))
    depth = size * size * channels
    return graph.add_op("CONCATENATION", f"{name}/windows", pieces, (1, height, width, depth), axis=3)


def window_order(size: int, stride: int) -> list[int]:
    """For every kernel position in the order that `patches` lays them out, its number in the kernel, row by row."""
    reach, order = ceil(size / stride), []
    for down in range(reach):
        for right in range(reach):
            for row in range(min(stride, size - stride * down)):
                for column in range(min(stride, size - stride * right)):
                    order.append((down * stride + row) * size + right * stride + column)
    return order


def _cut_or_pad(graph: Graph, name: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, *size, C) of x: what no window reaches left out, what none looks at added."""
    _, height, width, channels = x.shape
    kept = min(height, size[0]), min(width, size[1])
    if kept != (height, width):
        x = _slice(graph, f"{name}/cut", x, (0, 0, 0, 0), (1, *kept, channels))
    if kept != size:
        pads = np.array([[0, 0], [0, size[0] - kept[0]], [0, size[1] - kept[1]], [0, 0]], np.int32)
        x = graph.add_op("PAD", f"{name}/padded", [x, constant(f"{name}/padded/by", pads)], (1, *size, channels))
    return x


def _slice(graph: Graph, name: str, x: Tensor, begin: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    places = (constant(f"{name}/{end}", np.array(at, np.int32)) for end, at in (("begin", begin), ("size", shape)))
    return graph.add_op("SLICE", name, [x, *places], shape)


def _rows_key(op: Op) -> tuple[Tensor, int, int]:
    """Convolutions of equal keys see the same windows."""
    return op.inputs[0], op.inputs[1].shape[1], op.options["strideH"]


def _moments(graph: Graph, images: Sequence[Pixels]) -> dict[tuple[Tensor, int, int], Moments]:
    """Of the windows that each convolution sees on the images, some of each image's."""
    ops = {_rows_key(op): op for op in graph.ops if worth_int4(op)}
    watched = replace(graph, outputs=list(dict.fromkeys(x for x, _, _ in ops)))
    rng, count = np.random.default_rng(0), ceil(_ROWS / len(images))
    sums: dict[tuple[Tensor, int, int], list[np.ndarray]] = {}
    for values in run(watched, images):
        for key, op in ops.items():
            rows = _some_windows(values[key[0].name][0], op, count, rng).astype(np.float64)
            found = [rows.T @ rows, rows.sum(0), np.float64(len(rows))]
            sums[key] = [a + b for a, b in zip(sums[key], found, strict=True)] if key in sums else found
    return {key: (squares / number, total / number) for key, (squares, total, number) in sums.items()}


def _some_windows(x: np.ndarray, op: Op, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, kh · kw · C) of x (H, W, C), at places drawn by chance, each once."""
    _, height, width, _ = op.output.shape
    places = rng.permutation(height * width)[:count]
    size, stride = op.inputs[1].shape[1], op.options["strideH"]
    rows, columns = (place[:, None] * stride + np.arange(size) for place in np.divmod(places, width))
    return x[rows[:, :, None], columns[:, None, :]].reshape(len(places), -1)
