"""The class map inside the graph, for callers without `segformer_tf.edge`, in C++ or Kotlin."""

from __future__ import annotations

import numpy as np

from convert.graph import Graph, Op, Tensor, constant


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
    made = Graph()
    made.inputs, made.ops = graph.inputs, list(graph.ops)
    shape = (1, *size, logits.shape[3])
    full = Tensor("mask/logits", shape, logits.dtype, None, logits.quantization)
    wanted = constant("mask/size", np.array(size, np.int32))
    made.ops.append(Op("RESIZE_BILINEAR", [logits, wanted], full, {"alignCorners": False, "halfPixelCenters": True}))
    mask = Tensor("mask", shape[:3], np.int32)
    axis = constant("mask/axis", np.array([3], np.int32))
    made.ops.append(Op("ARG_MAX", [full, axis], mask, {"outputType": "INT32"}))
    made.outputs = [mask, logits]
    return made
