"""web/agreement.mjs: one input through LiteRT.js, from the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segformer_tf.edge.tflite.model import TFLiteModel
from tests.web.drive import WEB

pytestmark = pytest.mark.web

PIXELS = np.random.default_rng(0).integers(0, 256, (97, 161, 3), np.uint8)


def agreement(*arguments: object) -> subprocess.CompletedProcess:
    command = ["node", WEB / "agreement.mjs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("recipe", "accelerator"), [("fp32", "wasm"), ("int8", "wasm"), ("fp32", "webgpu")])
def test_outputs_are_those_of_the_file(
    tiny_files: dict[str, Path], recipe: str, accelerator: str, tmp_path: Path
) -> None:
    PIXELS.astype(np.uint8 if recipe == "int8" else "<f4").tofile(tmp_path / "in.bin")
    run = agreement(
        tiny_files[recipe], tmp_path / "in.bin", tmp_path / "out", "--accelerator", accelerator, "--runs", 2
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["accelerator"] == accelerator
    assert report["median_ms"] > 0
    assert report["litertjs"] == "2.5.3"
    (output,) = report["outputs"]
    assert output["dtype"] == "float32"
    logits = np.fromfile(tmp_path / "out.0.bin", "<f4").reshape(output["shape"])[0]
    expected = TFLiteModel(tiny_files[recipe], runtime="litert").logits(PIXELS)
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert error < (0.2 if recipe == "int8" else 1e-4)


def test_what_cannot_run_is_one_line(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    PIXELS.tofile(tmp_path / "in.bin")
    fp32, raw, out = tiny_files["fp32"], tmp_path / "in.bin", tmp_path / "out"
    for arguments, sentence in (
        ((), "expected MODEL.tflite INPUT.bin OUTPUT"),
        ((fp32, raw, out, "--accelerator", "wasm"), "bytes of float32 [1,97"),
        ((raw, raw, out, "--accelerator", "wasm"), "Failed to load"),
        ((tmp_path / "none", raw, out, "--accelerator", "wasm"), "no such file"),
    ):
        run = agreement(*arguments)
        assert run.returncode == 1
        (line,) = run.stderr.splitlines()
        assert line.startswith("agreement: ")
        assert sentence in line
    assert not list(tmp_path.glob("out*"))
