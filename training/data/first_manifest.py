"""The manifest of a folder that has none, as its masks suggest: says what it assumes, and writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from training.data.folder.assume import Assumption, assume
from training.data.folder.manifest import Manifest
from training.data.folder.manifest_file import find_manifest
from training.data.folder.write import manifest_text


@dataclass(frozen=True)
class FirstManifest:
    """What is assumed of a folder without a manifest.

    Attributes:
        root: the folder.
        manifest: as it would be read.
        data: of it.
        chief: whether this process prints and writes.
    """

    root: Path
    manifest: Manifest
    data: dict[str, Any]
    chief: bool

    def keep(self) -> dict[str, Any] | None:
        """Write the manifest into the folder, and say so.

        Returns:
            Its data, with the folder's path, for a place outside the folder; None once it is in the folder.
        """
        path = find_manifest(self.root)
        content = {**self.data, "note": "as segformer train assumed from the masks"}
        record: dict[str, Any] | None = {**content, "path": str(self.root.resolve())}
        if not self.chief:
            return record
        try:
            write_new(path, content)
        except InputError:
            print(
                f"the assumed {path.name} is kept in the run folder, as {self.root} cannot be written; give that file "
                "as --data from now on"
            )
            return record
        print(
            f"what was assumed is written to {path}: change names and colors there, names before a model is trained, "
            "which keeps them (segformer export --labels gives it others)"
        )
        return None


def first_manifest(data: str, *, chief: bool = True) -> FirstManifest | None:
    """Assume a manifest for a folder without one, and print it; `FirstManifest.keep` writes it.

    Args:
        data: the folder, or another name of a data set.
        chief: whether this process prints and writes.

    Returns:
        None where the data set has a manifest or is no such folder.

    Raises:
        InputError: see `training.data.folder.assume`.
    """
    assumption = assumed(data, quiet=not chief)
    if assumption is None:
        return None
    root, path = Path(data), find_manifest(Path(data))
    if chief:
        print(f"{root}: no {path.name}, so this is assumed:", *assumption.notes, sep="\n  ")
    return FirstManifest(root, Manifest.of(assumption.data, path), assumption.data, chief)


def assumed(data: str, *, quiet: bool = False) -> Assumption | None:
    """What `first_manifest` assumes; nothing is printed or written."""
    root = Path(data)
    if data.startswith("tfds:") or not root.is_dir():
        return None
    if find_manifest(root).is_file() or find_manifest(root.resolve().parent).is_file():  # of a data set, or a split
        return None
    return assume(root, quiet=quiet)


def write_new(path: Path, data: dict[str, Any]) -> None:
    """Write a manifest; raises InputError where that fails or the file exists."""
    if path.exists():
        raise InputError(f"{path}: exists already")
    with atomic(path) as part:
        part.write_text(manifest_text(data), "utf-8")
