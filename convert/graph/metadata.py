"""Standard TFLite metadata: a flatbuffer inside the model, associated files as a zip behind it.

Slots and enum values are those of TensorFlow's ``metadata_schema.fbs`` (identifier M001). The writers on PyPI
cannot be installed beside this project's runtimes (one wants numpy 2, the other protobuf 3).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers

from segformer_tf.edge.metadata import INFO_FILE, LABELS_FILE, OUTPUT_CONTRACT, ModelInfo

STANDARD_ENTRY = "TFLITE_METADATA"  # the name of the entry in the flatbuffer

# Enum values of the schema.
_FILE_AXIS_LABELS = 2
_CONTENT_FEATURE, _CONTENT_IMAGE = 1, 2
_COLOR_RGB = 1
_PROCESS_NORMALIZATION = 1
_ACTIVATION_SOFTMAX = 2  # of MediaPipe's image_segmenter_metadata_schema.fbs (V001)


def write_with_files(flatbuffer: bytes, info: ModelInfo, out: Path) -> None:
    """Write a ``.tflite`` to `out`: the flatbuffer and, as a zip behind it, the files of `info`."""
    out.write_bytes(flatbuffer)
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in info.files(flatbuffer).items():
            archive.writestr(name, content)


def model_metadata(info: ModelInfo, size: tuple[int, int], *, class_map: bool = False) -> bytes:
    """The metadata of a file with one input and one output, the logits, or the class map before them.

    Args:
        info: labels, recipe and provenance.
        size: (height, width) of the input.
        class_map: whether there is one.
    """
    t = _Tables()
    height, width = size
    labels = t.table(
        {
            0: t.string(LABELS_FILE),
            1: t.string("Names of the classes, in the order of the logits."),
            2: t.byte(_FILE_AXIS_LABELS),
        }
    )
    details = t.table({0: t.string(INFO_FILE), 1: t.string("Colours, recipe and contracts of input and output.")})
    image_size = t.table({0: t.uint(width), 1: t.uint(height)})
    image = t.table({0: t.byte(_COLOR_RGB), 1: image_size})
    # Pixels go in as they are: normalization is inside.
    identity = t.table({0: t.floats([0.0]), 1: t.floats([1.0])})
    inputs = t.table(
        {
            0: t.string("image"),
            1: t.string("; ".join(f"{key}: {value}" for key, value in info.input_contract.items())),
            3: t.table({0: t.byte(_CONTENT_IMAGE), 1: image}),
            4: t.vector([t.table({0: t.byte(_PROCESS_NORMALIZATION), 1: identity})]),
            5: t.table({0: t.floats([255.0]), 1: t.floats([0.0])}),
        }
    )
    outputs = t.table(
        {
            0: t.string("logits"),
            1: t.string("; ".join(f"{key}: {value}" for key, value in OUTPUT_CONTRACT.items())),
            3: t.table({0: t.byte(_CONTENT_FEATURE), 1: t.table({})}),
            6: t.vector([labels]),
        }
    )
    mask = t.table(
        {0: t.string("mask"), 1: t.string("Class ids, (height, width) of the input."), 6: t.vector([labels])}
    )
    # MediaPipe's ImageSegmenter, whose confidence masks are the logits themselves where no activation is stated.
    segmenter = t.table({0: t.string("SEGMENTER_METADATA"), 1: t.blob(_segmenter_options())})
    subgraph = t.table(
        {
            2: t.vector([inputs]),
            3: t.vector([mask, outputs] if class_map else [outputs]),
            9: t.vector([segmenter]),
        }
    )
    root = t.table(
        {
            0: t.string("SegFormer"),
            1: t.string(f"Semantic segmentation, recipe {info.recipe}, {len(info.labels.names)} classes."),
            2: t.string(str(info.created.get("segformer_tf", ""))),
            3: t.vector([subgraph]),
            5: t.string(info.license),
            6: t.vector([details]),
            7: t.string("1.5.0"),  # the first version with custom metadata
        }
    )
    return t.finish(root, b"M001")


def _segmenter_options() -> bytes:
    t = _Tables()
    return t.finish(t.table({0: t.byte(_ACTIVATION_SOFTMAX), 1: t.string("1.0.0")}), b"V001")


_Slot = Callable[[flatbuffers.Builder, int], None]  # writes one field of the table that is open


class _Tables:
    """Just enough of a flatbuffer writer: children are written before the tables that hold them."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def table(self, slots: Mapping[int, _Slot]) -> _Slot:
        self._builder.StartObject(max(slots, default=-1) + 1)
        for number, write in slots.items():
            write(self._builder, number)
        return _Reference(self._builder.EndObject())

    def string(self, text: str) -> _Slot:
        return _Reference(self._builder.CreateString(text))

    def floats(self, values: Sequence[float]) -> _Slot:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return _Reference(self._builder.EndVector())

    def vector(self, tables: Sequence[Any]) -> _Slot:
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table.offset)
        return _Reference(self._builder.EndVector())

    def byte(self, value: int) -> _Slot:
        return lambda builder, slot: builder.PrependUint8Slot(slot, value, 0)

    def uint(self, value: int) -> _Slot:
        return lambda builder, slot: builder.PrependUint32Slot(slot, value, 0)

    def blob(self, content: bytes) -> _Slot:
        """Bytes, aligned as the schema asks of a flatbuffer inside another."""
        self._builder.StartVector(1, len(content), 16)
        for value in reversed(content):
            self._builder.PrependUint8(value)
        return _Reference(self._builder.EndVector())

    def finish(self, root: Any, identifier: bytes) -> bytes:
        self._builder.Finish(root.offset, identifier)
        return bytes(self._builder.Output())


class _Reference:
    """A field that points at something already written."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __call__(self, builder: flatbuffers.Builder, slot: int) -> None:
        builder.PrependUOffsetTRelativeSlot(slot, self.offset, 0)
