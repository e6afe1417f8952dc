"""Unpacks a stranger's .zip: images and annotations alone, nothing outside, no links, not too much."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from segformer_tf.errors import InputError, first_line
from segformer_tf.image import IMAGE_SUFFIXES

_TEXTS = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
_MOST_BYTES = 1 << 30  # of a small archive; a large one may hold this many times its size:
_MOST_TIMES = 100


def unpack(path: Path, folder: Path) -> None:
    """Unpack images and annotations; raises InputError for a name that leads out or comes twice, or for too many bytes.

    Archives of some Windows programs have backslashes between folders.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            most = max(_MOST_BYTES, _MOST_TIMES * path.stat().st_size)
            if sum(member.file_size for member in members) > most:
                raise InputError(f"{path}: unpacks to more than {most} bytes; unpack it yourself if you trust it")
            for member in members:
                parts = PurePosixPath(member.filename.replace("\\", "/")).parts
                if ".." in parts or parts[:1] == ("/",) or any(":" in part for part in parts):
                    raise InputError(f"{path}: holds {member.filename!r}, which leads out of the archive")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise InputError(f"{path}: holds {member.filename!r}, a link")
                if PurePosixPath(*parts).suffix.lower() in (*_TEXTS, *IMAGE_SUFFIXES):
                    to = folder.joinpath(*parts)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    if to.exists():  # or in another case, on disks for which that is the same
                        raise InputError(f"{path}: holds {member.filename!r} twice")
                    with archive.open(member) as packed, to.open("xb") as file:
                        shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be unpacked ({first_line(error)})") from None
