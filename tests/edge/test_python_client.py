"""examples/python, run: its masks are those of `Segmenter`."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.edge import Segmenter

CLIENT = Path(__file__).parents[2] / "examples" / "python" / "segment.py"


@pytest.mark.parametrize("recipe", ["fp32", "int8", "int8_io"])
def test_its_mask_is_that_of_segmenter(
    recipe: str, tiny_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Also of a photo that lies on its side. Near ties fall either way: the client resizes in float32."""
    blocks = np.random.default_rng(0).integers(0, 256, (30, 47, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(blocks.repeat(7, 0).repeat(9, 1)).save(tmp_path / "photo.png", exif=exif)
    monkeypatch.setattr(sys, "argv", [str(CLIENT), *map(str, (tiny_files[recipe], tmp_path / "photo.png")), "mask.png"])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(CLIENT))
    ours = Segmenter(tiny_files[recipe], runtime="litert")(tmp_path / "photo.png")
    theirs = np.asarray(Image.open("mask.png"))
    assert theirs.shape == ours.mask.shape == (423, 210)
    assert len(ours.classes) > 1
    assert (theirs == ours.mask).mean() >= (0.999 if recipe != "int8_io" else 0.99)  # whole logits tie
    printed = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert sorted(printed) == sorted(each.name for each in ours.classes)


def test_it_needs_only_numpy_pillow_and_a_runtime() -> None:
    nodes = list(ast.walk(ast.parse(CLIENT.read_text("utf-8"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "PIL", "ai_edge_litert", "tflite_runtime"}
