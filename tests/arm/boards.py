"""Makes ``.arm/``: emulated ARM boards, each an executable ``.arm/BOARD/python`` that has both TFLite runtimes.

``make test-arm`` calls it. Python 3.11 is Debian 12's, from the mirror that apt is set up with; the runtimes are
aarch64 wheels, from where pip is set up to look. Neither root's rights nor a container: qemu runs a single process
and looks for its files below the board's folder first.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.debian import run, unpack_debian

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / ".arm"
SITE = FOLDER / "site"
# CPU as qemu spells it: its part number in /proc/cpuinfo. Without dot products (Raspberry Pi 4) and with (Pi 5).
BOARDS = {"cortex-a72": "0xd08", "cortex-a76": "0xd0b"}
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")

_PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
_WHEELS = ("tflite-runtime==2.14.0", "ai-edge-litert>=2.1,<3", "numpy>=1.26,<2", "Pillow>=10.1")
_NEWEST_GLIBC = 36  # Debian 12 has 2.36
_OLDEST_GLIBC = 17


def main() -> None:
    """Make the folder, in one piece: a run that is ended early leaves none that is taken for whole."""
    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    if emulator is None or not all(map(shutil.which, ("apt-get", "dpkg"))):
        sys.exit("test-arm needs qemu's emulation of single programs, on Debian: apt-get install qemu-user-static")
    part, old = FOLDER.with_name(".arm.part"), FOLDER.with_name(".arm.old")
    for folder in (part, old):
        shutil.rmtree(folder, ignore_errors=True)
    part.mkdir()
    unpack_debian(_PACKAGES, part / "root", part / "apt", architecture="arm64")
    _install_wheels(part / "site")
    for cpu, number in BOARDS.items():
        _make_board(part / cpu, emulator, cpu, number)
    if FOLDER.exists():
        FOLDER.rename(old)
    part.rename(FOLDER)
    shutil.rmtree(old, ignore_errors=True)


def _install_wheels(site: Path) -> None:
    """The runtimes' newest wheels that Debian 12 on ARM can use, and what they need."""
    glibc = range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)
    platforms = [*(f"manylinux_2_{minor}_aarch64" for minor in glibc), "manylinux2014_aarch64"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), "--python-version", "3.11"]
    command += ["--implementation", "cp", "--only-binary=:all:", *(f"--platform={name}" for name in platforms)]
    run([*command, *_WHEELS], "pip finds no wheels for aarch64")


def _make_board(board: Path, emulator: str, cpu: str, number: str) -> None:
    """A root of its own, for its /proc/cpuinfo; the host's has no part number, on which LiteRT 2.3 crashes."""
    (board / "proc").mkdir(parents=True)
    for name in ("usr", "lib", "etc"):
        (board / name).symlink_to(Path("..", "root", name))
    facts = {"CPU implementer": "0x41", "CPU architecture": "8", "CPU variant": "0x0", "CPU part": number}
    cores = [{"processor": core, **facts, "CPU revision": "3"} for core in range(os.cpu_count() or 1)]
    text = "\n".join("".join(f"{name}\t: {value}\n" for name, value in core.items()) for core in cores)
    (board / "proc" / "cpuinfo").write_text(text)
    home = FOLDER / cpu
    python = board / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{emulator}" -cpu {cpu} -L "{home}" -E "PYTHONPATH={SITE}:{REPOSITORY}" '
        f'"{home}/usr/bin/python3.11" "$@"\n'
    )
    python.chmod(0o755)


if __name__ == "__main__":
    main()
