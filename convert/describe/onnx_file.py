"""An ``.onnx`` file in words."""

from __future__ import annotations

from pathlib import Path

from convert.describe.recorded import recorded
from convert.onnx.facts import read_facts


def describe_onnx(path: Path) -> dict[str, str]:
    """Facts by name; raises InputError for no such file, or a damaged one."""
    ends, model_info = read_facts(path)
    recipe = model_info.recipe if model_info else "unknown"
    return {"recipe": recipe, "size": f"{path.stat().st_size / 1e6:.2f} MB", **ends, **recorded(model_info)}
