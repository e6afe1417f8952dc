"""What native libraries write to standard error, past sys.stderr and any log level."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def native_silence() -> Iterator[None]:
    """Drop it; for calls that report failure by exceptions."""
    with open(os.devnull, "wb") as nowhere, _stderr_into(nowhere.fileno()):
        yield


@contextmanager
def native_log() -> Iterator[Callable[[], str]]:
    """Keep it, and give a function that reads it."""
    with tempfile.TemporaryFile() as file, _stderr_into(file.fileno()):

        def read() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        yield read


@contextmanager
def _stderr_into(descriptor: int) -> Iterator[None]:
    sys.stderr.flush()
    original = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
