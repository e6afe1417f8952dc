"""Children of the device library, forked from a process that has imported it, which takes most of a child's time."""

from __future__ import annotations

import multiprocessing.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import context, forkserver, popen_forkserver, reduction
from threading import Lock
from typing import IO, Any
from unittest.mock import patch

from segformer_tf.edge.child_process import run_child

PIPE = subprocess.PIPE
_PYTHON = sys.executable
# Those that are started by the hundred. What measures a process has a fresh one.
_MAINS = ("segformer_tf.edge.isolated", "main"), ("segformer_tf.edge.runtime", "run_once")

# Beside the one of `tests.forked`, which has TensorFlow: tflite-runtime refuses to be in a process with it.
_server, _turn = forkserver.ForkServer(), Lock()
_server.set_forkserver_preload(["segformer_tf.edge", "tests.children"])


def Popen(command: Sequence[str], *, stdin: int, stdout: int, stderr: IO[bytes], env: Mapping[str, str]) -> Any:
    """In place of `subprocess.Popen` in `segformer_tf.edge.child_process`."""
    found = re.search(r"; from (\S+) import (\w+) as f;", command[3])
    if found and found.groups() in _MAINS and command[0] == _PYTHON:  # not another processor's, as in tests/arm
        return _Child(found.groups(), command[4:], stderr, env)
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env)


class _Child:
    """What `ChildProcess` asks of a `subprocess.Popen`."""

    def __init__(self, main: tuple[str, ...], words: Sequence[str], errors: IO[bytes], env: Mapping[str, str]) -> None:
        (read, write), (answers, answer) = os.pipe(), os.pipe()
        descriptors = [_Descriptor(number) for number in (read, answer, errors.fileno())]
        self._process = _Process(target=_run, args=(*main, list(words), dict(env), *descriptors), daemon=True)
        try:
            self._process.start()
        except BaseException:
            for number in (write, answers):
                os.close(number)
            raise
        finally:
            for number in (read, answer):
                os.close(number)
        self.pid = self._process.pid
        self.stdin, self.stdout = open(write, "wb"), open(answers, "rb")  # noqa: SIM115
        # At its end Python asks those that are left with SIGTERM and waits, however long they take.
        multiprocessing.util.Finalize(self, self._process.kill, exitpriority=0)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def communicate(self) -> None:
        """Close its ends and wait for it."""
        for stream in (self.stdin, self.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self.wait()


class _Descriptor:
    """A file descriptor as an argument of a process."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return _received, (reduction.DupFd(self._number),)


def _received(duplicate: Any) -> int:
    return duplicate.detach()


class _Popen(popen_forkserver.Popen):
    def _launch(self, process: Any) -> None:
        with _turn, patch.object(forkserver, "connect_to_new_process", _server.connect_to_new_process):
            super()._launch(process)


class _Process(context.ForkServerProcess):
    @staticmethod
    def _Popen(process: Any) -> _Popen:
        return _Popen(process)


def _run(module: str, name: str, words: list[str], environment: dict[str, str], *descriptors: int) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin = open(0)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # by the TMPDIR of then
    sys.argv = ["-c", *words]
    run_child(getattr(import_module(module), name))
