"""A file that is right on one runtime and wrong on another is not written for the other.

The same for litert-gpu, with files that it computes wrongly: `tests/edge/test_gpu_delegate.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convert.exported as exported
from convert.export import export_tflite
from convert.graph import flatbuffer
from convert.graph.ir import Graph, Op, Tensor
from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.edge import list_images, read_model_info
from segformer_tf.edge.doctor.delegates import DELEGATES
from segformer_tf.edge.runtime import GPU, RUNTIMES, installed_runtimes
from segformer_tf.errors import InputError

RUN_ON = exported.run_on


def dense(graph: Graph) -> Graph:
    """1x1 convolutions with int8 weights as FULLY_CONNECTED, with a scale for every row of the weights."""
    ops = []
    for op in graph.ops:
        weights = op.inputs[1] if op.kind == "CONV_2D" else None
        if weights is not None and weights.dtype == np.int8 and weights.shape[1:3] == (1, 1):
            flat = weights.value.reshape(weights.shape[0], -1)
            rows = Tensor(weights.name, flat.shape, np.int8, flat, weights.quantization)
            op = Op("FULLY_CONNECTED", [op.inputs[0], rows, op.inputs[2]], op.output, {"keepNumDims": True})
        ops.append(op)
    return replace(graph, ops=ops)


def test_a_file_that_tflite_runtime_gets_wrong_is_not_written_for_it(
    tiny: SegFormer, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel of version 9 takes one scale for all rows; LiteRT's takes each row's, whatever the version says."""
    if len(installed_runtimes()) < 2:
        pytest.skip("needs both runtimes")
    written, version = flatbuffer.to_tflite, flatbuffer.version
    monkeypatch.setattr(flatbuffer, "version", lambda op: 9 if op.kind == "FULLY_CONNECTED" else version(op))
    monkeypatch.setattr("convert.export.to_tflite", lambda graph, **options: written(dense(graph), **options))
    out = tmp_path / "x.tflite"
    options: dict[str, Any] = {
        "recipe": "dynamic_int8",
        "size": (64, 96),
        "images": list_images([toy_folder / "train" / "images"]),
    }
    for asked in (["tflite-runtime"], ["litert", "tflite-runtime"]):
        with pytest.raises(InputError, match=r"tflite-runtime 2.14.0 gets .* wrong: relative error 0\.\d+"):
            export_tflite(tiny, out, runtimes=asked, **options)
        assert list(tmp_path.iterdir()) == []
    verdicts = export_tflite(tiny, out, runtimes=["litert"], **options).verdicts
    assert [verdict.error < 0.1 for verdict in verdicts] == [True]
    assert read_model_info(out).created["verified"] == [verdicts[0].runtime]


@pytest.mark.parametrize("wrong", [*RUNTIMES, GPU])
def test_nothing_is_written_if_any_runtime_asked_for_is_wrong(
    tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    right: list[str] = []

    def run_on(path: Path, images: Any, *, runtime: str) -> Any:
        logits = RUN_ON(path, images, runtime="litert")
        if runtime != wrong:
            right.append(runtime)
        return logits if runtime != wrong else logits[..., ::-1]

    monkeypatch.setattr(exported, "run_on", run_on)
    monkeypatch.setattr(exported, "runtime_version", lambda runtime: "0")
    asked = [*(name for name in (*RUNTIMES, GPU) if name != wrong), wrong]
    with pytest.raises(InputError, match=rf"^{wrong} 0 gets recipe fp32 wrong: .*; nothing was written"):
        export_tflite(tiny, tmp_path / "x.tflite", recipe="fp32", size=(64, 96), runtimes=asked)
    assert right == asked[:-1]
    assert list(tmp_path.iterdir()) == []


def test_a_delegate_that_cannot_be_run_here_cannot_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for delegate in DELEGATES:
        if delegate.name in (*RUNTIMES, GPU):
            continue
        out = tmp_path / "x.tflite"
        with pytest.raises(SystemExit):
            main(["export", "b0", "--num-classes", "3", "--runtime", delegate.name, "--out", str(out)])
        assert f"Received: {delegate.name}" in capsys.readouterr().err
        assert not out.exists()
