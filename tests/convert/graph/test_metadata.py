"""Reads the standard metadata back by its schema, slot by slot, as other TFLite tools do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import flatbuffers
import flatbuffers.number_types as number
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from convert.export import export_tflite
from convert.graph import flatbuffer
from convert.graph.flatbuffer import pack
from segformer_tf import SegFormer
from segformer_tf.edge.metadata import read_model_info


def metadata_of(path: Path) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    return bytes(model.buffers[entry.buffer].data)


class Reader:
    """A table of a flatbuffer, fields by slot."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self.table = Table(buffer, position)

    def _field(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"slot {slot} is missing"
        return offset + self.table.Pos

    def string(self, slot: int) -> str:
        return self.table.String(self._field(slot)).decode()

    def byte(self, slot: int) -> int:
        return self.table.Get(number.Uint8Flags, self._field(slot))

    def uint(self, slot: int) -> int:
        return self.table.Get(number.Uint32Flags, self._field(slot))

    def blob(self, slot: int) -> tuple[int, bytes]:
        """Where a vector of bytes begins, and the bytes."""
        offset = self._field(slot) - self.table.Pos
        start = self.table.Vector(offset)
        return start, bytes(self.table.Bytes[start : start + self.table.VectorLen(offset)])

    def child(self, slot: int) -> Reader:
        return Reader(self.table.Bytes, self.table.Indirect(self._field(slot)))

    def each(self, slot: int) -> list[Reader]:
        offset = self._field(slot) - self.table.Pos
        starts = (self.table.Vector(offset) + 4 * i for i in range(self.table.VectorLen(offset)))
        return [Reader(self.table.Bytes, self.table.Indirect(start)) for start in starts]

    def only(self, slot: int) -> Reader:
        (child,) = self.each(slot)
        return child

    def floats(self, slot: int) -> list[float]:
        offset = self._field(slot) - self.table.Pos
        start = self.table.Vector(offset)
        return [self.table.Get(number.Float32Flags, start + 4 * i) for i in range(self.table.VectorLen(offset))]


def test_standard_readers_find_labels_size_and_normalization(tiny_files: dict) -> None:
    buffer = metadata_of(tiny_files["int8"])
    assert buffer[4:8] == b"M001"
    root = Reader(buffer, flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0))
    assert root.string(0) == "SegFormer"
    assert "int8" in root.string(1)
    inputs, outputs = root.only(3).only(2), root.only(3).only(3)
    image = inputs.child(3)
    assert image.byte(0) == 2  # ImageProperties
    assert image.child(1).byte(0) == 1  # RGB
    assert (image.child(1).child(1).uint(0), image.child(1).child(1).uint(1)) == (161, 97)  # width, height
    assert inputs.only(4).byte(0) == 1  # NormalizationOptions
    assert (inputs.only(4).child(1).floats(0), inputs.only(4).child(1).floats(1)) == ([0.0], [1.0])
    labels = outputs.only(6)
    assert (labels.string(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def test_mediapipe_finds_that_logits_become_probabilities_by_softmax(tiny_files: dict) -> None:
    buffer = metadata_of(tiny_files["fp32"])
    root = Reader(buffer, flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0))
    custom = root.only(3).only(9)
    assert custom.string(0) == "SEGMENTER_METADATA"
    start, options = custom.blob(1)
    assert start % 16 == 0  # as the schema asks
    assert options[4:8] == b"V001"
    segmenter = Reader(options, flatbuffers.encode.Get(flatbuffers.packer.uoffset, options, 0))
    assert segmenter.byte(0) == 2  # SOFTMAX
    assert root.string(7) == "1.5.0"  # the first version with custom metadata


def test_associated_files_are_a_zip_behind_the_model(tiny_files: dict) -> None:
    with zipfile.ZipFile(tiny_files["fp32"]) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().split("\n") == [f"class {i}" for i in range(6)]
        info = json.loads(archive.read("segformer.json"))
    assert info["recipe"] == "fp32"
    assert len(info["palette"]) == 6
    assert {"range", "resize", "orientation", "normalization"} <= set(info["input"])


def test_logits_are_the_last_output_of_a_file_with_a_class_map(tiny: SegFormer, tmp_path: Path) -> None:
    """MediaPipe 1.2.3 makes its masks of the last output; of a file whose last is the map it made noise."""
    path = tmp_path / "map.tflite"
    export_tflite(tiny, path, recipe="fp32", size=(64, 96), runtimes=["litert"], class_map=True)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    assert [(t.name, list(t.shape)) for t in (graph.tensors[i] for i in graph.outputs)] == [
        (b"mask", [1, 64, 96]),
        (b"logits", [1, 16, 24, 6]),
    ]
    buffer = metadata_of(path)
    root = Reader(buffer, flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0))
    assert [output.string(0) for output in root.only(3).each(3)] == ["mask", "logits"]


def test_a_file_is_packed_once_and_says_where_it_was_verified(
    tiny: SegFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = []
    monkeypatch.setattr(flatbuffer, "pack", lambda model: packed.append(pack(model)) or packed[-1])
    path = tmp_path / "model.tflite"
    export_tflite(tiny, path, recipe="fp32", size=(64, 96), runtimes=["litert"])
    assert len(packed) == 1
    assert path.read_bytes().startswith(packed[0])
    assert read_model_info(path).created["verified"][0].startswith("litert ")
