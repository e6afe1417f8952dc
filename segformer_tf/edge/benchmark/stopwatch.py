"""A file on a runtime, timed in a process of its own.

Its arguments: MODEL RUNTIME THREADS IMAGE CONTRACT. One process for each, so that their memory can be told apart and no
runtime's threads get in another's way. An empty IMAGE stands for a picture made here, of the model's size.

Protocol: one line of JSON (`Stopwatch`'s attributes) after the first image, then for each line on standard input the
milliseconds of `STAGES` for one image, as a line of JSON.
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
from segformer_tf.edge.process import Child, answer_stream, run_child
from segformer_tf.edge.runtime import GPU, child_environment
from segformer_tf.edge.segmenter import segment
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.graph_stats import Contents
from segformer_tf.edge.tflite.model import TFLiteModel


class Stopwatch(Child):
    """Times a file on a runtime; a context manager.

    Args:
        path: as `TFLiteModel`.
        runtime: as `TFLiteModel`.
        threads: as `TFLiteModel`.
        image: a picture to segment; None takes one of the model's size.
        contract: as `TFLiteModel`.

    Attributes:
        path: as given.
        runtime: as given.
        recipe: as `TFLiteModel`.
        size: as `TFLiteModel`.
        grid: as `TFLiteModel`.
        memory: the most bytes its process held up to the first mask.
        contents: as `TFLiteModel.contents`.

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
        environment = child_environment(runtime)
        super().__init__(__name__, *arguments, name=f"{path}: {runtime}", environment=environment)
        told = json.loads(self.read())
        self.recipe: str = told["recipe"]
        self.size: tuple[int, int] = (told["size"][0], told["size"][1])
        self.grid: tuple[int, int, int] = tuple(told["grid"])
        self.memory: int = told["memory"]
        self.contents = Contents(**told["contents"]) if told["contents"] else None

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
    written = BytesIO()
    picture.save(written, "JPEG", quality=90)
    return written.getvalue()


def main(path: str, runtime: str, threads: str, image: str, contract: str) -> None:
    """The child's side."""
    answers = answer_stream()
    model = TFLiteModel(path, runtime=runtime, threads=int(threads), contract=Contract.from_json(contract))
    jpeg = b"" if image else sample_jpeg(model.size)

    def once() -> list[float]:
        return list(segment(model, image or Image.open(BytesIO(jpeg)))[2].values())

    def answer(content: object) -> None:
        answers.write(json.dumps(content).encode() + b"\n")
        answers.flush()

    once()
    memory = peak_memory()  # before anything that a device would not do
    contents = model.contents()
    if contents and runtime == GPU:  # it takes a file whole or not at all
        contents = replace(contents, partitions=1, outside={})
    answer(
        {
            "recipe": model.recipe,
            "size": model.size,
            "grid": model.grid,
            "memory": memory,
            "contents": asdict(contents) if contents else None,
        }
    )
    while sys.stdin.buffer.readline():
        answer(once())


def script() -> None:
    """What `Stopwatch` starts."""
    run_child(main)
