"""The notebook runs as it is printed, with fewer steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segformer_tf.edge import read_model_info

NOTEBOOK = Path(__file__).parents[1] / "examples" / "folder_to_device.ipynb"


@pytest.mark.usefixtures("quick")
def test_a_folder_becomes_a_file_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    assert "steps, size = 1000, 128" in code[0]
    values: dict = {}
    for i, source in enumerate(code):
        exec(compile(source.replace("= 1000,", "= 2,"), f"cell {i}", "exec"), values)
    assert read_model_info(values["file"]).recipe == "int8"
    assert values["result"].mask.shape == (128, 128)
