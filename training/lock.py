"""Locks between processes, which the kernel releases when a process ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, *, when_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; on a disk without locks, do nothing.

    Args:
        when_busy: called if another process holds it; when it returns, we wait.
    """
    # Never a lock by the mere existence of a file: a kill would leave it. Other users may hold it, too.
    lock = FileLock(path, mode=0o666, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            when_busy()
            lock.acquire()
    except (NotImplementedError, OSError):  # what filelock raises on a disk without locks
        pass
    try:
        yield
    finally:
        lock.release()
