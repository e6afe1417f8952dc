"""A file of a rival on LiteRT: the same picture in memory -> logits -> class mask, for a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.files import made_by, versions
from benchmarks.peers.engines import Engine, tflite_inference
from benchmarks.picture import SIZE, normalized, picture
from segformer_tf.edge.benchmark.hardware import peak_memory
from segformer_tf.edge.runtime import open_interpreter
from segformer_tf.edge.tflite.graph_stats import read_graph_stats
from segformer_tf.mask import logits_to_mask


@dataclass(frozen=True)
class Facts:
    """What an open file is, beside its speed.

    Attributes:
        memory: the most bytes that its process has held.
        gmac: 10^9 multiply-adds of its products, or None where the runtime does not list operations.
        partitions: parts that XNNPACK runs.
        outside: operations that it does not run, by name.
        grid: (height, width) of the logits.
        engine, made_by: packages that run it and that made it.
    """

    memory: int
    gmac: float | None
    partitions: int | None
    outside: dict[str, int] | None
    grid: tuple[int, int]
    engine: str
    made_by: str


class Rival:
    """An open file.

    Args:
        path: a ``.tflite``, channels last.
        own: whether it takes RGB of 0..255, as this project's files do; the others take normalized pixels.
        threads: CPU threads.
    """

    def __init__(self, path: Path, own: bool, threads: int) -> None:
        interpreter = open_interpreter(path, runtime="litert", threads=threads, intact=True)
        self._stats = read_graph_stats(interpreter)
        source = interpreter.get_input_details()[0]
        infer, shape = tflite_inference(interpreter, path, lambda _: pixels_for(source, own))
        self._grid = (shape[1], shape[2])
        # Of int8 logits as of their values: one scale for all keeps the order, also after the resize.
        self._engine = Engine(infer, lambda logits: logits_to_mask(logits[0], SIZE), versions("ai-edge-litert"), "")
        self._made_by = made_by(path)

    def turn(self) -> tuple[float, float, float]:
        """Seconds to the logits and to the mask of 512x512, and of all processors together to the logits."""
        to_logits, to_mask = self._engine.turn()
        started = process_time()
        self._engine.infer()
        return to_logits, to_mask, process_time() - started

    def facts(self) -> Facts:
        """After a `turn`, so that memory has had its peak."""
        stats = self._stats
        return Facts(
            memory=peak_memory(),
            gmac=stats.macs / 1e9 if stats else None,
            partitions=stats.partitions if stats else None,
            outside=stats.outside if stats else None,
            grid=self._grid,
            engine=self._engine.engine,
            made_by=self._made_by,
        )


def pixels_for(source: dict[str, Any], own: bool = False) -> NDArray[Any]:
    """The picture as a file takes it, (1, H, W, 3), by the interpreter's details of its input.

    Args:
        source: the details.
        own: RGB of 0..255 instead of normalized pixels.
    """
    dtype, (scale, zero) = source["dtype"], source["quantization"]
    if own:
        return picture()[None].astype(dtype)
    values = np.ascontiguousarray(normalized().transpose(0, 2, 3, 1))
    if np.issubdtype(dtype, np.floating):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(dtype)
