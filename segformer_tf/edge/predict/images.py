"""Segments image files one after another: pictures, and ``predictions.json``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import DEEP_SUFFIXES, is_deep_file, largest_value_of, load_image
from segformer_tf.terminal import plain_console


def predict_images(segmenter: Segmenter, images: Mapping[str, Path], out: Path) -> None:
    """Write mask and overlay of each image, and ``predictions.json``, to the folder `out`.

    Args:
        segmenter: the model.
        images: the image files by the name of their results.
        out: an existing folder.

    Raises:
        InputError: images that cannot be read; the others are written first.
    """
    console = plain_console()
    records: dict[str, object] = {}
    times, errors, dark = [], [], ""
    for name, path in track(images.items(), "segmenting", console=console):
        try:
            result = segmenter(load_image(path, bits=segmenter.bits))
            if segmenter.bits is None and not dark and (dark := _seems_dark(path)):
                print(dark, file=sys.stderr)
        except InputError as error:
            errors.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        result.save(out, name)
        records[str(path)] = json.loads(result.to_json())
        times.append(sum(result.speed.values()))
    if times:
        with atomic(out / "predictions.json") as part:
            part.write_text(json.dumps(records, indent=1), "utf-8")
        console.print(f"{_count_images(len(times))}, median {np.median(times):.1f} ms from pixels to mask -> {out}")
    if errors:
        raise InputError("\n".join([*errors, f"left out: {len(errors)} of {_count_images(len(images))}"]))


def _seems_dark(path: Path) -> str:
    """A warning if a file of 16 bits seems to use fewer, so that it is nearly black, or ""."""
    if path.suffix.lower() not in DEEP_SUFFIXES or not is_deep_file(path):
        return ""
    if (largest := largest_value_of(path)) >= 1 << 14:
        return ""
    return (
        f"{path}: its values reach {largest}, of 65535 that 16 bits hold, and the model's metadata gives no number of "
        f"bits; if they are of {largest.bit_length()} bits or so, give --bits"
    )


def _count_images(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"


def output_names(paths: Sequence[Path]) -> list[str]:
    """Stems, or whole names if stems clash (a.jpg beside a.png); raises InputError if names clash too."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    if clashes := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"two images are named {clashes[0]}: their results would overwrite each other; predict them separately"
        )
    return names
