"""The graphs that are timed: untrained networks, compressed, made by ``make plan-graphs``."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

NUM_CLASSES = 11  # of the shipped graphs
# (height, width) that each variant is timed at. Their width sets the speed: b1 to b5 share that of b2.
TIMED_SIZES = {"b0": ((256, 256), (512, 512)), "b2": ((192, 192), (384, 384))}
TIMED_RECIPES = ("fp32", "dynamic_int8", "int8")

_NAME = re.compile(r"(\w+?)_(\w+)_(\d+)x(\d+)\.tflite\.gz")


@dataclass(frozen=True)
class TimedGraph:
    """A graph of the package.

    Attributes:
        variant, recipe: what it is.
        size: (height, width) of its input.
        data: the content of its ``.tflite``.
    """

    variant: str
    recipe: str
    size: tuple[int, int]
    data: bytes

    def write(self, folder: Path) -> Path:
        """Write the ``.tflite`` into a folder."""
        path = folder / f"{self.variant}_{self.recipe}_{self.size[0]}x{self.size[1]}.tflite"
        path.write_bytes(self.data)
        return path


def shipped_graphs() -> list[TimedGraph]:
    """Every graph of the package, by variant, recipe and size."""
    graphs = []
    for resource in files("segformer_tf.edge.plan").joinpath("graphs").iterdir():
        if match := _NAME.fullmatch(resource.name):
            variant, recipe, height, width = match.groups()
            data = gzip.decompress(resource.read_bytes())
            graphs.append(TimedGraph(variant, recipe, (int(height), int(width)), data))
    return sorted(graphs, key=lambda graph: (graph.variant, graph.recipe, graph.size))
