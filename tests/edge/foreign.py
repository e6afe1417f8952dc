"""Small networks as other people's converters write them, whose masks are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from convert.graph.flatbuffer import pack, to_tflite
from convert.graph.ir import Graph, Op, Quantization, Tensor
from convert.graph.metadata import _Tables

SIZE = (8, 12)
STEPS = np.arange(96, dtype=np.uint8).reshape(SIZE) * 2  # gray, 0..190
RAW = [0.0], [1.0]  # a normalization that leaves pixels as they are
PHOTO = np.stack([STEPS, 255 - STEPS, np.arange(96, dtype=np.uint8).reshape(SIZE) * 53 % 240], axis=-1)


def quantization(scale: float, zero_point: int) -> Quantization:
    return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))


def add(graph: Graph, kind: str, inputs: list[Tensor], made: Tensor, **options: Any) -> Tensor:
    """An operation that makes a tensor of another type."""
    graph.ops.append(Op(kind, inputs, made, options))
    return made


def start(dtype: Any = np.float32, scale: float = 0.0, zero_point: int = 0) -> tuple[Graph, Tensor]:
    """A graph and its input as floats."""
    x = Tensor("x", (1, *SIZE, 3), dtype, None, quantization(scale, zero_point) if scale else None)
    graph = Graph(inputs=[x])
    return graph, x if not scale else add(graph, "DEQUANTIZE", [x], Tensor("real", x.shape))


def channel_scores(graph: Graph, x: Tensor) -> Tensor:
    """Three classes, which of R, G and B is largest: any range gives the same."""
    return graph.conv("scores", x, np.eye(3, dtype=np.float32))


def bright(graph: Graph, x: Tensor, above: Sequence[float], *, logits: bool = True) -> Tensor:
    """R + G + B above the sum of three numbers: logits of two classes, or one channel."""
    kernel = np.ones((3, 1), np.float32)
    bias = np.array([-float(sum(above))], np.float32)
    if not logits:
        return graph.conv("channel", x, kernel, bias)
    return graph.conv("scores", x, np.hstack([0 * kernel, kernel]), np.array([0, bias[0]], np.float32))


def bright_pixels(pixels: np.ndarray, above: Sequence[float] = (120, 120, 120)) -> np.ndarray:
    return (pixels.astype(int).sum(-1) > sum(above)).astype(np.uint8)


def write(
    graph: Graph,
    output: Tensor,
    path: Path,
    *,
    open_sides: tuple[int, ...] = (),
    normalization: tuple[list[float], list[float]] | None = None,
) -> Path:
    """A ``.tflite`` of a graph.

    Args:
        graph: with its operations.
        output: what it gives.
        path: to write.
        open_sides: axes of input and outputs that are left open, as converters write them: 1, and -1 in the signature.
        normalization: mean and std for its metadata.
    """
    graph.outputs = [output]
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(to_tflite(graph), 0))
    for tensor in tree.subgraphs[0].tensors if open_sides else []:
        if len(tensor.shape) == 4 and tensor.buffer == 0:
            signature = np.array(tensor.shape, np.int32)
            signature[list(open_sides)] = -1
            tensor.shapeSignature, tensor.shape = signature, np.where(signature == -1, 1, signature).astype(np.int32)
    if normalization:
        t = _Tables()
        unit = t.table({0: t.byte(1), 1: t.table({0: t.floats(normalization[0]), 1: t.floats(normalization[1])})})
        root = t.table({3: t.vector([t.table({2: t.vector([t.table({4: t.vector([unit])})])})])})
        entry, buffer = schema.MetadataT(), schema.BufferT()
        buffer.data = np.frombuffer(t.finish(root, b"M001"), np.uint8)
        entry.name, entry.buffer = "TFLITE_METADATA", len(tree.buffers)
        tree.buffers.append(buffer)
        tree.metadata = [entry]
    path.write_bytes(pack(tree))
    return path
