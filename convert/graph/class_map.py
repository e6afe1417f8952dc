"""The class map inside the graph, for callers without `segformer_tf.edge`, in C++ or Kotlin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convert.graph.ir import Graph, Op, Tensor, constant


def with_class_map(graph: Graph, size: tuple[int, int]) -> Graph:
    """The graph with another output, ``mask`` (1, height, width) int32: arg-max of the logits at the input's size.

    The logits stay last: MediaPipe's ImageSegmenter makes its masks of the last output, whatever it is.

    It costs full-size logits, memory and time, on a CPU about as much as the network; the arg-max stays outside the
    delegate.

    Args:
        graph: of any recipe, whose output is logits.
        size: (height, width) of the input.
    """
    (logits,) = graph.outputs
    filled, ops = _whole_vectors(logits)
    full = Tensor("mask/logits", (1, *size, filled.shape[3]), filled.dtype, None, filled.quantization)
    new_size = constant("mask/size", np.array(size, np.int32))
    ops.append(Op("RESIZE_BILINEAR", [filled, new_size], full, {"alignCorners": False, "halfPixelCenters": True}))
    mask = Tensor("mask", full.shape[:3], np.int32)
    axis = constant("mask/axis", np.array([3], np.int32))
    ops.append(Op("ARG_MAX", [full, axis], mask, {"outputType": "INT32"}))
    return replace(graph, ops=[*graph.ops, *ops], outputs=[mask, logits])


def _whole_vectors(logits: Tensor) -> tuple[Tensor, list[Op]]:
    """The logits with channels that never win, up to a multiple of four, and the operations that add them.

    A GPU keeps channels in vectors of four, filled up with zeros. LiteRT's ARG_MAX there reads the fill as well: where
    every logit is negative it gave a class that does not exist.
    """
    if not (missing := -logits.shape[3] % 4):
        return logits, []
    lowest = np.finfo(np.float16).min / 2 if logits.dtype == np.float32 else np.iinfo(logits.dtype).min
    shape = (*logits.shape[:3], missing)
    fill = Tensor("mask/fill", shape, logits.dtype, np.full(shape, lowest, logits.dtype), logits.quantization)
    whole = Tensor("mask/whole", (*shape[:3], logits.shape[3] + missing), logits.dtype, None, logits.quantization)
    return whole, [Op("CONCATENATION", [logits, fill], whole, {"axis": 3})]
