"""Runs a graph here, on LiteRT, to look at its tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph
from segformer_tf.edge.runtime import choose_runtime
from segformer_tf.image import Pixels


def run(graph: Graph, images: Iterable[Pixels]) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The outputs of a graph, by name, for one image after another.

    Args:
        graph: with one input, of pixels.
        images: (H, W, 3) uint8 of the graph's size.

    Raises:
        InputError: LiteRT is not installed.
    """
    choose_runtime("litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=to_tflite(graph), num_threads=min(4, os.cpu_count() or 1))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    # Outputs come in the order in which the graph names them.
    outputs = list(zip((tensor.name for tensor in graph.outputs), interpreter.get_output_details(), strict=True))
    for pixels in images:
        interpreter.set_tensor(image["index"], pixels[None].astype(image["dtype"]))
        interpreter.invoke()
        yield {name: interpreter.get_tensor(details["index"]) for name, details in outputs}
