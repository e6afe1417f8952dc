"""The device side must run where TensorFlow, Keras and torch are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.edge.runtime import _try_elsewhere, installed_runtimes
from segformer_tf.errors import InputError

pytestmark = pytest.mark.usefixtures("real_children")

BLOCKED = "import sys\nfor n in ('tensorflow', 'keras', 'torch', 'matplotlib', 'av'): sys.modules[n] = None\n"


def run(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


COMMAND = "from segformer_tf.cli import main; main(sys.argv[1:])"


@pytest.mark.parametrize("code", ["import segformer_tf", "import segformer_tf.edge", "import segformer_tf.metrics"])
def test_imports(code: str) -> None:
    assert run(code).returncode == 0


HELP = """
from segformer_tf.cli import main
for verb in ["", *sys.argv[1:]]:
    print(end="\\f")
    try: main([*verb.split(), "--help"])
    except SystemExit as stop: assert not stop.code, verb
"""


def test_help_of_every_verb() -> None:
    verbs = ["train", "evaluate", "report", "export", "predict", "benchmark", "serve", "info"]
    done = run(HELP, *verbs)
    assert done.returncode == 0, done.stderr
    texts = done.stdout.split("\f")[2:]  # what comes first is of no verb
    for verb, text in zip(verbs, texts, strict=True):
        assert f"segformer {verb} " in text.split("Usage:")[1].split("\n", 1)[1], f"an example of {verb}"


def test_predict_info_and_benchmark(tiny_files: dict, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "in" / name)
    done = run(COMMAND, "predict", tiny_files["int8"], tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = {f"{stem}_{kind}.png" for stem in ("a.jpg", "a.png", "b") for kind in ("mask", "overlay")}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names | {"predictions.json"}
    done = run(COMMAND, "predict", tiny_files["int8"], "clip.mp4")
    assert done.stderr == "segformer: av is not installed; videos need it, in the repository: pip install '.[video]'\n"
    (tmp_path / "in" / "bad.png").write_text("no image")
    done = run(COMMAND, "predict", tiny_files["int8"], tmp_path / "in", "--out", tmp_path / "rest")
    assert done.returncode == 1
    assert "bad.png: not a readable image" in done.stderr.splitlines()[0]
    assert "left out: 1 of 4 images" in done.stderr.splitlines()[1]
    assert len(list((tmp_path / "rest").iterdir())) == 7
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.png").write_bytes((tmp_path / "in" / "b.png").read_bytes())
    done = run(COMMAND, "predict", tiny_files["int8"], tmp_path / "in" / "b.png", tmp_path / "other")
    assert "two images are named b.png" in done.stderr
    done = run(COMMAND, "predict", tiny_files["int8"], tmp_path / "other", "--out", tmp_path / "in" / "b.png")
    assert len(done.stderr.splitlines()) == 1
    assert run(COMMAND, "info", tiny_files["int8"]).returncode == 0
    assert run(COMMAND, "benchmark", tiny_files["int8"], "--repeats", 1).returncode == 0
    done = run(COMMAND, "benchmark", tiny_files["int8"], "--picture", tmp_path / "a.png")
    assert done.stderr.splitlines() == ["segformer: --picture needs matplotlib: pip install matplotlib"]


def test_what_needs_tensorflow_says_so_in_a_line() -> None:
    done = run(COMMAND, "train", "--data", "tfds:toy_shapes")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "segformer: keras is not installed; in the repository: pip install '.[train,convert]'"
    ]


def test_what_a_start_up_file_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello')")
    (tmp_path / "bad.tflite").write_bytes(b"TFL3garbage")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(InputError, match=r"bad\.tflite"):
        _try_elsewhere(tmp_path / "bad.tflite", installed_runtimes()[0], None)
