"""Verb `export`. TensorFlow is imported when a verb needs it, so that --help is quick."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from convert.quantize.recipes import RECIPES
from segformer_tf.config import VARIANTS, SegFormerConfig
from segformer_tf.edge.runtime import choose_runtime, installed_runtimes
from segformer_tf.errors import InputError, printable
from segformer_tf.files import refuse_existing
from segformer_tf.image import list_images, skipped_files
from segformer_tf.label_sets import find_labels
from segformer_tf.labels import Labels
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import narrow_table, plain_console

if TYPE_CHECKING:
    from convert.export import Exported
    from segformer_tf.model import SegFormer

    RecipeName = str
else:
    RecipeName = Literal[tuple(RECIPES)]

_RECIPE_HELP = "; ".join(f"{r.name}{' (calibrated)' * r.needs_calibration}: {r.purpose}" for r in RECIPES.values())


def export(
    model: Path,
    /,
    *,
    out: Path,
    format: Literal["tflite", "onnx", "openvino", "keras", "transformers"] = "tflite",
    recipe: Annotated[RecipeName, Parameter(help=_RECIPE_HELP)] = "fp32",
    size: tuple[int, int] | None = None,
    calibration: Path | None = None,
    runtime: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    class_map: bool = False,
    opset: int | None = None,
    dynamic_batch: bool = False,
    num_classes: int | None = None,
    labels: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Convert to a TFLite file, quantized and verified.

    The file takes RGB 0..255 [1, H, W, 3] (uint8 where the recipe is calibrated, else float32), normalizes inside, and
    gives float32 logits [1, H/4, W/4, C], rounded up (int8 ones for int8_io). Labels, colors and the input contract
    are inside it. It is run on every target runtime and compared with Keras; where one fails or is wrong, no file is
    left.

    For instance:

        segformer export runs/b0-camvid --recipe fp32 --out model.tflite

        segformer export model.keras --recipe int8 --size 360 480 --calibration data/train/images --out int8.tflite

        segformer export runs/b0-camvid --format onnx --out model.onnx

        segformer export model.keras --format transformers --out for_torch

        segformer export b0 --num-classes 11 --size 384 512 --out to_time.tflite

        segformer export runs/b0-camvid --format keras --license "CamVid: research use only" --out to_share.keras

        segformer export runs/mine --format keras --labels names.txt --out renamed.keras

    Parameters
    ----------
    model
        A .keras file, a run folder (its best weights), or b0 to b5 for an untrained network, to time it.
    format
        tflite; onnx: the same network for ONNX Runtime and others; openvino: a folder with model.xml and model.bin;
        keras: a .keras file of float16 weights without the optimizer; or transformers: a folder with
        model.safetensors, config.json and preprocessor_config.json, for PyTorch.
    out
        File to write, ending in .tflite, .onnx or .keras, or the folder of openvino or transformers.
    size
        Height and width of the input; of transformers, that images are resized to. Default: what the run validated at.
    calibration
        Images to calibrate int8 on, to round int4 for, and to verify with: a folder like data/train/images.
    runtime
        litert, tflite-runtime, litert-gpu, or several: where the file must work. Default: all on the CPU that are
        installed and the recipe is for; where there is a GPU, or SwiftShader, the file is tried on it too, and is
        written with a warning if it is wrong there. For tflite-runtime alone the graph takes a form that is faster
        there. A file of fp16_compute is run on litert-fp16 as well: on x86 its targets compute in float32. Of onnx:
        onnxruntime, openvino or both.
    class_map
        Add an output, mask, class ids [1, H, W] at the input's size, int32 or, of int8_io, uint8, for apps without
        this library. It comes before the logits, because MediaPipe makes its own masks of the last output. With more
        than 24 classes and H and W that are multiples of 4, a form that costs little is tried first, and kept if
        99.9 % of the pixels compared are those of the exact form; litert-gpu takes the exact one only.
    opset
        Version of ONNX' operators, 18 or more. Default: 20.
    dynamic_batch
        Leave the batch of an ONNX or OpenVINO file open.
    num_classes
        Classes of an untrained network.
    labels
        Other names for the classes, in the order of the model's own, whose colors stay: a text file of one name a
        line, or ade20k, cityscapes, coco_stuff, voc, camvid or oxford_iiit_pet. `evaluate` goes by names: data must
        have the new ones.
    license
        Terms of the weights, kept in the file and printed when it is used. Default: those of the model.
    overwrite
        Replace a file of that name.
    """
    if format in ("keras", "transformers") and (calibration or runtime or class_map or recipe != "fp32"):
        raise InputError(f"--format {format} takes no --recipe, --calibration, --runtime or --class-map")
    if format in ("onnx", "openvino") and class_map:
        raise InputError(f"--format {format} takes no --class-map: docs/onnx.md shows how its logits become a mask")
    if format == "openvino" and (runtime or opset is not None):
        raise InputError("--format openvino takes no --runtime or --opset")
    if format not in ("onnx", "openvino") and (opset is not None or dynamic_batch):
        raise InputError(f"--format {format} takes no --opset or --dynamic-batch")
    if format == "keras" and size:
        raise InputError("--format keras takes no --size")
    untrained = str(model) in VARIANTS and not model.exists()
    if untrained and num_classes is None:
        raise InputError(f"{model} is an untrained network, which needs --num-classes")
    if num_classes is not None and not untrained:
        raise InputError(f"--num-classes goes with an untrained network ({', '.join(VARIANTS)}). Received: {model}")
    if not overwrite:
        refuse_existing([out])
    elif out.is_dir():
        raise InputError(f"{out}: a folder, which --overwrite does not replace; remove it or give another name")
    elif out.exists() and format in ("openvino", "transformers"):
        raise InputError(f"{out}: a file, and --format {format} writes a folder; remove it or give another name")
    for name in (format == "tflite" and runtime) or []:
        choose_runtime(name)
    names = find_labels(labels) if labels is not None else None
    import_tensorflow()
    from convert.export import export_tflite
    from segformer_tf.keras_file import load_segformer, run_size

    loaded = load_segformer(model) if num_classes is None else _untrained(model.name, num_classes)
    if names is not None:
        loaded.config = replace(loaded.config, labels=_renamed(loaded.config, names))
    if license is not None:
        loaded.config = replace(loaded.config, license=license)
    height, width = size or run_size(model) or loaded.image_size
    if format == "transformers":
        _export_transformers(loaded, out, (height, width))
        return
    if format == "keras":
        _export_keras(loaded, out)
        return
    if height is None or width is None:
        raise InputError("--size H W is needed: the model takes any size and is not a run folder")
    size = height, width
    images = list_images([calibration]) if calibration else []
    if skipped := skipped_files([calibration] if calibration else []):
        print(f"{calibration}: {skipped}", file=sys.stderr)
    options: dict[str, Any] = {"recipe": recipe, "size": size, "images": images}
    runtimes = runtime or RECIPES[recipe].fitting(installed_runtimes())
    console = plain_console()
    with console.status(f"converting to {recipe} and running it" + f" on {', '.join(runtimes)}" * (format == "tflite")):
        if format == "tflite":
            exported = export_tflite(
                loaded, out, runtimes=runtimes, class_map=class_map, try_gpu=runtime is None, **options
            )
        else:
            exported = _export_onnx(
                loaded, out, format, runtimes=runtime or [], opset=opset, dynamic_batch=dynamic_batch, **options
            )
    megabytes = sum(file.stat().st_size for file in (out.iterdir() if out.is_dir() else [out])) / 1e6
    title = f"{out}  {megabytes:.2f} MB, {recipe}, {size[0]}x{size[1]}, against Keras"
    table = narrow_table(("runtime",), ("relative error", "largest difference", "same class"), title=title)
    for v in exported.verdicts:
        table.add_row(v.runtime, f"{v.error:.2e}", f"{v.max_error:.2e}", f"{v.agreement:.2%}")
    console.print(table)
    if exported.warning:
        print(f"warning, kept in the file: {exported.warning}", file=sys.stderr)
    if exported.untried:
        print(f"not tried on the GPU: {exported.untried}", file=sys.stderr)
    for name in RECIPES[recipe].also:
        console.print(
            f"{name} computes in float16 as this processor can: x86 stores it and sums in float32, an ARM core sums in "
            "it too"
        )
    if not images:
        console.print("compared on synthetic images: give --calibration DIR to compare on yours")


