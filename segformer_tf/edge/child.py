"""A module of this package run as a process of its own, which answers its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from threading import Timer
from types import TracebackType
from typing import IO, BinaryIO, Self

from segformer_tf.errors import InputError


class Child:
    """Starts ``python -m MODULE ARGUMENTS`` and speaks with it by its standard input and output; a context manager.

    Args:
        module: what to run; it answers on `answer_stream`, and ends with one line on standard error where it cannot.
        arguments: for the command line.
        name: who it is, in errors.
        seconds: how long one answer may take.
        environment: variables to add to those of this process.

    Raises:
        InputError: from `read` and `write`: the child ended, crashed or hung.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        name: str,
        seconds: float = 300.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )

        self._end = weakref.finalize(self, _end, self._process, self._errors)

    def write(self, question: bytes) -> None:
        """Send bytes."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def read(self, count: int | None = None) -> bytes:
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

    def close(self) -> None:
        """End the process; whoever forgets it leaves that to the garbage collector."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _failure(self) -> InputError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code == -signal.SIGKILL:
            return InputError(f"{self._name} did not answer within {self._seconds:g} s, or was killed")
        if code < 0:
            return InputError(f"{self._name} crashed ({signal.Signals(-code).name})")
        return InputError(lines[-1] if lines else f"{self._name} ended without a reason")


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    errors.close()


def answer_stream() -> BinaryIO:
    """The child's way to its parent; what libraries print goes to standard error, not between the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers
