"""Makes ``.cpp/``: TensorFlow Lite's C API, headers and library, of Debian unstable, and the libraries that it needs.

``make test-cpp`` calls it. Debian 12 has no such package, and its libc is too old for this one; so programs are built
by the machine's compiler and run by the loader in this folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.debian import run, unpack_debian

FOLDER = Path(__file__).parents[2] / ".cpp"
LIBRARIES = FOLDER / "lib"


def main() -> None:
    """Make the folder, in one piece."""
    architecture = run(["dpkg", "--print-architecture"], "test-cpp needs Debian").strip()
    part = FOLDER.with_name(".cpp.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    unpack_debian(["libtensorflow-lite-dev"], part / "root", part / "apt", architecture=architecture, suite="sid")
    (part / "include").mkdir()
    # Not all of include/: the C library's headers there are for a newer compiler.
    shutil.move(part / "root" / "usr" / "include" / "tensorflow", part / "include")
    (library,) = (part / "root" / "usr" / "lib").glob("*/libtensorflow-lite.so")
    shutil.move(library.parent, part / "lib")
    shutil.rmtree(part / "root")
    shutil.rmtree(FOLDER, ignore_errors=True)
    part.rename(FOLDER)


if __name__ == "__main__":
    main()
