"""Both forms of the class map are what the logits say, on every runtime here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from scipy.ndimage import gaussian_filter

import convert.exported as verify_module
from convert.export import export_tflite
from convert.graph.class_map import cheap_form_fits, with_class_map
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph, Op, Quantization, Tensor
from segformer_tf import build_segformer
from segformer_tf.edge import Segmenter, installed_runtimes, logits_to_mask, read_model_info
from segformer_tf.edge.isolated import IsolatedModel
from tests.helpers import perturb

CLASSES = 40


def regions(grid: tuple[int, int], classes: int = CLASSES, *, smooth: float = 2.5) -> np.ndarray:
    """(h, w, classes) logits as of a photograph: regions, with noise on them."""
    noise = np.random.default_rng(0).normal(size=(2, *grid, classes))
    fields = gaussian_filter(noise[0], (smooth, smooth, 0)) * 60
    return (fields + 0.1 * noise[1]).astype(np.float32)


def class_map(logits: np.ndarray, size: tuple[int, int], *, cheap: bool, scale: float = 0.0) -> np.ndarray:
    """What LiteRT gives for logits as the input; with a scale, of int8 ones."""
    exact = Quantization(np.array([scale], np.float32), np.array([3], np.int64)) if scale else None
    x = Tensor("x", (1, *logits.shape), np.int8 if scale else np.float32, None, exact)
    graph = Graph(inputs=[x], outputs=[x])
    file = to_tflite(with_class_map(graph, size, cheap=cheap))
    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], logits[None])
    interpreter.invoke()
    (mask,) = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert (mask.dtype, mask.shape) == (np.uint8 if scale else np.int32, size)
    return mask


def best_of_corners(logits: np.ndarray) -> np.ndarray:
    """The cheap form, plainly: at every pixel the best of the classes that win at a corner of its cell."""
    (h, w, _), place = logits.shape, [(np.arange(4 * n) + 0.5) / 4 - 0.5 for n in logits.shape[:2]]
    winners, mask = logits.argmax(-1), np.zeros((4 * h, 4 * w), np.uint8)
    for i, y in enumerate(place[0]):
        for j, x in enumerate(place[1]):
            corners = [
                (min(max(int(np.floor(y)) + dy, 0), h - 1), min(max(int(np.floor(x)) + dx, 0), w - 1))
                for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1))
            ]
            candidates = np.unique([winners[corner] for corner in corners])
            fy, fx = y % 1, x % 1
            shares = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
            scores = sum(
                s * logits[corner][candidates].astype(float) for s, corner in zip(shares, corners, strict=True)
            )
            mask[i, j] = candidates[scores.argmax()]
    return mask


@pytest.mark.parametrize("size", [(44, 68), (4, 8), (36, 36)], ids=str)
@pytest.mark.parametrize("smooth", [0.0, 2.5])
def test_the_cheap_form_takes_the_best_of_the_corners(size: tuple[int, int], smooth: float) -> None:
    logits = regions((size[0] // 4, size[1] // 4), smooth=smooth)
    assert (class_map(logits, size, cheap=True) == best_of_corners(logits)).mean() >= 0.9995


@pytest.mark.parametrize("cheap", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.07], ids=["float", "int8"])
def test_of_a_picture_both_forms_are_what_the_logits_say(cheap: bool, scale: float) -> None:
    logits = real = regions((48, 80), smooth=8.0)
    if scale:
        logits = np.clip(np.rint(logits / scale) + 3, -128, 127).astype(np.int8)
        real = (logits.astype(np.float32) - 3) * np.float32(scale)
    expected = logits_to_mask(real, (192, 320))
    assert len(np.unique(expected)) > 10
    assert (class_map(logits, (192, 320), cheap=cheap, scale=scale) == expected).mean() >= 0.999


@pytest.mark.parametrize("size", [(97, 161), (35, 50), (96, 160)], ids=str)
def test_the_exact_form_takes_any_size_and_any_logits(size: tuple[int, int]) -> None:
    logits = regions((-(-size[0] // 4), -(-size[1] // 4)), smooth=0.0) - 100
    assert (class_map(logits, size, cheap=False) == logits_to_mask(logits, size)).mean() >= 0.9999


def test_export_keeps_the_cheap_form_only_where_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = perturb(build_segformer("tiny", num_classes=CLASSES)), tmp_path / "mapped.tflite"
    options = {"recipe": "fp32", "size": (64, 96), "runtimes": installed_runtimes(), "class_map": True}

    def form() -> str:
        export_tflite(model, out, **options)
        with IsolatedModel(out, runtime="litert") as worker:
            photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
            expected = logits_to_mask(worker.logits(photo), (64, 96))
            same = (worker.class_map == expected).mean()
        name = read_model_info(out).created["class_map"]
        assert name == "cheap" or same >= 0.999
        return name

    assert form() == "exact"  # random weights: many classes that win nowhere on the grid
    monkeypatch.setattr(verify_module, "_MAP_TOLERANCE", 0.2)
    assert form() == "cheap"
    options["runtimes"] = ["litert"]
    monkeypatch.setattr("convert.export.GPU", "litert")  # as if the GPU had been asked for
    assert form() == "exact"


@pytest.mark.parametrize(
    ("size", "classes", "fits"),
    [((64, 96), 40, True), ((64, 96), 24, False), ((62, 96), 40, False), ((64, 97), 40, False)],
)
def test_where_the_cheap_form_fits(size: tuple[int, int], classes: int, fits: bool) -> None:
    logits = Tensor("x", (1, -(-size[0] // 4), -(-size[1] // 4), classes))
    assert cheap_form_fits(Graph(inputs=[logits], outputs=[logits]), size) == fits


def test_a_file_of_before_with_an_int32_map_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convert.graph.class_map._cast", lambda graph, name, x, dtype: replace_name(graph, name))
    out = tmp_path / "before.tflite"
    model = perturb(build_segformer("tiny", num_classes=6))
    export_tflite(model, out, recipe="fp32", size=(64, 96), runtimes=["litert"], class_map=True)
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    assert Segmenter(out, runtime="litert")(photo).mask.shape == (64, 96)
    with IsolatedModel(out, runtime="litert") as worker:
        assert (logits_to_mask(worker.logits(photo), (64, 96)) == worker.class_map).mean() >= 0.999


def replace_name(graph: Graph, name: str) -> Tensor:
    """The last operation's output, int32, by the name of the map."""
    last = graph.ops.pop()
    made = Tensor(name, last.output.shape, np.int32)
    graph.ops.append(Op(last.kind, last.inputs, made, last.options))
    return made
