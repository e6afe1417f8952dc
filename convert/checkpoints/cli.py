"""Verbs `import` and `verify`. TensorFlow is imported when a verb runs, so that --help is quick."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.edge.foreign_options import ForeignOptions
from segformer_tf.errors import InputError, first_line
from segformer_tf.files import atomic, refuse_existing
from segformer_tf.label_sets import find_labels
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import plain_console

if TYPE_CHECKING:
    from convert.compare.steps import Report


def import_checkpoint(
    checkpoint: Path | None = None,
    /,
    *,
    out: Path,
    from_hub: str | None = None,
    encoder_only: bool = False,
    num_classes: int | None = None,
    labels: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Convert a PyTorch checkpoint to a Keras SegFormer, strictly.

    The code base (NVlabs, transformers, mmsegmentation 1.x, segmentation_models.pytorch), sizes and classes are read
    from the names and shapes of its tensors. Every key is used or known to be dead, or nothing is written. Nothing in
    the file is run. .safetensors needs no torch, .pth, .pt, .bin and .ckpt do.

    For instance:

        segformer import segformer.b0.512x512.ade.160k.pth --labels ade20k --out ade.keras

        segformer import mit_b0.pth --encoder-only --num-classes 11 --out start.keras

        segformer import --from-hub nvidia/segformer-b0-finetuned-ade-512-512 --out ade.keras

    Then: segformer train --weights start.keras, or segformer export ade.keras.

    Parameters
    ----------
    checkpoint
        File, or a folder with model.safetensors or pytorch_model.bin (transformers' config.json gives the labels, its
        preprocessor_config.json the normalization). A head of one logit becomes two classes, background and its own.
    out
        .keras file to write.
    from_hub
        Repository on the Hugging Face hub, in place of a file.
    encoder_only
        Take the encoder alone; the decoder starts fresh.
    num_classes
        Give the model a fresh classifier of so many classes.
    labels
        Class names: ade20k, cityscapes, coco_stuff, voc, camvid, or a text file of one name a line. Of a head of one
        logit its own name alone will do.
    license
        Terms of the weights, which are kept with them. Default: those of transformers' config.json if
        `segformer export` wrote it, a warning for the authors' files.
    overwrite
        Replace a file of that name.
    """
    if (checkpoint is None) == (from_hub is None):
        raise InputError("expected either a checkpoint or --from-hub OWNER/NAME")
    if out.suffix != ".keras":
        raise InputError(f"--out must end in .keras. Received: {out}")
    if not overwrite:
        refuse_existing([out])
    names = find_labels(labels) if labels else None
    path = checkpoint or _download(from_hub or "")
    import_tensorflow()
    from convert.checkpoints.importer import read_checkpoint, to_keras

    fresh = encoder_only or num_classes is not None
    found = read_checkpoint(path, labels=None if fresh else names)
    if license is not None:
        found = replace(found, config=replace(found.config, license=license))
    model = to_keras(found, encoder_only=encoder_only, num_classes=num_classes, labels=names if fresh else None)
    with atomic(out) as part:
        model.save(part)
    config = model.config
    taken = "encoder" if encoder_only else "all but the classifier" if num_classes else "everything"
    parameters = f"{config.parameter_count:,} parameters, {config.num_classes} classes"
    decoder = f"decoder {config.decoder}, {config.decoder_width} wide"
    for note in found.notes:
        print(note, file=sys.stderr)
    if found.one_logit and not fresh:
        names_told = " and ".join(config.labels.names) if config.labels else "two"
        print(f"its head has one logit, a sigmoid: two classes, {names_told}, of the same probabilities")
    if (config.image_mean, config.image_std) != (IMAGE_MEAN, IMAGE_STD):
        print(f"images are normalized by {config.normalization}")
    print(f"{found.dialect.name}: {taken} taken; {parameters}, {decoder} -> {out}")


def _download(repository: str) -> Path:
    """The files of a hub repository that an import reads; raises InputError where they cannot be had."""
    from huggingface_hub import snapshot_download

    from convert.checkpoints.preprocessor import FILE as PREPROCESSOR_FILE

    patterns = [
        "config.json",
        PREPROCESSOR_FILE,
        "*.safetensors",
        "*.safetensors.index.json",
        "pytorch_model*.bin",
        "*.bin.index.json",
    ]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # whatever the network stack raises
        reason = first_line(error)
        raise InputError(f"--from-hub {repository}: cannot be downloaded ({reason})") from None


