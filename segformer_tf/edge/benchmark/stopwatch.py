"""A file on a runtime, timed in a process of its own, which shares memory and threads with no other.

Protocol: after the first image the child sends one line of JSON, `Stopwatch`'s attributes; then, for each line on
standard input, the milliseconds of each of `STAGES` for one image, as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from segformer_tf.edge.benchmark.hardware import peak_memory
from segformer_tf.edge.child_process import ChildProcess, answer_stream
from segformer_tf.edge.runtime import GPU, child_environment
from segformer_tf.edge.segmenter import segment
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.graph_stats import GraphStats
from segformer_tf.edge.tflite.model import TFLiteModel


class Stopwatch(ChildProcess):
    """Times a file on a runtime; a context manager.

    Args:
        path, runtime, threads, contract: arguments of `TFLiteModel`.
        image: a picture to segment; None takes one of the model's size.

    Attributes:
        path, runtime: the arguments.
        recipe, size, grid: of the `TFLiteModel`.
        memory: the most bytes its process held up to the first mask; on the GPU with the CPU interpreter that checks
            the first result.
        graph: operations of the file, or None if the runtime does not list them.

    Raises:
        InputError: the runtime refuses the file, crashes on it or hangs, or the image cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        runtime: str,
        threads: int,
        image: Path | None = None,
        contract: Contract | None = None,
    ) -> None:
        self.path, self.runtime = path, runtime
        arguments = (str(path), runtime, str(threads), str(image or ""), (contract or Contract()).to_json())
        super().__init__(main, *arguments, name=f"{path}: {runtime}", environment=child_environment(runtime))
        attributes = json.loads(self.read())
        self.recipe: str = attributes["recipe"]
        self.size: tuple[int, int] = tuple(attributes["size"])
        self.grid: tuple[int, int, int] = tuple(attributes["grid"])
        self.memory: int = attributes["memory"]
        self.graph = GraphStats(**attributes["graph"]) if attributes["graph"] else None

    def __call__(self) -> list[float]:
        """Milliseconds of each of `STAGES`, for one image."""
        with self.exchange():
            self.write(b"\n")
            return list(json.loads(self.read()))


def sample_jpeg(size: tuple[int, int]) -> bytes:
    """A JPEG of (height, width) with surfaces, edges and grain, so that decoding it is like decoding a photograph."""
    height, width = size
    rng = np.random.default_rng(0)

    def noise(grain: int) -> Image.Image:
        coarse = rng.integers(0, 256, (height // grain + 2, width // grain + 2, 3), np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    picture = Image.blend(Image.blend(noise(64), noise(8), 0.3), noise(1), 0.08)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def main(path: str, runtime: str, threads: str, image: str, contract: str) -> None:
    """The child's side; an empty `image` stands for `sample_jpeg` of the model's size."""
    send = answer_stream()
    model = TFLiteModel(path, runtime=runtime, threads=int(threads), contract=Contract.from_json(contract))
    jpeg = b"" if image else sample_jpeg(model.size)

    def once() -> list[float]:
        return list(segment(model, image or Image.open(BytesIO(jpeg)))[2].values())

    def answer(value: object) -> None:
        send(json.dumps(value).encode() + b"\n")

    once()
    memory = peak_memory()  # before anything that a device would not do
    graph = model.graph_stats()
    if graph and runtime == GPU:  # it takes a file whole or not at all
        graph = replace(graph, partitions=1, outside={})
    attributes = {"recipe": model.recipe, "size": model.size, "grid": model.grid, "memory": memory}
    answer({**attributes, "graph": asdict(graph) if graph else None})
    while sys.stdin.buffer.readline():
        answer(once())
