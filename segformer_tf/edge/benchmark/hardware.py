"""The machine of a measurement: processor, cores, memory of this process."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes (resident, shared libraries included)."""
    # Linux's `ru_maxrss` starts at the parent's memory; this count does not.
    with suppress(OSError):
        if match := re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(match[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The names of the board, if it has one, and of the processor, as the system gives them."""
    board = _text(Path("/proc/device-tree/model")).strip("\0\n ")
    chip = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    names = [name for name in (board, chip[1].strip() if chip else "") if name]
    if not names and sys.platform == "darwin":
        with suppress(OSError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            names = [subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()]
    return ", ".join([*names, platform.machine()])


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
