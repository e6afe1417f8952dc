"""Writes a folder's ``dataset.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    data: dict[str, Any] = {"name": name, "license": license, "exif": exif}
    lines = [f' "{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in data.items() if value]
    lines.append(' "classes": [\n  ' + ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n ]")
    (root / "dataset.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
