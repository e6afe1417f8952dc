"""Writes a folder's ``dataset.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segformer_tf.labels import Color
from training.data.folder.manifest import Exif


def write_manifest(
    root: Path,
    classes: Sequence[tuple[int, str, Color]],
    *,
    name: str,
    license: str = "",
    exif: Exif | None = None,
) -> None:
    """Write `root`/dataset.json, which `training.data.folder.manifest` reads.

    Args:
        root: the folder.
        classes: id in masks, name and color of each.
        name: of the data set.
        license: its terms, or "".
        exif: see `Manifest`.
    """
    rows = [{"id": i, "name": text, "color": list(color)} for i, text, color in classes]
    terms = {key: value for key, value in (("license", license), ("exif", exif)) if value}
    (root / "dataset.json").write_text(manifest_text({"name": name, **terms, "classes": rows}), "utf-8")


def manifest_text(data: Mapping[str, Any]) -> str:
    """The data of a manifest as JSON, a class per line."""
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in data.items()}
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in data["classes"])
    texts["classes"] = f"[\n{rows}\n ]"
    whole = "{\n" + ",\n".join(f" {json.dumps(key)}: {text}" for key, text in texts.items()) + "\n}\n"
    return whole.encode("utf-8", "backslashreplace").decode()  # a folder's name may be no letters
