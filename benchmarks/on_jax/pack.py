"""`python -m benchmarks.on_jax.pack DATA OUT.npz --split train val`: a data set in one file.

For a machine without TensorFlow. Images are kept as the bytes of their files, or as PNG where Pillow alone would read
another picture: of 16 bits, or to be turned upright. Masks are PNG of classes, with `IGNORE_ID` where a pixel does not
count.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from segformer_tf.files import atomic


def pack(data: Path, out: Path, splits: list[str]) -> None:
    from training.data.folder.source import FolderSource  # not where `train` runs

    content: dict[str, np.ndarray] = {}
    for split in splits:
        source = FolderSource(data, split)
        content["classes"] = np.array(len(source.labels.names))
        content[f"{split}/count"] = np.array(len(source))
        for i, path in enumerate(source.images):
            image, mask = source[i]
            raw = path.read_bytes()
            content[f"{split}/{i}/image"] = _as_array(raw) if np.array_equal(picture_in(raw), image) else _as_png(image)
            content[f"{split}/{i}/mask"] = _as_png(mask)
    with atomic(out) as part, part.open("wb") as file:
        np.savez(file, **content)


def picture_in(raw: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file's bytes, as training reads them."""
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


def _as_array(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, "uint8")


def _as_png(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return _as_array(file.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", nargs="+", default=["train", "val"])
    given = parser.parse_args()
    pack(given.data, given.out, given.split)
