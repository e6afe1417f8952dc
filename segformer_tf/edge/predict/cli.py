"""The verb `predict`, without TensorFlow."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segformer_tf.edge.foreign_options import ForeignOptions
from segformer_tf.edge.predict.arguments import model_and_images
from segformer_tf.edge.predict.images import output_names, predict_images
from segformer_tf.edge.predict.large import tiff_paths
from segformer_tf.edge.predict.output_options import OutputOptions
from segformer_tf.edge.predict.slide_options import SlideOptions
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.errors import InputError
from segformer_tf.files import make_folder, refuse_existing
from segformer_tf.image import skipped_files
from segformer_tf.labels import Labels


def predict(
    *files: Path,
    out: Path = Path("predictions"),
    runtime: str | None = None,
    threads: int | None = None,
    labels: Path | None = None,
    size: tuple[int, int] | None = None,
    sliding: Annotated[SlideOptions | None, Parameter(name="*")] = None,
    foreign: Annotated[ForeignOptions | None, Parameter(name="*")] = None,
    outputs: Annotated[OutputOptions | None, Parameter(name="*")] = None,
    bits: int | None = None,
    overwrite: bool = False,
) -> None:
    """Segment images with a TFLite file; needs no TensorFlow.

    Writes NAME_mask.png (palette PNG, index = class id) and NAME_overlay.png (with a legend) for every image, and
    predictions.json with the classes and their shares.

    For instance:

        segformer predict photo.jpg --out seen/

        segformer predict model.tflite photo.jpg --out seen/

        segformer predict model.tflite photos/ --out seen/ --runtime tflite-runtime

    A large picture, such as an aerial one, in windows of the model's size; a TIFF may have any size, is never in memory
    as a whole, and its mask and overlay are TIFFs with its georeference:

        segformer predict model.tflite ortho.tif --slide

        segformer predict model.tflite ortho.tif --slide --stride 384 --scale 0.5

    A file from elsewhere needs the names of its classes, and the options that its metadata lacks:

        segformer predict theirs.tflite photos/ --labels names.txt --mean 127.5 --std 127.5

    What the network is unsure of is left out; cars and roads alone, as outlines for an annotation tool:

        segformer predict model.tflite photos/ --confidence --threshold 0.6

        segformer predict model.tflite photos/ --classes car,road --format labelme --tolerance 1.5 --min-area 50

    Parameters
    ----------
    files
        A file made by `segformer export`, then images or folders of images. Without a model, the street scenes model
        of this repository is used.
    out
        Folder for the pictures; made if it is missing.
    runtime
        litert, tflite-runtime, or litert-gpu, which uses a GPU or SwiftShader. Default: the fastest installed one on
        the CPU.
    threads
        CPU threads. Default: all cores, four at most. On a busy machine tflite-runtime is far faster with 1.
    labels
        Text file of class names, one per line, for a .tflite from elsewhere; one name is enough for one channel.
    size
        Height and width, for a .tflite that takes images of any size.
    bits
        Bits in use, 8 to 16, in images of more than 8 bits per channel. Default: as in the model's training, or 16.
    overwrite
        Replace the files of an earlier run.
    """
    model, paths = model_and_images(files)
    names = output_names(paths)
    contract = asdict((foreign or ForeignOptions()).contract(size))
    own_labels = Labels.read(labels) if labels else None
    segmenter = Segmenter(model, runtime=runtime, threads=threads, labels=own_labels, bits=bits, **contract)
    sliding, outputs = sliding or SlideOptions(), outputs or OutputOptions()
    sliding.check(segmenter.size)
    outputs.check(segmenter.labels)
    if sliding.slide and not segmenter.gives_logits:
        raise InputError(f"--slide: {model} gives class ids, which cannot be averaged where windows overlap")
    if sliding.slide and outputs.needs_confidence:
        raise InputError("--confidence and --threshold are for pictures that are stretched, not for --slide")
    if tiffs := [path for path in paths if sliding.cuts_tiff(path)]:
        import rasterio  # noqa: F401  to fail now if it is missing

        if outputs != OutputOptions():
            raise InputError(f"{tiffs[0]}: of a TIFF --slide writes mask and overlay alone, whatever its size")
    label_files = outputs.label_files(out, segmenter.labels)
    images = dict(zip(names, paths, strict=True))
    if not overwrite:
        pictures = [
            tiff_paths(out, name) if sliding.cuts_tiff(path) else outputs.paths(out, name)
            for name, path in images.items()
        ]
        labeled = label_files.paths(names) if label_files else []
        refuse_existing([out / "predictions.json", *(path for each in pictures for path in each), *labeled])
    make_folder(out)
    for note in filter(None, (segmenter.license, segmenter.said)):
        print(f"{model}: {note}", file=sys.stderr)
    if note := skipped_files(path for path in files if path != model):
        print(note, file=sys.stderr)
    predict_images(segmenter, images, out, sliding=sliding, outputs=outputs, label_files=label_files)
