"""A temporary folder of this process's own. TensorFlow and TFDS leave files behind; they go with it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "segformer_tf-scratch-"
_OURS = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")  # as `tempfile` makes them

_held: tuple[Path, int] | None = None  # the folder, and the lock on it


def begin_scratch() -> None:
    """Let `tempfile` here, and in processes that are started from here, use a folder that `end_scratch` removes.

    Removes those of processes that were killed as well: the kernel let go of their locks. Without `fcntl` (Windows)
    there are no locks, and theirs stay.
    """
    global _held
    if _held:
        return
    root = Path(tempfile.gettempdir())
    _sweep(root)
    while not _held:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        with suppress(FileNotFoundError):  # swept by another process before it was locked
            lock = _lock(folder, wait=True)
            if folder.exists():
                _held = folder, -1 if lock is None else lock
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    atexit.register(end_scratch)


def end_scratch() -> None:
    """Remove the folder, if there is one; nothing that is asked of `tempfile` later is affected."""
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
    """A descriptor that holds the folder until it is closed, by whatever end of the process; None without `fcntl`.

    Raises:
        OSError: no such folder, or it is held and we do not wait, or a disk that knows no locks.
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
