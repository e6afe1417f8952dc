"""Unpacks Debian packages into a folder, with an apt of its own: that of the machine learns nothing of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpack_debian(packages: Sequence[str], root: Path, apt: Path, *, architecture: str, suite: str = "") -> None:
    """Unpack packages and what they depend on, from the mirror that apt is set up with. Neither root's rights needed.

    Args:
        packages: their names.
        root: folder to unpack into.
        apt: folder for apt's own files, removed at the end.
        architecture: Debian's name of it.
        suite: another than the machine's own, such as "sid".
    """
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    settings: dict[str, object] = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",  # apt's own user may not reach this folder
        "Acquire::Languages": "none",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "true",
    }
    if suite:
        mirrors = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], "apt does not list its mirrors").split()
        mirror = next((mirror for mirror in mirrors if "security" not in mirror), None)
        if mirror is None:
            sys.exit("apt is set up with no mirror, or was never updated: apt-get update")
        (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n")
        settings |= {"Dir::Etc::SourceList": apt / "sources.list", "Dir::Etc::SourceParts": "/dev/null"}
    command = ["apt-get", "-qq", "--yes"]
    command += [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    run([*command, "update"], f"apt-get finds no packages for {architecture}")
    run([*command, "--download-only", "install", *packages], f"apt has not all of {', '.join(packages)}")
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        run(["dpkg", "-x", str(package), str(root)], f"{package.name} cannot be unpacked")
    shutil.rmtree(apt)


def run(command: list[str], reason: str) -> str:
    """The output of a command; ends the process with `reason` and the last line of its error where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"])[-1]
        sys.exit(f"{reason} ({last})")
    return done.stdout
