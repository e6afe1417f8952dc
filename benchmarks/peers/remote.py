"""A contender in a process of its own, which is stopped while the others have their turn.

In one process the engines would share allocators and fight over cores: their threads spin after a call, waiting for
the next. A stopped process spins no longer, so each runs as it does alone, with its own defaults.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_GOODBYE = 10  # seconds to end in, before it is made to
_PR_SET_PDEATHSIG = 1  # of Linux' prctl.h


class LeftOut(Exception):
    """Why a contender does not take part, in a line."""


class Remote:
    """What `make` returns, in a process of its own.

    Args:
        make: an importable function, run in that process.
        arguments: of `make`.
        log: file to which what the process prints is appended; None for nowhere.

    Raises:
        LeftOut: `make` failed: what is not installed, or the error's first line, or the signal that ended it.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, log: Path | None = None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit this process' threads and libraries
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, log, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer()
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def call(self, method: str) -> Any:
        """The value of a method without arguments; the process runs only meanwhile."""
        self._signal(signal.SIGCONT)
        self._pipe.send(method)
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._signal(signal.SIGCONT)
        self._process.join(_GOODBYE)
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _signal(self, number: int) -> None:
        assert self._process.pid is not None
        if self._process.exitcode is None:
            os.kill(self._process.pid, number)

    def _answer(self) -> Any:
        try:
            failure, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode or 0
            end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise LeftOut(f"its process ended: {end}") from None
        if failure is not None:
            raise LeftOut(failure)
        return value


def _serve(pipe: Connection, log: Path | None, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The process' side: ("why it failed" or None, value) for `make` and for every method asked for."""
    if sys.platform == "linux":  # or it would stay, stopped for ever, where this command is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    try:
        made = make(*arguments)
        pipe.send((None, None))
        while True:
            pipe.send((None, getattr(made, pipe.recv())()))
    except EOFError:  # nobody asks any more
        return
    except Exception as error:
        traceback.print_exc()
        pipe.send((_reason(error), None))


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{(error.name or 'a package').split('.')[0].replace('_', '-')} is not installed"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
