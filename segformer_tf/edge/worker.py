"""A `TFLiteModel` in a process of its own: ``python -m segformer_tf.edge.worker MODEL RUNTIME``.

For two reasons: some files crash some runtimes, and tflite-runtime 2.14 refuses every file in a process that
has TensorFlow loaded (their symbols collide: "vector::reserve").

Protocol: the child prints one line of JSON with its shapes, then answers each image (raw uint8) on standard
input with logits (raw float32) on standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.image import Pixels
from segformer_tf.edge.tflite import TFLiteModel
from segformer_tf.errors import InputError


class Worker:
    """Runs a file on a runtime elsewhere; a context manager.

    Args:
        path: as `TFLiteModel`.
        runtime: as `TFLiteModel`.
        seconds: how long one image may take.

    Attributes:
        size: (height, width) of the input.
        grid: (height, width, classes) of the logits.

    Raises:
        InputError: the runtime refuses the file, crashes on it or hangs; also from `logits`.
    """

    def __init__(self, path: str | Path, *, runtime: str | None = None, seconds: float = 300.0) -> None:
        self._runtime = runtime or "the runtime"
        self._seconds = seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "segformer_tf.edge.worker", str(path), runtime or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        greeting = self._read(None)
        shapes = json.loads(greeting)
        self.size: tuple[int, int] = (shapes["size"][0], shapes["size"][1])
        self.grid: tuple[int, int, int] = tuple(shapes["grid"])

    def logits(self, fitted: Pixels) -> NDArray[np.float32]:
        """As `TFLiteModel.logits`."""
        if fitted.shape != (*self.size, 3) or fitted.dtype != np.uint8:
            raise InputError(f"expected uint8 {(*self.size, 3)}. Received: {fitted.dtype} {fitted.shape}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(fitted.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return np.frombuffer(self._read(4 * int(np.prod(self.grid))), np.float32).reshape(self.grid)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self, count: int | None) -> bytes:
        """`count` bytes, or a line; whoever takes too long is killed."""
        assert self._process.stdout is not None
        timer = Timer(self._seconds, self._process.kill)
        timer.start()
        try:
            answer = self._process.stdout.readline() if count is None else self._process.stdout.read(count)
        finally:
            timer.cancel()
        if not answer or (count is not None and len(answer) < count):
            raise self._failure()
        return answer

    def _failure(self) -> InputError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code == -signal.SIGKILL:
            return InputError(f"{self._runtime} did not answer within {self._seconds:g} s, or was killed")
        if code < 0:
            return InputError(f"{self._runtime} crashed on the file ({signal.Signals(-code).name})")
        return InputError(lines[-1] if lines else f"{self._runtime} ended without a reason")


def main(model: str, runtime: str) -> None:
    """The child's side."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loaded = TFLiteModel(model, runtime=runtime or None)
    height, width = loaded.size
    answers.write(json.dumps({"size": loaded.size, "grid": loaded.grid}).encode() + b"\n")
    answers.flush()
    while len(image := sys.stdin.buffer.read(height * width * 3)) == height * width * 3:
        logits = loaded.logits(np.frombuffer(image, np.uint8).reshape(height, width, 3))
        answers.write(np.ascontiguousarray(logits).tobytes())
        answers.flush()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
