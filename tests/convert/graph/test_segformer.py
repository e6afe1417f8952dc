"""The folded graph against Keras, on perturbed weights: every rewrite must be exact, and a broken one must be seen."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from convert.graph import fold
from convert.graph import segformer as network
from convert.graph.flatbuffer import to_tflite
from convert.graph.ir import Graph, constant
from convert.graph.segformer import GELU_COEFFICIENTS, GELU_ERROR
from convert.quantize.recipes import RECIPES
from segformer_tf import VARIANTS, SegFormer, build_segformer
from tests.helpers import noise, perturb, within

SIZES = [(64, 64), (64, 96), (97, 161), (29, 31), (33, 200)]
FOLDS = ("scale_in", "affine_in", "centered", "then", "batch_norm")
RNG = np.random.default_rng(0)


@cache
def perturbed(variant: str = "tiny", num_classes: int = 6, **options: Any) -> SegFormer:
    """One model for all sizes and runtimes; whoever changes it changes it back."""
    return perturb(build_segformer(variant, num_classes=num_classes, **options))


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.astype(np.float32))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def agrees(model: SegFormer, size: tuple[int, int], *, runtime: str = "litert", tolerance: float = 1e-5) -> bool:
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
    logits = run(to_tflite(network.network(model, size, runtime=runtime)), image)
    return within(logits, model.logits(image), tolerance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decoder", ["all_mlp", "mmseg"])
@pytest.mark.parametrize(("runtime", "tolerance"), [("litert", 1e-5), ("tflite-runtime", 2e-4)])
def test_graph_is_the_network(size: tuple[int, int], decoder: str, runtime: str, tolerance: float) -> None:
    assert agrees(perturbed(decoder=decoder), size, runtime=runtime, tolerance=tolerance)


@pytest.mark.parametrize("variant", ["b0", "b1"])
def test_graph_is_the_network_at_full_width(variant: str) -> None:
    assert agrees(perturbed(variant, 150), (97, 161))


@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
def test_graph_normalizes_as_the_model_does(runtime: str) -> None:
    looks = {"image_mean": (127.5, 0.0, 20.0), "image_std": (127.5, 255.0, 1.0)}
    assert agrees(perturbed(**looks), (64, 96), runtime=runtime, tolerance=2e-4)


@pytest.mark.usefixtures("traced")  # for 120 predictions
def test_one_weight_is_seen() -> None:
    model = perturb(build_segformer("tiny", num_classes=6))
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    written = run(to_tflite(network.network(model, (64, 96))), image)
    assert within(written, model.logits(image), 1e-5)
    for variable in model.weights:
        if "attn/kv/bias" in variable.path:
            continue  # its first half has no effect: see the next test
        kept = variable.numpy()
        variable.assign(kept * 1.05 + 0.01)
        assert not within(written, model.logits(image), 1e-5), variable.path
        variable.assign(kept)


def test_keys_bias_has_no_effect_in_keras_either() -> None:
    model = perturb(build_segformer("tiny", num_classes=6))
    for stage in model.encoder.stages:
        for block in stage.blocks:
            half = block.attn.dim
            changed = block.attn.kv.bias.numpy()
            changed[:half] += 3
            before = np.asarray(block(noise(1, 16, 24, half)))
            block.attn.kv.bias.assign(changed)
            assert within(np.asarray(block(noise(1, 16, 24, half))), before, 1e-5)


@pytest.mark.parametrize("name", FOLDS)
def test_a_broken_fold_turns_the_comparison_red(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = getattr(fold, name)

    def broken(*args: Any) -> Any:
        result = whole(*args)
        return result * 1.01 if name == "scale_in" else (result[0] * 1.01, result[1])

    monkeypatch.setattr(network, name, broken)
    assert not agrees(perturbed(), (64, 96))


def test_each_fold_is_the_plain_form() -> None:
    x, kernel, bias = RNG.normal(size=(5, 8)), RNG.normal(size=(8, 6)), RNG.normal(size=6)
    gamma, beta = RNG.uniform(0.5, 2, 8), RNG.normal(size=8)
    np.testing.assert_allclose(x @ fold.scale_in(kernel, gamma), (x * gamma) @ kernel)
    k, b = fold.affine_in(kernel, bias, (gamma, beta))
    np.testing.assert_allclose(x @ k + b, (x * gamma + beta) @ kernel + bias)
    k, b = fold.centered(kernel, bias)
    plain = x @ kernel + bias
    np.testing.assert_allclose(x @ k + b, plain - plain.mean(-1, keepdims=True))
    k, b = fold.then((kernel, bias), RNG.normal(size=(6, 4)), np.ones(4))
    np.testing.assert_allclose(k.shape + b.shape, (8, 4, 4))


def test_affine_part_folds_into_a_convolution_without_padding() -> None:
    x, kernel, bias = noise(1, 8, 12, 3), RNG.normal(size=(4, 4, 3, 5)), RNG.normal(size=5)
    gamma, beta = RNG.uniform(0.5, 2, 3), RNG.normal(size=3)

    def conv(image: np.ndarray, k: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.conv(image.astype("float32"), k.astype("float32"), strides=4)) + b

    k, b = fold.affine_in(kernel, bias, (gamma, beta))
    np.testing.assert_allclose(conv(x, k, b), conv(x * gamma + beta, kernel, bias), atol=1e-4)


def test_batch_norm_at_rest() -> None:
    norm = keras.layers.BatchNormalization(epsilon=1e-5)
    norm.build((None, 4))
    for variable in norm.weights:
        variable.assign(RNG.uniform(0.5, 2, 4))
    x = noise(3, 4)
    scale, shift = fold.batch_norm(norm)
    np.testing.assert_allclose(x * scale + shift, norm(x, training=False), atol=1e-5)


def test_gelu_of_delegated_operations_is_within_its_stated_error() -> None:
    graph = network.Graph()
    x = np.linspace(-40, 40, 160_001).reshape(1, 1, -1, 1)
    unit = abs(GELU_COEFFICIENTS[2]) ** (1 / 5)
    writer = network._Writer(graph, old=True)
    graph.outputs = [writer._gelu_of_old("gelu", graph.input("x", x.shape))]
    result = run(to_tflite(graph), x * unit) / unit
    error = np.abs(result - np.asarray(keras.ops.gelu(x, approximate=False))).max()
    assert 0.5 * GELU_ERROR < error < GELU_ERROR + 1e-5


@pytest.mark.parametrize("old", [False, True])
def test_gelu_of_keras_hub_is_its_own_form(old: bool) -> None:
    graph = network.Graph()
    x = np.linspace(-40, 40, 16_001).reshape(1, 1, -1, 1)
    writer = network._Writer(graph, old=old)
    unit = writer.gelu_unit("tanh")
    graph.outputs = [writer.gelu("gelu", graph.input("x", x.shape), "tanh")]
    result = run(to_tflite(graph), x * unit) / unit
    np.testing.assert_allclose(result, np.asarray(keras.ops.gelu(x, approximate=True)), rtol=2e-6, atol=2e-6)
    assert np.abs(result - np.asarray(keras.ops.gelu(x, approximate=False))).max() > 4e-4


def broadcast_products(content: bytes) -> list[str]:
    """Matrix products of a file whose two sides have other batches."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kind)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    products = [op for op in interpreter._get_ops_details() if op["op_name"] == "BATCH_MATMUL"]
    assert products
    sides = [[tensors[i]["shape"].tolist()[:-2] for i in op["inputs"]] for op in products]
    return [tensors[op["outputs"][0]]["name"] for op, (x, y) in zip(products, sides, strict=True) if x != y]


