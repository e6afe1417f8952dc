"""`segformer export --format keras`: the trained network alone, at half its size."""

from __future__ import annotations

import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from convert.trained import float32_copy
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.keras_file import load_segformer
from segformer_tf.model import SegFormer

_LARGEST = float(np.finfo(np.float16).max)


def export_keras(model: SegFormer, out: Path) -> None:
    """Write a ``.keras`` file of `model` with its weights rounded to float16, without an optimizer, and read it back.

    Loaded by `load_segformer` or by Keras, it is a float32 network.

    Args:
        model: trained model.
        out: ``.keras`` file to write.

    Raises:
        InputError: another suffix, or a weight that float16 cannot hold.
    """
    if out.suffix != ".keras":
        raise InputError(f"--out must end in .keras. Received: {out}")
    for weight in model.weights:
        largest = np.abs(np.asarray(weight, np.float32)).max()
        if not largest <= _LARGEST:
            raise InputError(f"{weight.path}: holds {largest:g}, float16 ends at {_LARGEST:g}")
    plain = float32_copy(model)
    with tempfile.TemporaryDirectory() as folder, atomic(out) as part:
        whole = Path(folder) / "whole.keras"
        plain.save(whole)
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(part, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                target.writestr(name, _halved(content) if name.endswith(".h5") else content)
        for weight, read in zip(plain.weights, load_segformer(part).weights, strict=True):
            if not np.array_equal(np.asarray(weight, np.float16), np.asarray(read, np.float16)):
                raise InputError(f"{out}: {weight.path} was not read back as it was written")


def _halved(content: bytes) -> bytes:
    """An HDF5 file with every float32 data set as float16."""
    halved = BytesIO()
    with h5py.File(BytesIO(content)) as source, h5py.File(halved, "w") as target:
        for name, value in source.attrs.items():
            target.attrs[name] = value

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                value = item[()]
                stored = value.astype(np.float16) if value.dtype == "float32" else value
                copied = target.create_dataset(name, data=stored)
            for key, value in item.attrs.items():
                copied.attrs[key] = value

        source.visititems(copy)
    return halved.getvalue()
