"""What values a graph's tensors take on images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from convert.flatbuffer import to_tflite
from convert.graph import Graph
from convert.static import Ranges
from segformer_tf.edge.image import Pixels


def ranges(graph: Graph, names: Iterable[str], images: Iterable[Pixels]) -> Ranges:
    """Smallest and largest value of tensors of a float graph.

    Args:
        graph: float graph.
        names: of tensors.
        images: (H, W, 3) uint8 of the graph's size.
    """
    from ai_edge_litert.interpreter import Interpreter

    wanted = set(names)
    watched = Graph()
    watched.inputs, watched.ops = graph.inputs, graph.ops
    tensors = [*graph.inputs, *(op.output for op in graph.ops)]
    watched.outputs = [tensor for tensor in tensors if tensor.name in wanted]
    interpreter = Interpreter(model_content=to_tflite(watched), num_threads=2)
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    # Outputs come in the order that the graph names them.
    outputs = dict(zip((t.name for t in watched.outputs), interpreter.get_output_details(), strict=True))
    found = {name: [0.0, 0.0] for name in outputs}
    for pixels in images:
        interpreter.set_tensor(image["index"], pixels[None].astype(np.float32))
        interpreter.invoke()
        for name, details in outputs.items():
            value = interpreter.tensor(details["index"])()
            found[name] = [min(found[name][0], float(value.min())), max(found[name][1], float(value.max()))]
            del value
    return {name: (low, high) for name, (low, high) in found.items()}
