"""A contender in a process of its own, which is stopped during the turns of the others.

In one process the engines would share allocators and compete for cores: their threads spin after a call, waiting for
the next. A stopped process does not, so each runs as it does alone, with its own defaults.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segformer_tf.edge.child_process import ChildProcess, answer_stream
from segformer_tf.errors import InputError

_PR_SET_PDEATHSIG = 1  # in Linux' prctl.h


class Remote(ChildProcess):
    """The result of `make`, in a process of its own; a context manager.

    Args:
        make: an importable function, run in that process.
        arguments: of `make`.
        log: file to append the process's output to; None drops it.

    Raises:
        InputError: `make` failed, or the process ended; in one line.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, log: Path | None = None) -> None:
        task, path = _encode((make, arguments)).decode(), {"PYTHONPATH": os.pathsep.join(sys.path)}
        super().__init__(serve, task, name="its process", seconds=3600, environment=path, log=log)
        self.read()
        self._process.send_signal(signal.SIGSTOP)

    def call(self, method: str) -> Any:
        """The value of a method without arguments; the process runs only meanwhile."""
        with self.exchange():
            self._process.send_signal(signal.SIGCONT)
            self.write(f"{method}\n".encode())
            answer = _decode(self.read())
            self._process.send_signal(signal.SIGSTOP)
        return answer


def serve(task: str) -> None:
    """The child's side: an empty line when the object is ready, then a line for every method."""
    if sys.platform == "linux":  # or a stopped process would stay when its parent is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    send = answer_stream()
    make, arguments = _decode(task.encode())
    try:
        target = make(*arguments)
        send(b"\n")
        while method := sys.stdin.readline().strip():
            send(_encode(getattr(target, method)()))
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, ModuleNotFoundError):
            package = (error.name or "a package").split(".")[0].replace("_", "-")
            raise InputError(f"{package} is not installed") from None
        raise


def _encode(value: Any) -> bytes:
    return b64encode(pickle.dumps(value)) + b"\n"


def _decode(line: bytes) -> Any:
    return pickle.loads(b64decode(line))
