"""Files that stand in two splits byte by byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import file_digest
from pathlib import Path


def same_files(here: Iterable[Path], there: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of equal files, one of either list, in the order of `here`; only files of equal size are read.

    Raises:
        OSError: a file that cannot be read.
    """
    theirs: dict[int, list[Path]] = defaultdict(list)
    for path in there:
        theirs[path.stat().st_size].append(path)
    digests: dict[Path, str] = {}

    def digest(path: Path) -> str:
        if path not in digests:
            with path.open("rb") as file:
                digests[path] = file_digest(file, "sha256").hexdigest()
        return digests[path]

    return [
        (path, other) for path in here for other in theirs.get(path.stat().st_size, []) if digest(path) == digest(other)
    ]