@pytest.mark.parametrize("decoder", ["all_mlp", "mmseg"])
@pytest.mark.parametrize("variant", ["b0", "b2", "tiny"])
def test_no_product_broadcasts_its_batches(variant: str, decoder: str) -> None:
    """LiteRT's GPU delegate loads such a file, and its logits are wrong."""
    model = build_segformer(variant, num_classes=6, depths=(1, 1, 1, 1), decoder=decoder)
    for deeper in ("b3", "b4", "b5"):  # are of b2's blocks
        assert VARIANTS[deeper] | {"depths": 0} == VARIANTS["b2"] | {"depths": 0}
    b0s_width = {"depths": 0, "decoder_width": VARIANTS["b0"]["decoder_width"]}
    assert VARIANTS["b1"] | {"depths": 0} == VARIANTS["b2"] | b0s_width  # each half is looked at
    for runtime in ("litert", "tflite-runtime"):
        graph = network.network(model, (64, 96), runtime=runtime)
        for recipe in RECIPES.values():
            if recipe.name in ("int8_mixed", "dynamic_int4", "fp16_compute") and variant != "tiny":
                continue  # products as those of int8 and fp32, and minutes of choosing and fitting
            ranges = dict.fromkeys(recipe.tensors(graph), (-1.0, 1.0))
            result = recipe.rewrite(graph, ranges, [np.zeros((64, 96, 3), np.uint8)])
            assert broadcast_products(to_tflite(result)) == [], recipe.name


def test_a_broadcast_product_is_found() -> None:
    graph = Graph()
    x = graph.input("x", (1, 8, 8, 32))
    graph.outputs = [graph.add_op("BATCH_MATMUL", "y", [x, constant("k", noise(1, 1, 32, 16))], (1, 8, 8, 16))]
    assert broadcast_products(to_tflite(graph)) == ["y"]
    with pytest.raises(AssertionError, match="'y', "):
        graph.matmul("y", x, constant("k", noise(1, 1, 32, 16)))
