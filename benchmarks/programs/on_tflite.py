"""Logits of a file on a TFLite runtime, by a process of its own, see `benchmarks.programs.programs`."""

from __future__ import annotations

import json
import statistics
import sys
from time import perf_counter

import numpy as np

from segformer_tf.edge.runtime import runtime_version
from segformer_tf.edge.tflite.model import TFLiteModel
from segformer_tf.errors import InputError


def main(model: str, pixels: str, out: str, runtime: str, threads: str, calls: str) -> None:
    """Write the logits of `pixels`, a .npy of the model's size; print the median of `calls` times and the version."""
    opened, image = TFLiteModel(model, runtime=runtime, threads=int(threads)), np.load(pixels)
    milliseconds = []
    for _ in range(int(calls) + 1):
        start = perf_counter()
        logits, _ = opened.answer(image)
        milliseconds.append((perf_counter() - start) * 1e3)
    np.save(out, logits)
    median = statistics.median(milliseconds[1:])  # the first warms up
    print(json.dumps({"ms": median, "version": runtime_version(runtime)}), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
