"""A temporary folder for this process, removed at its end with the files that TensorFlow and TFDS leave behind."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "segformer_tf-scratch-"
_OURS = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")  # the suffix is `tempfile`'s

_held: tuple[Path, int] | None = None  # the folder, and the lock on it


def begin_scratch() -> None:
    """Make a folder for `tempfile`, in this process and those it starts, which `end_scratch` removes.

    Also removes the folders of processes that were killed, whose locks the kernel has released. Without `fcntl`
    (Windows) there are no locks, and those folders stay.
    """
    global _held
    if _held:
        return
    root = Path(tempfile.gettempdir())
    _sweep(root)
    while not _held:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        with suppress(FileNotFoundError):  # removed by another process before it was locked
            lock = _lock(folder, wait=True)
            if folder.exists():
                _held = folder, -1 if lock is None else lock
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    atexit.register(end_scratch)


def end_scratch() -> None:
    """Remove the folder, if there is one; `tempfile` works on in its parent."""
    global _held
    if not _held:
        return
    folder, lock = _held
    _held, tempfile.tempdir = None, str(folder.parent)
    os.environ["TMPDIR"] = str(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)
    if lock >= 0:
        os.close(lock)


def _sweep(root: Path) -> None:
    """Remove folders whose process is gone."""
    for folder in root.glob(f"{_PREFIX}*"):
        if not _OURS.fullmatch(folder.name) or folder.is_symlink():
            continue
        with suppress(OSError):  # locked, another user's, or gone
            if (lock := _lock(folder, wait=False)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A descriptor that locks the folder until it is closed, at the latest by the process's end; None without `fcntl`.

    Raises:
        OSError: no such folder, a lock that we do not wait for, or a disk without locks.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        if not wait:
            os.close(descriptor)
            raise
    return descriptor
