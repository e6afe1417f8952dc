"""What an ``.onnx`` file says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from segformer_tf.edge.metadata import FORMAT, ModelInfo
from segformer_tf.errors import InputError


def read_facts(path: Path) -> tuple[dict[str, str], ModelInfo | None]:
    """The types and shapes of input and output and the opset, for a person; and the metadata of our own export.

    Raises:
        InputError: no such file, not an ONNX file, or damaged metadata.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        raise InputError(f"{path}: not an ONNX file") from None
    if not model.graph.output:  # what random bytes can be, too
        raise InputError(f"{path}: not an ONNX file: it has no output")
    ends = {kind: ", ".join(map(_type, getattr(model.graph, kind))) for kind in ("input", "output")}
    ends["opset"] = ", ".join(f"{o.domain or 'standard'} {o.version}" for o in model.opset_import)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if not {"recipe", "names", "created"} <= entries.keys():
        return ends, None
    try:
        facts = {key: json.loads(value) for key, value in entries.items()}
        if facts["format"] != FORMAT:
            raise InputError(f"{path}: metadata format {facts['format']}, expected {FORMAT}; export the model again")
        return ends, ModelInfo.from_facts(facts, facts["names"], path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its metadata is damaged ({error})") from None


def _type(end: onnx.ValueInfoProto) -> str:
    tensor = end.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    sides = ", ".join(side.dim_param or str(side.dim_value) for side in tensor.shape.dim)
    return f"{dtype} [{sides}]"
