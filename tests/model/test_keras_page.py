"""The program of docs/keras.md, run with a tiny network on a few small images."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from convert.export import export_tflite
from convert.quantize.recipes import RECIPES
from convert.trained import float32_copy
from segformer_tf import SegFormer, SegmentationLoss, build_segformer
from segformer_tf.edge import Segmenter, installed_runtimes
from training.distributed.strategy import make_strategy

PAGE = Path(__file__).parents[2] / "docs/keras.md"
SMALLER = {
    '"b0"': '"tiny", depths=(1, 1, 1, 1)',
    "(512, 512)": "(67, 93)",
    # Two mirrored strategies in one process use the same keys for their collective operations, and fail.
    "tf.distribute.MirroredStrategy()": "make_strategy(2)",
}


def program() -> str:
    text = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    for large, small in SMALLER.items():
        assert large in text
        text = text.replace(large, small)
    return text


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program leaves behind."""
    pytest.importorskip("tf2onnx")
    root = tmp_path_factory.mktemp("keras")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), np.uint8)).save(root / f"data/images/{i}.jpg")
        Image.fromarray(rng.choice(np.uint8([0, 1, 255]), (80, 100))).save(root / f"data/masks/{i}.png")
    found: dict[str, Any] = {"root": root, "make_strategy": make_strategy}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        for foreign in ("`shuffle=True` was passed", "In the future `np"):  # of Keras, and of its copy of tf2onnx
            warnings.filterwarnings("ignore", foreign)
        patch.chdir(root)
        # Without tracing: each `fit` has a model of its own.
        patch.setattr(keras.Model, "run_eagerly", property(lambda self: True, lambda self, value: None))
        Path("page.py").write_text(program(), "utf-8")  # AutoGraph reads the source
        exec(compile(program(), root / "page.py", "exec"), found)
    return found


def test_the_names_are_in_the_file_and_other_names_start_fresh(names: dict[str, Any]) -> None:
    with zipfile.ZipFile(names["root"] / "cells.keras") as file:
        saved = json.loads(file.read("config.json"))["config"]
    assert saved["config"]["labels"]["names"] == ["background", "cell"]
    assert saved["preprocess"] is True
    assert names["again"].config.labels.names == ("background", "cell")
    assert names["other"].config.labels.names == ("background", "nucleus", "wall")
    assert names["other"].preprocess
    for ours, theirs in zip(names["other"].weights, names["again"].weights, strict=True):
        if not ours.path.startswith("decoder/linear_pred/"):
            np.testing.assert_array_equal(ours, theirs)
    assert names["other"].output_shape[-1] == 3


def test_all_forms_compute_the_same(names: dict[str, Any]) -> None:
    image, logits = names["image"], names["logits"]
    assert image.shape == (1, 67, 93, 3)
    assert logits.shape == (1, 17, 24, 2)
    assert names["predicted"].shape == (67, 93)
    for form in ("again", "same", "copy", "plain"):
        found = names[form](image)
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5, err_msg=form)
    assert type(names["copy"]) is type(names["same"]) is SegFormer
    assert names["copy"].config == names["model"].config
    assert not isinstance(names["plain"], SegFormer)
    other_size = np.random.default_rng(0).uniform(0, 255, (2, 40, 131, 3)).astype(np.float32)
    expected = names["model"](other_size)
    assert expected.shape == (2, 10, 33, 2)
    (found,) = names["session"].run(None, {"image": other_size})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(names["saved"].serve(other_size), expected, rtol=1e-3, atol=1e-4)


def test_mixed_precision_and_two_replicas_were_real(names: dict[str, Any]) -> None:
    assert names["half"].decoder.linear_pred.compute_dtype == "float16"
    assert names["half"](names["image"]).dtype == "float16"
    assert names["wide"].distribute_strategy.num_replicas_in_sync == 2
    for model in ("half", "wide"):
        assert np.isfinite(names[model].get_metrics_result()["loss"])


@pytest.mark.parametrize(("frozen", "learning"), [("encoder/", "decoder/"), ("encoder/stage1/", "encoder/stage2/")])
def test_what_is_frozen_stays(frozen: str, learning: str) -> None:
    model = build_segformer("tiny", num_classes=2)
    layer = model.encoder if frozen == "encoder/" else model.encoder.stages[0]
    layer.trainable = False
    model.compile("sgd", loss=SegmentationLoss(), run_eagerly=True)
    before = {v.path: np.array(v) for v in model.weights}
    model.fit(np.random.default_rng(0).normal(size=(2, 33, 40, 3)), np.ones((2, 33, 40), np.uint8), verbose=0)
    changed = {v.path for v in model.weights if not np.array_equal(v, before[v.path])}
    assert not [path for path in changed if path.startswith(frozen)]
    assert [path for path in changed if path.startswith(learning)]


def test_a_model_that_normalizes_is_exported_with_its_names(names: dict[str, Any]) -> None:
    assert float32_copy(names["half"]).preprocess
    out, images = names["root"] / "cells.tflite", sorted((names["root"] / "data/images").iterdir())
    runtime = RECIPES["fp32"].fitting(installed_runtimes())[:1]
    export_tflite(names["again"], out, recipe="fp32", size=(67, 93), images=images, runtimes=runtime)  # compares
    assert Segmenter(out).labels.names == ("background", "cell")