def verify(
    model: Path,
    /,
    *,
    against: Path | None = None,
    per_layer: bool = False,
    images: Path | None = None,
    size: tuple[int, int] | None = None,
    runtime: str | None = None,
    foreign: Annotated[ForeignOptions | None, Parameter(name="*")] = None,
    picture: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: bool = False,
) -> None:
    """Compare a model with the checkpoint it came from, or with another model, step by step.

    Weights tensor by tensor; then patch embeddings, blocks, c1..c4, the decoder's branches and the classifier, each
    given the same input as the other side's, so that an error stays where it is made; then logits and mask from end to
    end. The other side runs in torch, by code of its own. With a .tflite on either side: logits and mask.

    For instance:

        segformer verify ade.keras --against segformer.b0.512x512.ade.160k.pth --images photos/

        segformer verify model.tflite --against runs/mine --images data/test/images --picture differences.png

        segformer verify runs/mine --per-layer --images data/train/images

    Ends with 1 and the first step past its tolerance where the two differ.

    Parameters
    ----------
    model
        A .keras file, a run folder or a .tflite.
    against
        A PyTorch checkpoint (as `segformer import` takes), a .keras file, a run folder or a .tflite.
    per_layer
        Instead of comparing: quantise one step after another to int8, alone, and say how far the logits move, the
        worst first. Recipe int8_mixed leaves those in float. Calibrated on --images.
    images
        An image or a folder, of which four are taken (with --per-layer eight). Default: two synthetic ones.
    size
        Height and width both see. Default: a .tflite's own, what a run validated at, or 512 512.
    runtime
        litert, tflite-runtime or litert-gpu, for a .tflite. Default: the faster one on the CPU that is installed.
    picture
        PNG to write, a row an image: the image, the model's mask, the other's, and in red where they differ.
    as_json
        Print one JSON object instead of a table.
    overwrite
        Replace that picture.
    """
    if picture and picture.suffix != ".png":
        raise InputError(f"--picture must end in .png. Received: {picture}")
    if picture and not overwrite:
        refuse_existing([picture])
    if per_layer == (against is not None):
        raise InputError("expected either --against or --per-layer")
    if per_layer and (runtime or picture):
        raise InputError("--per-layer takes no --runtime and no --picture")
    import_tensorflow()
    if per_layer:
        _print_sensitivities(model, images, size, as_json)
        return
    assert against is not None
    from convert.compare.models import compare_paths
    from convert.compare.steps import write_picture

    contract = (foreign or ForeignOptions()).contract(None)
    pixels, labels, report = compare_paths(model, against, images=images, size=size, runtime=runtime, contract=contract)
    if as_json:
        print(json.dumps({"model": str(model), "against": str(against), **report.to_dict()}, indent=1, allow_nan=False))
    else:
        height, width, _ = pixels[0].shape
        print(f"{model} against {against}, {len(pixels)} images of {height}x{width}")
        _print_report(report)
        if images is None:
            print("compared on synthetic images: give --images DIR to compare on yours")
    if picture and not report.masks:
        raise InputError(f"--picture {picture}: an encoder alone makes no masks")
    if picture:
        write_picture(pixels, report.masks, labels, picture)
    if failure := report.first_failure:
        raise InputError(
            f"{model} and {against} differ: first past its tolerance is {failure.name} "
            f"({failure.relative:.3g}, expected at most {failure.tolerance:g})"
        )


def _print_report(report: Report) -> None:
    table = Table()
    for column in ("step", "largest difference", "relative", "tolerance", "verdict"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for row in report.rows:
        verdict = Text("agrees") if row.passes else Text("past it", style="red")
        table.add_row(row.name, f"{row.max_abs:.2e}", f"{row.relative:.2e}", f"{row.tolerance:.0e}", verdict)
    plain_console().print(table)
    for name, difference in report.weights[:12]:
        print(f"weights differ: {name} by up to {difference:.3g}")
    if len(report.weights) > 12:
        print(f"weights differ: and {len(report.weights) - 12} more, by less")
    for note in report.notes:
        print(note)


def _print_sensitivities(model: Path, images: Path | None, size: tuple[int, int] | None, as_json: bool) -> None:
    from convert.compare.models import int8_sensitivities

    found = int8_sensitivities(model, images=images, size=size)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=1, allow_nan=False))
        return
    table = Table(title=f"{model}: logits when one step alone is computed in int8")
    for column in ("step", "relative error", "multiply-adds"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for each in found:
        table.add_row(each.step, f"{each.error:.2e}", f"{each.share:.1%}")
    plain_console().print(table)
    if images is None:
        print("calibrated on synthetic images: give --images DIR to calibrate on yours")
