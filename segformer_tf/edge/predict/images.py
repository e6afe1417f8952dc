"""Segments image files one after another: pictures, and ``predictions.json``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from segformer_tf.edge.predict.annotations import LabelFiles
from segformer_tf.edge.predict.large import segment_tiff, slide_file
from segformer_tf.edge.predict.output_options import OutputOptions
from segformer_tf.edge.predict.slide_options import SlideOptions
from segformer_tf.edge.result import Result
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import DEEP_SUFFIXES, is_deep_file, largest_value_of
from segformer_tf.terminal import plain_console

_SQUEEZE = 3  # times a side may be reduced to the model's before a line says what that costs


def predict_images(
    segmenter: Segmenter,
    images: Mapping[str, Path],
    out: Path,
    *,
    sliding: SlideOptions,
    outputs: OutputOptions,
    label_files: LabelFiles | None = None,
) -> None:
    """Write the pictures of each image, its labels, and ``predictions.json``, to the folder `out`.

    Args:
        segmenter: the model.
        images: the image files by the name of their results.
        out: an existing folder.
        sliding: how large pictures are cut.
        outputs: what is written, see `OutputOptions.check`.
        label_files: of `outputs`.

    Raises:
        InputError: images that cannot be read; the others are written first.
    """
    console = plain_console()
    records: dict[str, dict[str, Any]] = {}
    errors, dark, squeezed = [], "", 0
    with Progress(console=console) as progress:
        options: dict[str, Any] = {"slide": sliding.stride or True, "scale": sliding.scale, "progress": progress}
        bar = progress.add_task("segmenting", total=len(images))
        for done, (name, path) in enumerate(images.items()):
            progress.update(bar, completed=done)
            result, largest = None, None
            try:
                if sliding.cuts_tiff(path):
                    record, largest = segment_tiff(segmenter, path, out, name, **options)
                else:
                    result = (
                        slide_file(segmenter, path, **options)
                        if sliding.slide
                        else _segment(segmenter, path, confidence=outputs.needs_confidence)
                    )
                    result = outputs.narrowed(result)
                    record = json.loads(result.to_json())
                if segmenter.bits is None and not dark:
                    dark = _seems_dark(path, largest)
            except InputError as error:
                errors.append(str(error) if str(path) in str(error) else f"{path}: {error}")
                continue
            if result:
                outputs.save(result, out, name)
                if label_files:
                    label_files.add(name, path, result)
            records[str(path)] = record
            squeezed += _is_squeezed(record, segmenter.size)
        progress.update(bar, completed=len(images))
    if dark:
        print(dark, file=sys.stderr)
    if squeezed and not sliding.slide and segmenter.gives_logits:
        height, width = segmenter.size
        print(
            f"{_count_images(squeezed)} of {len(images)} squeezed more than {_SQUEEZE}x into the model's "
            f"{height}x{width} pixels: small objects are lost; --slide keeps them, in more time",
            file=sys.stderr,
        )
    if records:
        if label_files:
            label_files.close()
        with atomic(out / "predictions.json") as part:
            part.write_text(json.dumps(records, indent=1), "utf-8")
        times = [sum(record["speed_ms"].values()) for record in records.values()]
        console.print(f"{_count_images(len(times))}, median {np.median(times):.1f} ms from file to mask -> {out}")
    if errors:
        raise InputError("\n".join([*errors, f"left out: {len(errors)} of {_count_images(len(images))}"]))


def _segment(segmenter: Segmenter, path: Path, *, confidence: bool) -> Result:
    return segmenter(path, confidence=confidence)


def _is_squeezed(record: Mapping[str, Any], size: tuple[int, int]) -> bool:
    """Whether a picture has a side of more than `_SQUEEZE` times the model's `size`."""
    return bool(record["height"] > _SQUEEZE * size[0] or record["width"] > _SQUEEZE * size[1])


def _seems_dark(path: Path, largest: int | None) -> str:
    """A warning if a file of 16 bits seems to use fewer, so that it is nearly black, or "".

    Args:
        path: of the file.
        largest: of its values, 0 if it has 8 bits; None if it was not looked for.
    """
    if largest is None:
        deep = path.suffix.lower() in DEEP_SUFFIXES and is_deep_file(path)
        largest = largest_value_of(path) if deep else 0
    if not largest or largest >= 1 << 14:
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
