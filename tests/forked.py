"""Processes of the command, forked from one that has imported TensorFlow and nothing of ours: the import takes 5 s."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import SkipTest


@cache
def _server() -> Any:
    """Raises SkipTest where there is no fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise SkipTest("this system cannot fork processes")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "keras", "matplotlib.figure"])
    return context


class Forked:
    """As `subprocess.Popen` of ``[sys.executable, "-c", PROGRAM, WORD, ...]``, with its outputs in files.

    Attributes:
        pid: of the process, which has no other between it and its signals.
        output, errors: the files.
    """

    def __init__(self, command: Sequence[object], environment: Mapping[str, str] | None = None) -> None:
        _, _, program, *words = map(str, command)
        self.command = command
        folder = Path(tempfile.mkdtemp())
        self.output, self.errors = folder / "output", folder / "errors"
        for path in (self.output, self.errors):
            path.touch()
        arguments = (program, words, dict(environment or os.environ), self.output, self.errors)
        self._process = _server().Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        # At its end Python asks those that are left with SIGTERM and waits, however long they take.
        multiprocessing.util.Finalize(self, self._process.kill, exitpriority=0)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self.poll() is None, self.errors.read_text()
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.command), timeout or 0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed until its end, to standard output and standard error."""
        self.wait(timeout)
        return self.output.read_text(), self.errors.read_text()

    def wait_for(self, line: str) -> None:
        """Until it has printed a line, to either."""
        while line.encode() not in [*self.output.read_bytes().splitlines(), *self.errors.read_bytes().splitlines()]:
            assert self.poll() is None, self.errors.read_text()
            time.sleep(0.02)


def _run(program: str, words: list[str], environment: dict[str, str], output: Path, errors: Path) -> None:
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    if sys.platform == "linux":  # a thread would be missing here, perhaps with a lock that it held
        assert len(os.listdir(f"/proc/{os.getppid()}/task")) == 1
    ours = [name for name in sys.modules if name.split(".")[0] in ("segformer_tf", "training", "convert", "torch")]
    assert not ours, ours
    gc.freeze()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # by the TMPDIR of then
    sys.argv = ["-c", *words]
    exec(program, {"__name__": "__main__"})
