"""Verb `erf`. TensorFlow is imported after the options are checked."""

from __future__ import annotations

import json
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.progress import track

from segformer_tf.config import check_image_shape
from segformer_tf.errors import InputError
from segformer_tf.files import refuse_existing
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import narrow_table, plain_console

if TYPE_CHECKING:
    from training.analysis.erf.field import Field

_MIDDLE = 32  # pixels of the square that tells a peak from a plateau: one cell of stage 4
_SEED = 0  # of the fresh weights

Fields = dict[str, dict[str, "Field"]]


def erf(
    model: Path,
    /,
    *,
    data: str,
    split: str = "test",
    images: int = 32,
    size: tuple[int, int] | None = None,
    out: Path = Path("erf.png"),
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Draw where a network looks: the effective receptive field of each stage and of the decoder.

    For each image: the gradient of the middle of a stage's output with respect to the image's pixels. The picture has
    the mean over images, on a logarithmic scale, beside that of fresh weights, and the sides of the centered squares
    that hold 50 and 90 % of it. The last row shows the middle of stage 4 and of the decoder, enlarged, as figure 3 of
    the paper does.

        segformer erf runs/mine --data data --split val

        segformer erf models/camvid_b0.keras --data camvid --size 577 769 --out field.png --json

    Some seconds for each image of 600x800 pixels on a CPU, for b0. After Ctrl-C the picture is drawn of the images that
    were measured until then.

    Parameters
    ----------
    model
        A .keras file or a run folder (its best weights). A .tflite has no gradients.
    data
        Folder of images and masks, its manifest, or tfds:NAME. Masks do not matter.
    split
        Split that the images are taken from, evenly spaced.
    images
        Number of images; the paper takes 100.
    size
        Height and width that images are stretched to. Default: what a run validated at, else that of the first image,
        each side then up to 64·n + 1, for there every stage has a middle cell and it lies over the middle
        pixel. At other sizes the mean of two or four cells around the middle is taken.
    out
        The picture, .png or .webp.
    overwrite
        Replace the picture.
    as_json
        Print one JSON object instead of a table.
    """
    if out.suffix not in (".png", ".webp"):
        raise InputError(f"--out must end in .png or .webp. Received: {out}")
    if images < 1:
        raise InputError(f"--images must be positive. Received: {images}")
    if size:
        check_image_shape((None, *size, 3), "--size")
    if not overwrite:
        refuse_existing([out])
    import_tensorflow()
    import keras
    import numpy as np

    from segformer_tf.image import fit_image
    from segformer_tf.keras_file import run_size
    from segformer_tf.model import SegFormer
    from training.analysis.erf.field import FieldMean, centered_size
    from training.analysis.erf.picture import draw_fields
    from training.analysis.network import open_network, stage_outputs
    from training.data.open import open_source
    from training.evaluate import set_bits

    trained = open_network(model)
    source = open_source(data, split)
    console = plain_console(stderr=True)
    if note := set_bits(source, trained.config.image_bits):
        console.print(note)
    chosen = evenly_spaced(range(len(source)), images)
    if not size:
        height, width = run_size(model) or source[chosen[0]][0].shape[:2]
        size = centered_size((height, width))
    keras.utils.set_random_seed(_SEED)
    networks = {"trained": trained, "fresh": SegFormer(**trained.get_config())}
    means = {name: FieldMean(partial(stage_outputs, network)) for name, network in networks.items()}
    stopped = False
    quiet = not console.is_terminal
    try:
        for i in track(chosen, "measuring", console=console, transient=True, disable=quiet):
            image = fit_image(source[i][0], size).astype(np.float32)
            for mean in means.values():
                mean.add(image)
    except KeyboardInterrupt:
        stopped = True
    count = min(mean.images for mean in means.values())
    if stopped and not count:
        raise KeyboardInterrupt
    fields = {name: mean.fields() for name, mean in means.items()}
    about = f"{model.name}, {count} images of {source.name}, {split}, at {size[0]}x{size[1]} pixels"
    draw_fields(fields, out, zoom=("stage 4", "decoder"), note=about)
    if as_json:
        inputs = {"model": str(model), "data": data, "split": split, "images": count, "size": list(size)}
        print(json.dumps({**inputs, "middle": _MIDDLE, "fields": _to_dict(fields)}, indent=1))
    else:
        _print(about, fields)
        print(f"picture: {out}")
    if stopped:
        console.print(f"stopped after {count} of {len(chosen)} images, of which this is the mean")
        raise KeyboardInterrupt


def _numbers(field: Field) -> tuple[int, int, float]:
    return field.side(0.5), field.side(0.9), field.share(_MIDDLE)


def _to_dict(fields: Fields) -> dict[str, Any]:
    keys = ("side_50", "side_90", "share_of_middle")
    return {
        network: {name: dict(zip(keys, _numbers(field), strict=True)) for name, field in own.items()}
        for network, own in fields.items()
    }


def _print(title: str, fields: Fields) -> None:
    console = plain_console()
    console.print(title)
    headings = ("50 %, px", "90 %, px", "middle, %")
    table = narrow_table(("",), [f"{network}\n{heading}" for network in fields for heading in headings])
    for name in next(iter(fields.values())):
        numbers = [_numbers(own[name]) for own in fields.values()]
        cells = ((str(half), str(most), f"{100 * share:.1f}") for half, most, share in numbers)
        table.add_row(name, *chain.from_iterable(cells))
    console.print(table)
    console.print(
        "px: side of the centered square that holds 50 or 90 % of the gradient; middle: what the pixels hold that are "
        f"wholly in the middle {_MIDDLE}x{_MIDDLE}"
    )
