"""Files to compare with: converted by each framework's own road, made once, kept with the versions that made them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.picture import SIZE
from segformer_tf.files import atomic

if TYPE_CHECKING:
    import torch

CLASSES = 150


def versions(*packages: str) -> str:
    """Names and versions; raises PackageNotFoundError if one is not installed."""
    return ", ".join(f"{package} {version(package)}" for package in packages)


def made_by(path: Path) -> str:
    """The versions that made a file of `make_once`, or "" if there is none."""
    return path.with_suffix(".txt").read_text("utf-8").strip() if is_made(path) else ""


def is_made(path: Path) -> bool:
    """Whether there is a whole file of `make_once`: its note is removed first, and written last."""
    return path.with_suffix(".txt").is_file() and path.is_file()


def make_once(write: Callable[[Path], None], path: Path, packages: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Make a file, unless there is one by the installed versions (or by packages that are not installed here).

    Args:
        write: writes it to a path.
        path: of the file.
        packages: that it depends on.
        parts: suffixes of the files that belong together; the last one is the one that `write` is given.

    Raises:
        ImportError: a package that makes it is not installed.
        InputError: the folder cannot be written.
    """
    try:
        makers = versions(*packages)
    except PackageNotFoundError:
        makers = ""
    if (previous := made_by(path)) and previous == (makers or previous):
        return
    note = path.with_suffix(".txt")
    note.unlink(missing_ok=True)
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic(path.with_suffix(suffix))) for suffix in parts]
        write(paths[-1])
    with atomic(note) as part:
        part.write_text(makers + "\n", "utf-8")


def write_keras(
    model: Any, serve: Callable[[Any], Any], out: Path, size: tuple[int, int] = SIZE, dtype: str = "float32"
) -> None:
    """A Keras model as a ``.tflite`` by TensorFlow's converter: an image of `size` in, what `serve` gives out."""
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[tf.TensorSpec((1, *size, 3), dtype)])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        out.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def write_torch(model: torch.nn.Module, out: Path, *, channels_last: bool = False) -> None:
    """A torch model as a ``.tflite`` by litert-torch: a normalized image of `SIZE` in, logits out.

    Args:
        model: from (1, 3, H, W) to (1, C, h, w), in inference mode.
        out: file to write.
        channels_last: whether the file takes (1, H, W, 3) and gives (1, h, w, C).
    """
    import torch

    import litert_torch  # isort: skip  after torch

    shape = (1, *SIZE, 3) if channels_last else (1, 3, *SIZE)
    if channels_last:
        model = litert_torch.to_channel_last_io(model, args=[0], outputs=[0]).eval()
    litert_torch.convert(model, (torch.zeros(shape),)).export(str(out))
