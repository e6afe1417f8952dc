"""What float16 arithmetic costs: the masks of one file in float16 beside those of another in float32.

    python -m benchmarks.float16 fp32.tflite fp16_compute.tflite --data data/camvid
    python -m benchmarks.float16 fp32.tflite fp16_compute.tflite --data data/camvid --images 20 --board cortex-a76

The second needs the emulated boards of `make test-arm`. Masks are kept, and those of the same
file, data and split are not made again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from cyclopts import run
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from segformer_tf.edge.compiled import HALF
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.files import atomic, make_folder
from segformer_tf.image import fit_image
from segformer_tf.mask import logits_to_mask
from segformer_tf.metrics import confusion_matrix, mean_iou
from segformer_tf.sampling import evenly_spaced
from segformer_tf.terminal import plain_console
from tests.arm.boards import FOLDER
from training.data.open import Source, open_source

_SECONDS = 3600  # of one image, emulated


def main(
    reference: Path,
    file: Path,
    /,
    *,
    data: Path,
    split: str = "test",
    images: int | None = None,
    runtime: str | None = None,
    board: Literal["cortex-a72", "cortex-a76"] | None = None,
    out: Path = Path("runs/float16"),
) -> None:
    """Print the share of pixels with the same class, and the mean IoU of both.

    Parameters
    ----------
    reference
        A file of recipe fp32, run on litert on this machine.
    file
        The file in question.
    data
        Data set folder.
    split
        Split whose images to take.
    images
        How many of them, evenly chosen. Default: all.
    runtime
        Where `file` runs. Default: litert on a board, else litert-fp16, LiteRT in float16 on this machine.
    board
        Emulated processor that runs it. Default: this one.
    out
        Folder for the masks.
    """
    source = open_source(str(data), split)
    indices = evenly_spaced(range(len(source)), images or len(source))
    runtime = runtime or ("litert" if board else HALF)
    out /= f"{data.resolve().name}-{split}"
    expected = _masks(reference, "litert", None, source, indices, out)
    masks = _masks(file, runtime, board, source, indices, out)
    count = len(source.labels.names)
    matrices = np.zeros((2, count, count), np.int64)
    same = pixels = 0
    for index, one, other in zip(indices, expected, masks, strict=True):
        truth = source[index][1]
        for matrix, mask in zip(matrices, (one, other), strict=True):
            matrix += confusion_matrix(truth, mask, num_classes=count)
        same, pixels = same + int((one == other).sum()), pixels + one.size
    first, second = (mean_iou(matrix) for matrix in matrices)
    where = f"{runtime} on {board}, emulated" if board else runtime
    plain_console().print(
        f"{len(indices)} images: {same / pixels:.3%} of the pixels have the class of {reference.name}; mean IoU "
        f"{second:.4f} on {where}, {second - first:+.4f} against {first:.4f}"
    )


def _masks(
    file: Path, runtime: str, board: str | None, source: Source, indices: Sequence[int], out: Path
) -> Iterator[NDArray[np.uint8]]:
    """The mask of each sample, at its own size."""
    digest = sha256(file.read_bytes()).hexdigest()[:12]  # another file of that name has other masks
    folder = out / "-".join(filter(None, (file.stem, digest, runtime, board)))
    make_folder(folder)
    paths = {index: folder / f"{index}.png" for index in indices}
    missing = [index for index, path in paths.items() if not path.exists()]
    if missing:
        with _python_of(board):
            model = IsolatedModel(file, runtime=runtime, seconds=_SECONDS)
        with model:
            for index in track(missing, folder.name, transient=True, console=plain_console(stderr=True)):
                image = source[index][0]
                height, width, _ = image.shape
                mask = logits_to_mask(model.logits(fit_image(image, model.size)), (height, width))
                with atomic(paths[index]) as part:
                    Image.fromarray(mask).save(part, "png")
    for path in paths.values():
        with Image.open(path) as picture:
            yield np.array(picture)


@contextmanager
def _python_of(board: str | None) -> Iterator[None]:
    """Lets a process that is started meanwhile run on the board."""
    own = sys.executable
    if board:
        sys.executable = str(FOLDER / board / "python")
        if not Path(sys.executable).exists():
            sys.exit(f"float16: {FOLDER} is missing: make .arm, which needs qemu-user-static")
    try:
        yield
    finally:
        sys.executable = own


if __name__ == "__main__":
    run(main)
