"""`python -m benchmarks.on_jax.pack DATA OUT.npz --split train val`: a data set in one file.

For a machine without TensorFlow. Images are kept as the bytes of their files, masks as PNG of classes, with `IGNORE_ID`
where a pixel does not count.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.folder.source import FolderSource


def pack(data: Path, out: Path, splits: list[str]) -> None:
    content: dict[str, np.ndarray] = {}
    for split in splits:
        source = FolderSource(data, split)
        content["classes"] = np.array(len(source.labels.names))
        content[f"{split}/count"] = np.array(len(source))
        for i, path in enumerate(source.images):
            content[f"{split}/{i}/image"] = np.frombuffer(path.read_bytes(), "uint8")
            mask = io.BytesIO()
            Image.fromarray(source[i][1]).save(mask, "PNG", optimize=True)
            content[f"{split}/{i}/mask"] = np.frombuffer(mask.getvalue(), "uint8")
    np.savez(out, **content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", nargs="+", default=["train", "val"])
    given = parser.parse_args()
    pack(given.data, given.out, given.split)
