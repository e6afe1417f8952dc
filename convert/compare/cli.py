"""Verb `verify`. TensorFlow is imported when it runs, so that --help is quick."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.text import Text

from segformer_tf.edge.foreign_options import ForeignOptions
from segformer_tf.errors import InputError
from segformer_tf.files import refuse_existing
from segformer_tf.image import skipped_files
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import narrow_table, plain_console

if TYPE_CHECKING:
    from convert.compare.steps import Report


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
    given the same input as the other side's, so that an error shows where it arises; then logits and mask from end to
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
        Instead of comparing: quantize one step after another to int8, alone, and say how far the logits move, the
        worst first. Recipe int8_mixed leaves those in float. Calibrated on --images.
    images
        An image or a folder, of which four are taken (with --per-layer eight). Default: two synthetic ones.
    size
        Height and width both see. Default: a .tflite's own, what a run validated at, or 512 512.
    runtime
        litert, tflite-runtime, litert-gpu or litert-fp16, for a .tflite. Default: the faster installed one on the CPU.
    picture
        PNG to write, one row per image: the image, the model's mask, the other's, and in red where they differ.
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
    if skipped := skipped_files([images] if images else []):
        print(f"{images}: {skipped}", file=sys.stderr)
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
    table = narrow_table(("step",), ("largest difference", "relative", "tolerance", "verdict"))
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

    steps = int8_sensitivities(model, images=images, size=size)
    if as_json:
        print(json.dumps([asdict(each) for each in steps], indent=1, allow_nan=False))
        return
    title = f"{model}: logits when one step alone is computed in int8"
    table = narrow_table(("step",), ("relative error", "multiply-adds"), title=title)
    for each in steps:
        table.add_row(each.step, f"{each.error:.2e}", f"{each.share:.1%}")
    plain_console().print(table)
    if images is None:
        print("calibrated on synthetic images: give --images DIR to calibrate on yours")
