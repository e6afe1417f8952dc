"""The files on the command line of `predict`: perhaps a model, and images, or videos and cameras."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from segformer_tf.edge.predict.video.camera import CAMERA
from segformer_tf.errors import InputError
from segformer_tf.image import IMAGE_SUFFIXES, images_in, list_images

# In a clone of the repository, by the name that `--model` takes; a wheel contains no model. The first is the default.
MODELS = {
    "clothing": Path("models") / "clothing_b0_int8.tflite",
    "nuclei": Path("models") / "nuclei_b0_int8.tflite",
    "street": Path("models") / "camvid_b0_int8.tflite",
}

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    ".ogv",
)

# Other models by suffix: what they are, and whether `segformer import` may read them.
_OTHER_MODELS = {
    ".onnx": ("an ONNX model", False),
    ".pb": ("a TensorFlow graph", False),
    ".h5": ("a Keras HDF5 file", False),
    ".mlmodel": ("a Core ML model", False),
    ".engine": ("a TensorRT engine", False),
    ".pth": ("a PyTorch checkpoint", True),
    ".pt": ("a PyTorch checkpoint", True),
    ".bin": ("a PyTorch checkpoint", True),
    ".safetensors": ("a checkpoint", True),
}


def model_and_images(files: Sequence[Path], name: str | None = None) -> tuple[Path, list[Path]]:
    """The model to use, and the images, including those in folders.

    Without a model one of the repository is used, but only for paths that are clearly images: it would segment
    anything.

    Args:
        files: of the command line.
        name: of a model in `MODELS`; None for the first one, or that in `files`.

    Raises:
        InputError: a model of another format, with the command that converts it; two models; no images; or,
            without a model, a file that is not an image or a folder with a model in it.
    """
    model, images = _one_model(files, name)
    if not images:
        raise InputError("no image given; expected [MODEL.tflite] and images, folders of images, or videos")
    paths = list_images(images)
    if model:
        return model, paths
    for path in images:
        _refuse_no_images(path)
    return _model_of_the_clone(name), paths


def is_video(path: Path) -> bool:
    """Whether a path is named as a video file or a camera."""
    return str(path).startswith(CAMERA) or path.suffix.lower() in VIDEO_SUFFIXES


def model_and_videos(files: Sequence[Path], name: str | None = None) -> tuple[Path, list[Path]]:
    """The model to use, and the videos and cameras.

    Raises:
        InputError: as `model_and_images`; also for an image beside them.
    """
    model, videos = _one_model(files, name)
    for path in videos:
        if not is_video(path):
            raise InputError(f"{path}: not a video ({', '.join(VIDEO_SUFFIXES)}); predict images and videos apart")
        if not str(path).startswith(CAMERA) and not path.is_file():
            raise InputError(f"{path}: no such video")
    return model or _model_of_the_clone(name), videos


def _one_model(files: Sequence[Path], name: str | None) -> tuple[Path | None, list[Path]]:
    """The model, if one is given, and the rest."""
    for path in files:
        _refuse_other_models(path)
    models = [path for path in files if path.suffix.lower() == ".tflite"]
    if len(models) > 1:
        raise InputError(f"expected one model. Received: {models[0]} and {models[1]}; predict with each apart")
    if models and name is not None:
        raise InputError(f"--model {name} is another model than {models[0]}; name one")
    return next(iter(models), None), [path for path in files if path not in models]


def _refuse_other_models(path: Path) -> None:
    """Raises InputError for a model that is not a ``.tflite``."""
    suffix, kind, imports = path.suffix.lower(), "", False
    if path.is_dir():
        if any(path.glob("weights/*.keras")) or (path / "environment.json").is_file():
            raise InputError(_export_line(path, "a run folder"))
        if (path / "saved_model.pb").is_file():
            kind = "a SavedModel"
        elif (path / "config.json").is_file() and not images_in(path):
            kind, imports = "a transformers checkpoint?", True
    elif suffix == ".keras":
        raise InputError(_export_line(path, "a Keras model"))
    else:
        kind, imports = _OTHER_MODELS.get(suffix, ("", False))
    if kind:
        way = "the tools of its framework may convert it"
        if imports:
            name = quote(path.resolve().name.removesuffix(path.suffix))
            imported = f"segformer import {quote(str(path))} --out {name}.keras"
            way = f"for a SegFormer: {imported}, then segformer export {name}.keras"
        raise InputError(f"{path}: {kind}; predict runs .tflite files only; {way}")


def _export_line(path: Path, kind: str) -> str:
    name = quote(path.resolve().name.removesuffix(".keras"))
    size = "" if path.is_dir() else " --size 512 512"  # a run knows its own
    return (
        f"{path}: {kind}; predict runs .tflite files only; convert it by: "
        f"segformer export {quote(str(path))} --out {name}.tflite{size}"
    )


def _refuse_no_images(path: Path) -> None:
    """Raises InputError for a path that may have been meant as a model."""
    if path.is_dir():
        if models := sorted(p.name for p in path.iterdir() if p.suffix.lower() in (".tflite", ".keras")):
            raise InputError(f"{path}: a folder with a model in it, {models[0]}; name the model to use")
    elif path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"{path}: neither a .tflite nor an image ({', '.join(IMAGE_SUFFIXES)}); expected [MODEL.tflite] and images "
            "or folders of images"
        )


def _model_of_the_clone(name: str | None) -> Path:
    chosen = name or next(iter(MODELS))
    if chosen not in MODELS:
        raise InputError(f"--model must be one of {', '.join(MODELS)}; a file needs no option. Received: {chosen}")
    model = MODELS[chosen]
    for path in (Path(__file__).parents[3] / model, model):
        if path.is_file():
            others = "" if name else f" (--model {' or '.join(other for other in MODELS if other != chosen)})"
            print(f"model: {path}{others}", file=sys.stderr)
            return path
    raise InputError(f"no .tflite given, and no {model} here, which a clone of the repository has")
