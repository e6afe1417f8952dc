"""A function run in a process of its own, which answers its parent over standard input and output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Timer
from types import TracebackType
from typing import IO, Self

from segformer_tf.errors import InputError, first_line

_START = b"\0answers follow\n"  # before it comes what a start-up file (sitecustomize, a .pth) prints


class ChildProcess:
    """Runs a function in a new process and exchanges bytes with it; a context manager.

    Args:
        main: an importable function of strings. It answers by `answer_stream`, and may raise InputError.
        arguments: of `main`.
        name: of the process, in error messages.
        seconds: time limit of one answer.
        environment: variables to add to those of this process.
        log: file to append the process's standard error to; None keeps it in a temporary one.

    Raises:
        InputError: from `read` and `write`: the child ended, crashed or hung.
    """

    def __init__(
        self,
        main: Callable[..., None],
        *arguments: str,
        name: str,
        seconds: float = 300.0,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._errors: IO[bytes] = log.open("a+b") if log else tempfile.TemporaryFile()  # noqa: SIM115
        # Not by -m, which warns of modules that importing their package has imported already.
        code = f"from {__name__} import run_child; from {main.__module__} import {main.__name__} as f; run_child(f)"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )
        self._turn = Lock()
        self._failed: InputError | None = None
        self._started = False
        self._end = weakref.finalize(self, _end_in_silence, self._process, self._errors)

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Holds the process for one question and its answer, by one thread at a time.

        An exchange that is interrupted ends the process: its next answer would be to the question before.
        """
        with self._turn:
            if self._failed:
                raise self._failed
            try:
                yield
            except BaseException:
                self._failed = self._failed or InputError(f"{self._name} was interrupted before; open it again")
                self.close()
                raise

    def write(self, question: bytes) -> None:
        """Send bytes."""
        assert self._process.stdin is not None
        try:
            with self._time_limit():
                self._process.stdin.write(question)
                self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def read(self, count: int | None = None) -> bytes:
        """Receive `count` bytes, or a line."""
        assert self._process.stdout is not None
        with self._time_limit():
            while not self._started and (line := self._process.stdout.readline()):
                self._started = line.endswith(_START)
            answer = self._process.stdout.readline() if count is None else self._process.stdout.read(count)
        if not answer or (count is not None and len(answer) < count):
            raise self._failure()
        return answer

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Kills the process after `seconds`."""
        timer = Timer(self._seconds, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process; the garbage collector does it otherwise."""
        if self._end.detach():
            _end(self._process, self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _failure(self) -> InputError:
        with self._time_limit():  # a process that closed its output may not end
            code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code == -signal.SIGKILL:
            reason = f"{self._name} did not answer within {self._seconds:g} s, or was killed"
        elif code < 0:
            reason = f"{self._name} crashed ({signal.Signals(-code).name})"
        else:
            reason = lines[-1] if lines else f"{self._name} ended without a reason"
        self._failed = InputError(reason)
        return self._failed


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    errors.close()


def _end_in_silence(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    with suppress(KeyboardInterrupt):  # a second Ctrl-C; Python would print a traceback and go on
        _end(process, errors)


def run_child(main: Callable[..., None]) -> None:
    """Run the child's function with the command line's arguments; an error becomes the last line on standard error."""
    try:
        main(*sys.argv[1:])
        os._exit(0)
    except Exception as error:  # runtimes raise anything
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        print(reason, file=sys.stderr, flush=True)
        os._exit(1)  # at once: destructors could write more lines, or hang


def answer_stream() -> Callable[[bytes], None]:
    """In the child: a function that sends bytes to the parent.

    What libraries print goes to standard error from now on, not between the answers.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(answer: bytes) -> None:
        answers.write(answer)
        answers.flush()

    send(_START)
    return send
