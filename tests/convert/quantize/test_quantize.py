"""Rewrites of graphs: weights, integer arithmetic, ranges, and what suffers from int8."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cyclopts import CoercionError

from convert.graph.class_map import with_class_map
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph
from convert.graph.segformer import network
from convert.quantize.calibrate import ranges, run
from convert.quantize.integer import int8_kernel, integer_ends, quantize, tensors_to_calibrate, uint8_input
from convert.quantize.recipes import RECIPES, everything, markdown_table, worth_int8
from convert.quantize.sensitivity import macs, quantize_mixed, sensitivities, step_of
from convert.quantize.weights import dynamic_int8, float16_weights, int8_weights, pays_dynamic
from segformer_tf import SegFormer, build_segformer
from segformer_tf.cli import main, make_app
from segformer_tf.image import Pixels
from segformer_tf.metrics import relative_error
from tests.helpers import perturb

SIZE = (64, 96)
IMAGES = [np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8) for i in range(3)]


@pytest.fixture(scope="module")
def graph(tiny: SegFormer) -> Graph:
    return network(tiny, SIZE)


def logits(graph: Graph, images: list[Pixels] = IMAGES) -> np.ndarray:
    (output,) = graph.outputs
    result = np.stack([values[output.name] for values in run(graph, images)])
    q = output.quantization
    return result if q is None else (result.astype(np.float32) - q.zero_point[0]) * q.scale[0]


def test_kernels_are_rounded_to_a_step_of_their_own_channel(graph: Graph) -> None:
    for op in graph.ops:
        if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        result = int8_kernel(op)
        assert result.quantization is not None
        axis = result.quantization.axis
        assert len(result.quantization.scale) == result.shape[axis] == op.output.shape[-1]
        scale = np.expand_dims(result.quantization.scale, [i for i in range(4) if i != axis])
        assert np.abs(result.value * scale - op.inputs[1].value).max() <= 0.5001 * result.quantization.scale.max()
        assert np.abs(result.value).max() == 127


def test_weight_rewrites_keep_the_function(graph: Graph) -> None:
    expected = logits(graph)
    errors = {
        rewrite.__name__: relative_error(logits(rewrite(graph)), expected)
        for rewrite in (float16_weights, int8_weights, dynamic_int8)
    }
    assert 1e-5 < errors["float16_weights"] < 2e-3
    assert 1e-3 < errors["int8_weights"] < 0.05
    assert 1e-3 < errors["dynamic_int8"] < 0.05


def test_dynamic_int8_is_where_it_pays() -> None:
    model = build_segformer("b0", num_classes=150)
    for runtime in ("litert", "tflite-runtime"):
        ops = [op for op in network(model, SIZE, runtime=runtime).ops if op.kind == "CONV_2D"]
        left = {op.output.name for op in ops if not pays_dynamic(op)}
        assert "stage1/patch_embed/proj" in left  # 3 channels
        assert {"stage1/block0/mlp/fc1", "decoder/c1"} <= left  # products over 32 values
        assert not {"stage1/block0/mlp", "decoder/c2", "logits", "stage1/block0/attn/sr"} & left
        assert all(name in left for name in (op.output.name for op in ops) if name.endswith("variance"))


def test_ranges_are_those_of_the_images(tiny: SegFormer, graph: Graph) -> None:
    limits = ranges(graph, ["image/centred", "logits"], IMAGES)
    result = np.concatenate([tiny.logits(image[None]) for image in IMAGES])
    np.testing.assert_allclose(limits["logits"], (result.min(), result.max()), rtol=1e-4)
    pixels = np.stack(IMAGES) - np.array([123.675, 116.28, 103.53])
    np.testing.assert_allclose(limits["image/centred"], (pixels.min(), pixels.max()), rtol=1e-5)


def test_integer_graphs_keep_the_function(graph: Graph) -> None:
    expected = logits(graph)
    some, all_ = (ranges(graph, tensors_to_calibrate(graph, choice), IMAGES) for choice in (worth_int8, everything))
    assert relative_error(logits(quantize(graph, some, worth_int8)), expected) < 0.05
    assert relative_error(logits(uint8_input(quantize(graph, some, worth_int8))), expected) < 0.05
    assert relative_error(logits(integer_ends(quantize(graph, all_, everything))), expected) < 0.15
    assert relative_error(logits(quantize(graph, all_, everything, bits=16)), expected) < 0.03
    halved = {name: (low / 2, high / 2) for name, (low, high) in all_.items()}
    assert relative_error(logits(quantize(graph, halved, everything)), expected) > 0.15  # ranges matter


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("dead", [0.0, 1e-7])
def test_a_bias_survives_beside_a_dead_kernel(dead: float, bits: int) -> None:
    model = perturb(build_segformer("tiny", num_classes=6))
    for kernel in (model.decoder.linear_pred.kernel, model.encoder.stages[1].blocks[0].mlp.dwconv.kernel):
        value = kernel.numpy()
        (value[..., 0] if value.shape[-1] > 1 else value[:, :, ::2])[...] *= dead
        kernel.assign(value)
    graph = network(model, SIZE)
    limits = ranges(graph, tensors_to_calibrate(graph, everything), IMAGES)
    assert relative_error(logits(quantize(graph, limits, everything, bits=bits)), logits(graph)) < 0.06


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (-1.0, 2.0), (-127.6, 127.4)])
def test_the_right_side_of_a_matrix_product_is_never_symmetric(graph: Graph, limits: tuple[float, float]) -> None:
    result = quantize(graph, dict.fromkeys(tensors_to_calibrate(graph, everything), limits), everything)
    products = [op for op in result.ops if op.kind == "BATCH_MATMUL"]
    assert len(products) == 10  # two a block
    for q in (op.inputs[1].quantization for op in products):
        assert q is not None
        assert q.zero_point[0] != 0
        lowest, highest = ((value - q.zero_point[0]) * q.scale[0] for value in (-128, 127))
        assert lowest <= limits[0] + q.scale[0] / 2
        assert highest >= limits[1] - q.scale[0] / 2


def test_float_and_integer_meet_once_a_tensor(graph: Graph) -> None:
    result = quantize(graph, dict.fromkeys(tensors_to_calibrate(graph, worth_int8), (-1.0, 1.0)), worth_int8)
    for kind in ("QUANTIZE", "DEQUANTIZE"):
        assert max(Counter(op.inputs[0] for op in result.ops if op.kind == kind).values()) == 1


def test_multiply_adds_are_the_papers() -> None:
    graph = network(build_segformer("b0", num_classes=150), (512, 512))
    products = sum(
        int(np.prod(op.output.shape)) * op.inputs[0].shape[-1] for op in graph.ops if op.kind == "BATCH_MATMUL"
    )
    # 4.09 with the decoder commuted; patch embeddings' affine maps add, stage 1's proj drops out.
    assert (sum(map(macs, graph.ops)) + products) / 1e9 == pytest.approx(4.09, rel=0.03)


def test_what_suffers_is_named_and_spared(tmp_path: Path) -> None:
    model = perturb(build_segformer("tiny", num_classes=6))
    fc1 = model.encoder.stages[2].blocks[1].mlp.fc1
    bias = fc1.bias.numpy()
    bias[0] = 400  # one channel takes the range of all the others
    fc1.bias.assign(bias)
    model.encoder.stages[2].blocks[1].mlp.fc2.kernel.assign(
        np.where(np.arange(80)[:, None] == 0, 0, model.encoder.stages[2].blocks[1].mlp.fc2.kernel)
    )
    graph = network(model, SIZE)
    limits = ranges(graph, tensors_to_calibrate(graph, worth_int8), IMAGES)
    ranked = sensitivities(graph, limits, worth_int8, IMAGES)
    assert ranked[0].step == "stage3/block1/mlp"
    assert ranked[0].error > 3 * ranked[1].error
    first = sum(macs(op) for op in graph.ops if step_of(op) == "stage1/patch_embed") / sum(map(macs, graph.ops))
    assert 0.9 < first + sum(each.share for each in ranked) <= 1  # pixels stay in float
    spared = quantize_mixed(graph, limits, worth_int8, IMAGES)
    left = {step_of(op) for op in spared.ops if op.kind == "CONV_2D" and op.inputs[0].dtype == np.float32}
    assert "stage3/block1/mlp" in left
    assert relative_error(logits(spared), logits(graph)) < 0.7 * relative_error(
        logits(quantize(graph, limits, worth_int8)), logits(graph)
    )


def test_verify_per_layer(tiny: SegFormer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny.save(tmp_path / "model.keras")
    main(["verify", str(tmp_path / "model.keras"), "--per-layer", "--size", "64", "64", "--json"])
    rows = json.loads(capsys.readouterr().out)
    steps = {row["step"] for row in rows}
    assert {"stage2/patch_embed", "stage4/block0/mlp", "decoder/c1", "logits"} <= steps
    assert "stage1/patch_embed" not in steps  # pixels stay in float
    assert [row["error"] for row in rows] == sorted((row["error"] for row in rows), reverse=True)
    for extra in ([], ["--per-layer", "--against", "x.keras"]):
        with pytest.raises(SystemExit):
            main(["verify", str(tmp_path / "model.keras"), *extra])
        assert "expected either --against or --per-layer" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_leaves_its_graph_as_it_was(graph: Graph, recipe: str) -> None:
    before = to_tflite(graph)
    limits = dict.fromkeys(RECIPES[recipe].tensors(graph), (-1.0, 1.0))
    RECIPES[recipe].rewrite(graph, limits, IMAGES[:1])
    assert to_tflite(graph) == before


@pytest.mark.parametrize(
    "rewrite", [uint8_input, integer_ends, lambda graph: with_class_map(graph, SIZE)], ids=["uint8", "integer", "map"]
)
def test_new_ends_leave_the_graph_as_it_was(graph: Graph, rewrite: Callable[[Graph], Graph]) -> None:
    integers = quantize(graph, dict.fromkeys(tensors_to_calibrate(graph, everything), (-1.0, 1.0)), everything)
    before = to_tflite(integers)
    assert to_tflite(rewrite(integers)) != before
    assert to_tflite(integers) == before


def test_the_command_takes_each_recipe_of_the_table() -> None:
    arguments = ["export", "model.keras", "--out", "model.tflite", "--recipe"]
    for name in RECIPES:
        _, bound, _ = make_app("export").parse_args([*arguments, name], exit_on_error=False, print_error=False)
        assert bound.arguments["recipe"] == name
        assert f"\n| `{name}` | " in markdown_table()
        assert all((RECIPES[name].weights, RECIPES[name].activations, RECIPES[name].purpose))
    with pytest.raises(CoercionError, match="w8a16"):
        make_app("export").parse_args([*arguments, "int4"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    ("recipe", "runtimes", "form"),
    [
        ("fp32", ["tflite-runtime"], "tflite-runtime"),
        ("int8", ["tflite-runtime", "tflite-runtime"], "tflite-runtime"),
        ("int8", ["litert", "tflite-runtime"], "litert"),
        ("int8_io", ["tflite-runtime"], "litert"),
        ("fp16", ["litert-gpu"], "litert"),
    ],
)
def test_form_of_the_graph(recipe: str, runtimes: list[str], form: str) -> None:
    assert RECIPES[recipe].form(runtimes) == form