def _untrained(variant: str, num_classes: int) -> SegFormer:
    from segformer_tf.model import build_segformer

    model = build_segformer(variant, num_classes=num_classes)
    model.config = replace(model.config, license="untrained, for timing only: its masks mean nothing")
    return model


def _renamed(config: SegFormerConfig, labels: Labels) -> Labels:
    own = config.labels or Labels.numbered(config.num_classes)
    if len(labels.names) != config.num_classes:
        raise InputError(
            f"--labels: expected {config.num_classes} names, in the order of {', '.join(own.names)}. "
            f"Received: {len(labels.names)}"
        )
    if changed := [f"{old} -> {new}" for old, new in zip(own.names, labels.names, strict=True) if old != new]:
        print(printable(", ".join(changed)))
    if changed and set(own.names) == set(labels.names):
        print(
            "warning: the model's own names in another order; --labels renames its classes, it moves none",
            file=sys.stderr,
        )
    return replace(labels, colors=config.labels.colors) if config.labels else labels


def _export_onnx(
    loaded: SegFormer, out: Path, format: str, *, runtimes: list[str], opset: int | None, **options: Any
) -> Exported:
    from convert.onnx.export import export_onnx, export_openvino

    if format == "openvino":
        return export_openvino(loaded, out, **options)
    return export_onnx(loaded, out, runtimes=runtimes, opset=opset, **options)


def _export_keras(loaded: SegFormer, out: Path) -> None:
    from convert.interchange.to_keras import export_keras

    export_keras(loaded, out)
    print(f"{loaded.config.parameter_count:,} parameters as float16 -> {out}, {out.stat().st_size / 1e6:.2f} MB")


def _export_transformers(loaded: SegFormer, out: Path, size: tuple[int | None, int | None]) -> None:
    from convert.interchange.to_transformers import export_transformers, shift_of_epsilons
    from segformer_tf.model import check_image_shape

    height, width = size
    if height is None or width is None:
        height, width = 512, 512  # transformers' own default
        print("the model takes any size: its image processor there will stretch images to 512x512, or give --size H W")
    check_image_shape((None, height, width, 3), "--size")
    export_transformers(loaded, out, size=(height, width))
    print(f"{loaded.config.parameter_count:,} parameters -> {out}, read back bit by bit")
    if bits := loaded.config.image_bits:
        print(f"this model takes {bits} bits of files of more than 8, transformers does not: give it images of 8 bits")
    if (shift := shift_of_epsilons(loaded)) is not None:
        epsilons = " and ".join(f"{value:g}" for value in dict.fromkeys(loaded.config.epsilons.values()))
        print(
            f"transformers computes every norm with epsilon 1e-5, this model with {epsilons}: "
            f"its logits there differ by {shift:.1e} of the largest"
        )
