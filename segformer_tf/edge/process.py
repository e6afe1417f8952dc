"""A module of this package run as a process of its own, which answers its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, Timer
from types import TracebackType
from typing import IO, BinaryIO, Self

from segformer_tf.errors import InputError


class Child:
    """Starts a module's ``script()`` and speaks with it by its standard input and output; a context manager.

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
            # Not by -m, for whoever imports this package has most of its modules imported already.
            [sys.executable, "-P", "-c", f"from {module} import script; script()", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )

        self._turn = Lock()
        self._failed: InputError | None = None
        self._end = weakref.finalize(self, _end, self._process, self._errors)

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """A question and its answer, of one thread at a time.

        One that is broken off ends the child: its next answer would be to the question before.
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
            with self._in_time():
                self._process.stdin.write(question)
                self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def read(self, count: int | None = None) -> bytes:
        """`count` bytes, or a line."""
        assert self._process.stdout is not None
        with self._in_time():
            answer = self._process.stdout.readline() if count is None else self._process.stdout.read(count)
        if not answer or (count is not None and len(answer) < count):
            raise self._failure()
        return answer

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Kills a child that takes too long."""
        timer = Timer(self._seconds, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process; whoever forgets it leaves that to the garbage collector."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _failure(self) -> InputError:
        with self._in_time():  # one that closed its output may not end
            code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code == -signal.SIGKILL:
            said = f"{self._name} did not answer within {self._seconds:g} s, or was killed"
        elif code < 0:
            said = f"{self._name} crashed ({signal.Signals(-code).name})"
        else:
            said = lines[-1] if lines else f"{self._name} ended without a reason"
        self._failed = InputError(said)
        return self._failed


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    errors.close()


def run_child(main: Callable[..., None]) -> None:
    """Run the child's side with the command line's arguments: an error is one line, the last one on standard error."""
    try:
        main(*sys.argv[1:])
        os._exit(0)
    except Exception as error:  # runtimes raise what they like
        reason = (str(error).splitlines() or [""])[0]
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {reason}"
        print(said, file=sys.stderr, flush=True)
        os._exit(1)  # here: what `error` holds would write more when it goes, and might not end


def answer_stream() -> BinaryIO:
    """The child's way to its parent; what libraries print goes to standard error, not between the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers
