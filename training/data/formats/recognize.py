"""Which format an export has: one for certain, or a refusal that names the candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from segformer_tf.errors import InputError, counted
from training.data.folder.manifest_file import find_manifest
from training.data.folder.splits import splits_in
from training.data.formats import (
    ade20k,
    camvid,
    cityscapes,
    coco,
    cvat,
    label_studio,
    labelme,
    pairs,
    roboflow,
    voc,
    yolo,
)
from training.data.formats.export import Export
from training.data.formats.pairs import Naming
from training.data.formats.source import Source

FormatName = Literal[
    "labelme", "coco", "cvat", "label-studio", "yolo", "roboflow", "voc", "cityscapes", "ade20k", "camvid", "pairs"
]


@dataclass(frozen=True)
class _Format:
    recognize: Callable[[Source], bool]
    read: Callable[[Source], Export]


_FORMATS: dict[FormatName, _Format] = {
    "labelme": _Format(labelme.recognize, labelme.read),
    "coco": _Format(coco.recognize, coco.read),
    "cvat": _Format(cvat.recognize, cvat.read),
    "label-studio": _Format(label_studio.recognize, label_studio.read),
    "yolo": _Format(yolo.recognize, yolo.read),
    "roboflow": _Format(roboflow.recognize, roboflow.read),
    "voc": _Format(voc.recognize, voc.read),
    "cityscapes": _Format(cityscapes.recognize, cityscapes.read),
    "ade20k": _Format(ade20k.recognize, ade20k.read),
    "camvid": _Format(camvid.recognize, camvid.read),
}


def recognize(source: Source, naming: Naming) -> FormatName:
    """The format of an export; pairs of images and masks only where it is no other.

    Raises:
        InputError: none, or several; or a folder of ours, whose manifest would be lost.
    """
    if (manifest := find_manifest(source.root)).is_file() and splits_in(source.root):
        raise InputError(f"{manifest}: needs no import; segformer train --data {source.root}")
    fitting = candidates(source)
    if naming or (not fitting and pairs.recognize(source, naming)):
        fitting = ["pairs"]
    if not fitting:
        if source.path.is_file() and source.path.suffix.lower() not in (".json", ".xml"):
            raise InputError(f"{source.path}: expected a folder, a .zip, or an annotation file, .json or .xml")
        names, count = ", ".join(get_args(FormatName)), len(source.files)
        among = f" among {counted(count, 'file')}" if source.path.is_dir() else ""
        raise InputError(f"{source.path}: no format is recognized{among}; --format {names}")
    if len(fitting) > 1:
        raise InputError(f"{source.path}: may be {' or '.join(fitting)}; say which: --format {fitting[0]}")
    return fitting[0]


def candidates(source: Source) -> list[FormatName]:
    """The formats, without pairs, that an export may have."""
    return [name for name, own in _FORMATS.items() if own.recognize(source)]


def read(source: Source, format: FormatName, naming: Naming, names: Sequence[str] | None) -> Export:
    """Read an export.

    Args:
        source: its files.
        format: see `recognize`.
        naming: of masks, for pairs.
        names: of classes, for pairs and VOC's folders.

    Raises:
        InputError: whatever does not fit, with file and field; `names` for another format, which has names.
    """
    if format == "pairs":
        return pairs.read(source, naming, names)
    if naming:
        raise InputError(f"--mask-suffix and --mask-prefix are for pairs; this is {format}")
    if names is None:
        return _FORMATS[format].read(source)
    if format != "voc":
        raise InputError(f"--labels names the classes of masks without names; {format} has names")
    return voc.read(source, list(names))
