"""What values a graph's tensors take on images."""

from __future__ import annotations

from collections.abc import Iterable

from convert.graph.ir import Graph
from convert.graph.run import run
from convert.quantize.integer import Ranges
from segformer_tf.image import Pixels


def ranges(graph: Graph, names: Iterable[str], images: Iterable[Pixels]) -> Ranges:
    """Smallest and largest value of tensors of a float graph.

    Min-max, the simplest: the 99.99th percentile and least squared error gave the same mean IoU to 0.0002, the 99.9th
    0.003 less (recipe int8, 39 images of CamVid).

    Args:
        graph: float graph.
        names: of tensors.
        images: (H, W, 3) uint8 of the graph's size.
    """
    wanted = set(names)
    watched = Graph()
    watched.inputs, watched.ops = graph.inputs, graph.ops
    tensors = [*graph.inputs, *(op.output for op in graph.ops)]
    watched.outputs = [tensor for tensor in tensors if tensor.name in wanted]
    found: dict[str, tuple[float, float]] = {}
    for values in run(watched, images):
        for name, value in values.items():
            low, high = found.get(name, (0.0, 0.0))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found
