"""The verb `predict`, without TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from segformer_tf.edge.foreign_options import ForeignOptions
from segformer_tf.edge.predict.arguments import is_video, model_and_images, model_and_videos
from segformer_tf.edge.predict.images import output_names, predict_images
from segformer_tf.edge.predict.large import tiff_paths
from segformer_tf.edge.predict.output_options import OutputOptions
from segformer_tf.edge.predict.slide_options import SlideOptions
from segformer_tf.edge.predict.video.options import VideoOptions
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.errors import InputError
from segformer_tf.files import make_folder, refuse_existing
from segformer_tf.image import skipped_files
from segformer_tf.labels import Labels


def predict(
    *files: Path,
    named: Annotated[str | None, Parameter(name="--model")] = None,
    out: Path = Path("predictions"),
    runtime: str | None = None,
    threads: int | None = None,
    labels: Path | None = None,
    size: tuple[int, int] | None = None,
    sliding: Annotated[SlideOptions | None, Parameter(name="*")] = None,
    foreign: Annotated[ForeignOptions | None, Parameter(name="*")] = None,
    outputs: Annotated[OutputOptions | None, Parameter(name="*")] = None,
    video: Annotated[VideoOptions | None, Parameter(name="*")] = None,
    bits: int | None = None,
    overwrite: bool = False,
) -> None:
    """Segment images, videos and cameras with a TFLite file; needs no TensorFlow.

    Writes NAME_mask.png (palette PNG, index = class id) and NAME_overlay.png (with a legend) for every image, and
    predictions.json with the classes and their shares.

    For instance:

        segformer predict photo.jpg --out seen/

        segformer predict photo.jpg --model street

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

    Of a video or camera it writes NAME_overlay.mp4 and NAME_mask.mkv instead (pip install '.[video]'):

        segformer predict model.tflite clip.mp4 --out seen/ --every 2 --smooth 0.8

        segformer predict camera:0 --seconds 60

    Parameters
    ----------
    files
        A file made by `segformer export`, then images or folders of images, or videos, or camera:0. Without a model,
        one of this repository is used.
    named
        Of this repository: clothing (people and what they wear), nuclei (under the microscope) or street (scenes from a
        car; for research alone). Default: clothing.
    out
        Folder for the pictures; made if it is missing.
    runtime
        litert, tflite-runtime, or litert-gpu, which uses a GPU or SwiftShader. Default: the fastest installed one on
        the CPU.
    threads
        CPU threads. Default: OMP_NUM_THREADS, or all cores, four at most. On a busy machine tflite-runtime is far
        faster with 1.
    labels
        Text file of class names, one per line, for a .tflite from elsewhere; one name is enough for one channel.
    size
        Height and width, for a .tflite that takes images of any size.
    bits
        Bits in use, 8 to 16, in images of more than 8 bits per channel. Default: as in the model's training, or 16.
    overwrite
        Replace the files of an earlier run.
    """
    sliding, outputs, video = sliding or SlideOptions(), outputs or OutputOptions(), video or VideoOptions()
    watching = any(map(is_video, files))
    if watching:
        import segformer_tf.edge.predict.video.run as videos  # with PyAV, which images do not need

        _refuse("images", [*_set_options(sliding), *_set_options(outputs), *["--bits"] * (bits is not None)])
        video.check()
    else:
        _refuse("videos and cameras", _set_options(video))
    model, paths = (model_and_videos if watching else model_and_images)(files, named)
    names = output_names([videos.file_like(path) for path in paths] if watching else paths)
    contract = asdict((foreign or ForeignOptions()).contract(size))
    own_labels = Labels.read(labels) if labels else None
    segmenter = Segmenter(model, runtime=runtime, threads=threads, labels=own_labels, bits=bits, **contract)
    sources = dict(zip(names, paths, strict=True))
    if watching:
        segmenter.moving_average(video.smooth)  # fails now if it cannot be
        written = [path for name in names for path in videos.output_paths(out, name, video).values()]
        _begin(segmenter, model, out, written, overwrite)
        videos.predict_videos(segmenter, sources, out, video)
        return
    sliding.check(segmenter.size)
    outputs.check(segmenter.labels)
    if sliding.slide and not segmenter.gives_logits:
        raise InputError(f"--slide: {model} gives class ids, which cannot be averaged where windows overlap")
    if outputs.needs_confidence and not segmenter.gives_logits:
        raise InputError(f"--confidence and --threshold: {model} gives class ids and no logits")
    if sliding.slide and outputs.needs_confidence:
        raise InputError("--confidence and --threshold are for pictures that are stretched, not for --slide")
    if tiffs := [path for path in paths if sliding.cuts_tiff(path)]:
        import rasterio  # noqa: F401  to fail now if it is missing

        if outputs != OutputOptions():
            given = _set_options(outputs)[0]
            raise InputError(
                f"{tiffs[0]}: of a TIFF --slide writes mask and overlay alone, whatever its size; leave out "
                f"{given}, or give a PNG of the picture, which has to fit into memory"
            )
    label_files = outputs.label_files(out, segmenter.labels)
    pictures = [
        tiff_paths(out, name) if sliding.cuts_tiff(path) else outputs.paths(out, name) for name, path in sources.items()
    ]
    labeled = label_files.paths(names) if label_files else []
    _begin(segmenter, model, out, [*(path for each in pictures for path in each), *labeled], overwrite)
    if note := skipped_files(path for path in files if path != model):
        print(note, file=sys.stderr)
    predict_images(segmenter, sources, out, sliding=sliding, outputs=outputs, label_files=label_files)


def _begin(segmenter: Segmenter, model: Path, out: Path, written: Iterable[Path], overwrite: bool) -> None:
    """Make the folder, unless files are there that would be replaced, and print what is to be known of the model."""
    if not overwrite:
        refuse_existing([out / "predictions.json", *written])
    make_folder(out)
    for note in filter(None, (segmenter.license, segmenter.said)):
        print(f"{model}: {note}", file=sys.stderr)


def _set_options(options: Any) -> list[str]:
    """The options of a dataclass that differ from their default."""
    names = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    return [f"--{name.replace('_', '-')}" for name in names]


def _refuse(kind: str, names: list[str]) -> None:
    """Raises InputError if there is a name of an option, which is for another `kind` of files."""
    if names:
        raise InputError(f"{names[0]} is for {kind}")
