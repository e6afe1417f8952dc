"""Multiply-adds and parameters, counted: the paper's numbers, and those of a built network."""

from __future__ import annotations

import numpy as np
import pytest

from segformer_tf import SegFormer, build_segformer
from segformer_tf.complexity import Complexity, complexity, layer_costs
from segformer_tf.config import VARIANTS, variant_config

# Tables 1 and 2 of the paper, ADE20K, in 10^9; b5 at 640x640.
PAPER = {"b0": 8.4, "b1": 15.9, "b2": 62.4, "b3": 79.0, "b4": 95.7, "b5": 183.3}


@pytest.mark.parametrize("variant", list(PAPER))
def test_the_papers_multiply_adds(variant: str) -> None:
    side = 640 if variant == "b5" else 512
    work = complexity(variant_config(variant, num_classes=150), (side, side))
    assert work.plain / 1e9 == pytest.approx(PAPER[variant], rel=0.02)
    assert (work.plain - work.attention) / 1e9 < 0.98 * PAPER[
        variant
    ]  # which does not hold without attention's products
    assert work.total < 0.74 * work.plain


def test_sums_of_layers() -> None:
    for variant in VARIANTS:
        for decoder in ("all_mlp", "mmseg"):
            config = variant_config(variant, num_classes=19, decoder=decoder)
            costs = layer_costs(config, (97, 161))
            assert sum(cost.parameters for cost in costs) == config.parameter_count
            assert Complexity.of(costs) == complexity(config, (97, 161))
            assert sum(cost.total - cost.plain for cost in costs[:16]) == 0  # the encoder is the same in both forms


@pytest.mark.parametrize("decoder", ["all_mlp", "mmseg"])
def test_parameters_of_a_built_network(decoder: str) -> None:
    model = build_segformer("tiny", num_classes=6, decoder=decoder)
    assert parameters_by_part(model) == {
        part: sum(cost.parameters for cost in layer_costs(model.config, (64, 64)) if cost.part == part)
        for part in ("stage1", "stage2", "stage3", "stage4", "decoder")
    }


def parameters_by_part(model: SegFormer) -> dict[str, int]:
    counts: dict[str, int] = {}
    for variable in model.trainable_weights:
        part = variable.path.removeprefix("encoder/").split("/")[0]
        counts[part] = counts.get(part, 0) + int(np.prod(variable.shape))
    return counts
