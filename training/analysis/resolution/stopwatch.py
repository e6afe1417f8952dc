"""A Keras model timed at several sizes in a process of its own, as `Stopwatch` times a ``.tflite``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from segformer_tf.edge.benchmark.hardware import peak_memory
from segformer_tf.edge.child_process import ChildProcess, answer_stream
from training.protocols import Size


class KerasStopwatch(ChildProcess):
    """Times a model from pixels to logits; a context manager.

    Args:
        model: a ``.keras`` file or a run folder.
        sizes: (height, width) of the images, the smallest first.
        threads: of TensorFlow.

    Attributes:
        memory: of each size, the most bytes the process held up to its first logits, with Python and TensorFlow. It
            never falls from one size to the next.

    Raises:
        InputError: the model cannot be read, or does not take such images.
    """

    def __init__(self, model: Path, sizes: Sequence[Size], *, threads: int) -> None:
        arguments = (str(model), json.dumps(sizes), str(threads))
        super().__init__(main, *arguments, name=f"{model}: Keras")
        self.memory: list[int] = json.loads(self.read())

    def time(self, index: int) -> float:
        """Milliseconds for one image of the size with this number."""
        with self.exchange():
            self.write(b"%d\n" % index)
            return float(json.loads(self.read()))


def main(model: str, sizes: str, threads: str) -> None:
    """The child's side."""
    send = answer_stream()
    from segformer_tf.load_tensorflow import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from segformer_tf.keras_file import load_segformer

    loaded, memory, images = load_segformer(model), [], []
    for height, width in json.loads(sizes):
        images.append(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8))
        loaded.logits(images[-1])  # traced here, and not when it is timed
        memory.append(peak_memory())
    send(json.dumps(memory).encode() + b"\n")
    while line := sys.stdin.buffer.readline():
        started = perf_counter()
        loaded.logits(images[int(line)])
        send(json.dumps(1e3 * (perf_counter() - started)).encode() + b"\n")
