"""The speed that other speeds are compared with: numpy's float32 matrix product, timed in a process of its own.

The threads of numpy's BLAS have to be set before numpy is imported.
"""

from __future__ import annotations

import sys
from time import perf_counter

import numpy as np

from segformer_tf.edge.child_process import ChildProcess, answer_stream

_SIDE = 1024
GFLOP = 2 * _SIDE**3 / 1e9

# OpenBLAS, MKL, Apple's Accelerate, and builds on OpenMP.
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
# OpenBLAS's threads would spin for 50 ms after a product, on cores that the next process needs.
_SLEEP_AT_ONCE = {"OPENBLAS_THREAD_TIMEOUT": "4", "KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "passive"}


class Matmul(ChildProcess):
    """Times the product of two 1024x1024 matrices, `GFLOP` billion operations, on `threads`; a context manager."""

    def __init__(self, threads: int) -> None:
        environment = dict.fromkeys(_THREADS, str(threads)) | _SLEEP_AT_ONCE
        super().__init__(main, name="numpy's matrix product", environment=environment)

    def __call__(self) -> list[float]:
        """Milliseconds of one product, in a list, like the stages of a `Stopwatch`."""
        with self.exchange():
            self.write(b"\n")
            return [float(self.read())]


def main() -> None:
    """The child's side: for each line on standard input, milliseconds on a line."""
    send = answer_stream()
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((_SIDE, _SIDE), np.float32) for _ in range(2))
    out = np.empty_like(left)
    while sys.stdin.buffer.readline():
        start = perf_counter()
        np.matmul(left, right, out=out)
        send(f"{(perf_counter() - start) * 1e3}\n".encode())
