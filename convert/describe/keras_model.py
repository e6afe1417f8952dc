"""A Keras model in words and numbers: what it is, and its layers with their parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from convert.describe.run_facts import run_facts
from segformer_tf.complexity import Complexity, LayerCost, layer_costs
from segformer_tf.config import SegFormerConfig
from segformer_tf.load_tensorflow import import_tensorflow

if TYPE_CHECKING:
    from segformer_tf.model import SegFormer

_USUAL_SIZE = (512, 512)
_GELU = {"erf": "exact", "tanh": "the tanh form"}


def describe_keras(path: Path, size: tuple[int, int] | None) -> tuple[dict[str, str], Table]:
    """Facts by name, and the table of layers at `size`, or at the model's own, or its validation's, or 512x512.

    Raises:
        InputError: a file that cannot be read, or another size than the model's.
    """
    import_tensorflow()
    from segformer_tf.keras_file import keras_file, load_segformer, run_size
    from segformer_tf.model import check_image_shape

    model = load_segformer(path)
    height, width = model.image_size
    own = (height, width) if height and width else None
    size = size or own or run_size(path) or _USUAL_SIZE
    check_image_shape((None, *size, 3), "--size")
    facts = {**run_facts(path), "weights": str(keras_file(path)), **_facts(model)}
    return facts, layer_table(model.config, size)


def layer_table(config: SegFormerConfig, size: tuple[int, int]) -> Table:
    """Layers of a network for images of `size`, (height, width), with sums of each part."""
    costs = layer_costs(config, size)
    caption = (
        "GMAC: 10^9 multiply-adds of one image as they are computed here; products: of them q by k and weights by "
        "v; paper: with the decoder in the paper's form. Blocks hold their norms."
    )
    table = Table(
        title=f"layers at {size[0]}x{size[1]}", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for name in ("layer", "output"):
        table.add_column(name, no_wrap=True)
    for name in ("parameters", "GMAC", "products", "paper"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in dict.fromkeys(cost.part for cost in costs):
        own = [cost for cost in costs if cost.part == part]
        for cost in own:
            output = "x".join(map(str, cost.output))
            table.add_row(f"{part}/{cost.name}", output, *_numbers([cost]))
        table.add_row(part, "", *_numbers(own), style="bold", end_section=True)
    table.add_row("together", "", *_numbers(costs), style="bold")
    return table


def _numbers(costs: Sequence[LayerCost]) -> list[str]:
    work = Complexity.of(costs)
    macs = [f"{count / 1e9:.3f}" if count else "" for count in (work.total, work.attention, work.plain)]
    return [f"{sum(cost.parameters for cost in costs):,}", *macs]


def _facts(model: SegFormer) -> dict[str, str]:
    config = model.config
    parameters = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    return {
        "parameters": f"{parameters:,} trainable",
        "embed dims": ", ".join(map(str, config.embed_dims)),
        "depths": ", ".join(map(str, config.depths)),
        "heads": ", ".join(map(str, config.num_heads)),
        "reductions": ", ".join(map(str, config.sr_ratios)),
        "decoder": f"{config.decoder}, {config.decoder_width} wide",
        "epsilons": ", ".join(
            f"{name.removesuffix('_epsilon').replace('_', ' ')} {value:g}" for name, value in config.epsilons.items()
        ),
        "GELU": _GELU[config.gelu],
        "normalization": config.normalization,
        **({"bits": f"{config.image_bits} of files of more than 8"} if config.image_bits else {}),
        "input": " x ".join("any" if n is None else str(n) for n in model.image_size)
        + (", RGB 0..255" if model.preprocess else ""),
        "classes": ", ".join(config.labels.names) if config.labels else f"{config.num_classes}, unnamed",
        **({"license": config.license} if config.license else {}),
    }
