"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from segformer_tf.errors import InputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; rename it on success, remove it on failure.

    Raises:
        InputError: the folder cannot be made or written.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raises InputError if one of them exists."""
    if existing := [path for path in paths if path.exists()]:
        more = f" and {len(existing) - 1} more" if existing[1:] else ""
        raise InputError(f"{existing[0]}{more}: exists already; give another name, or --overwrite")


def make_folder(path: Path) -> None:
    """Make a folder and its parents; raises InputError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is there" if path.is_file() else error.strerror
        raise InputError(f"{path}: the folder cannot be made ({reason})") from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; rename it to `path` on success, remove it on failure.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        make_folder(path.parent)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = Path(folder) / path.name
            part.mkdir()
            yield part
            part.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
