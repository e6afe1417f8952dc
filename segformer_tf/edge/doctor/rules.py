"""Why a delegate would not take an operation: one rule a delegate.

A rule gives "" for an operation that is taken, else the reason. What was run here was run as files of one operation of
every kind and type (`tests/edge/test_doctor.py`); the others are what the source of the delegate or its documentation
says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from segformer_tf.edge.doctor import lists
from segformer_tf.edge.doctor.lists import kinds
from segformer_tf.edge.tflite.operations import Operation, TensorInfo

Rule = Callable[[Operation], str]
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_PRECISE = ("float32", "float16")
_BYTES = ("int8", "uint8")
_NEAREST, _FARTHEST = 1 / 1024, 256  # an input's scale over the output's, in XNNPACK's int8 sums


@dataclass(frozen=True)
class Xnnpack:
    """XNNPACK, as one runtime builds it in.

    Attributes:
        kinds: what it takes, by the type computed on.
        concatenated: the most inputs of CONCATENATION.
        dynamic: kinds that it takes with int8 weights and float activations.
        any_mean: whether MEAN may go over other axes than height and width.
    """

    kinds: Mapping[str, frozenset[str]]
    concatenated: int
    dynamic: frozenset[str]
    any_mean: bool

    def __call__(self, op: Operation) -> str:
        if _open_sides(op):
            return "a size that the file leaves open"
        if _unpacks_weights(op):
            return ""
        if op.kind not in self.kinds.get(op.dtype, frozenset()):
            return _not_for(op)
        if op.kind in _PRODUCTS and op.dtype in _PRECISE and _weights(op) == "int8" and op.kind not in self.dynamic:
            return "int8 weights with float activations"
        if op.kind == "CONCATENATION" and len(op.inputs) > self.concatenated:
            return f"more than {self.concatenated} inputs"
        if op.kind == "MEAN" and not self.any_mean and _axes(op) != {1, 2}:
            return "a mean over other axes than height and width"
        if op.dtype in _BYTES and not all(t.scale for t in op.data):
            return f"{op.dtype} without a scale"
        if op.kind == "QUANTIZE" and op.outputs[0].dtype not in _BYTES:
            return f"to {op.outputs[0].dtype}"
        if (
            op.kind in ("ADD", "SUB")
            and op.dtype in _BYTES
            and not all(_near(t, op.outputs[0]) for t in op.inputs if t)
        ):
            return "an input's scale too far from the output's"
        if op.kind == "BATCH_MATMUL" and op.dtype == "int8" and any(t.zero_point for t in op.data[1:]):
            return "an int8 right-hand side with a zero point"
        return ""


XNNPACK_LITERT = Xnnpack(
    {"float32": lists.XNNPACK_FLOAT, "int8": lists.XNNPACK_INT8, "uint8": lists.XNNPACK_UINT8},
    concatenated=5,
    dynamic=kinds("CONV_2D FULLY_CONNECTED"),
    any_mean=True,
)
XNNPACK_TFLITE_RUNTIME = Xnnpack(
    {"float32": lists.XNNPACK_2_14, "int8": kinds("TRANSPOSE"), "uint8": kinds("TRANSPOSE")},
    concatenated=4,
    dynamic=frozenset(),
    any_mean=False,
)


def refused_by_2_14(op: Operation) -> str:
    """Why tflite-runtime 2.14 opens no file with this operation, or ""."""
    if op.kind == "FULLY_CONNECTED" and op.version > _DENSE_OF_2_14:
        return f"it knows no version {op.version} of it"
    return "it has no int16 form of it" if op.kind in ("GELU", "RSQRT") and op.dtype == "int16" else ""


_DENSE_OF_2_14 = 10  # the highest version of FULLY_CONNECTED
_GPU = {
    "float32": lists.GPU_FLOAT,
    "int8": lists.GPU_FLOAT | {"DEQUANTIZE"},
    "uint8": lists.GPU_FLOAT | {"DEQUANTIZE"},
    "int32": lists.GPU_INTEGER,
    "bool": kinds("EQUAL LOGICAL_AND LOGICAL_NOT LOGICAL_OR NOT_EQUAL SELECT_V2"),
}


def gpu(op: Operation) -> str:
    """LiteRT's GPU accelerator."""
    if _open_sides(op):
        return "a size that the file leaves open"
    if _unpacks_weights(op):
        return ""
    if any(len(tensor.shape) > 4 for tensor in (*op.data, *op.outputs)):
        return "rank above 4"
    if op.kind not in _GPU.get(op.dtype, frozenset()):
        return _not_for(op)
    if op.kind == "GATHER" and any(len(tensor.shape) > 1 for tensor in filter(None, op.inputs[1:])):
        return "indices of rank above 1"
    return ""


def gpu_wrong(op: Operation) -> str:
    """What LiteRT's GPU accelerator takes and computes wrongly, with LiteRT 2.3 on SwiftShader: why, or ""."""
    known = [tensor for tensor in op.inputs if tensor]
    if op.kind == "BATCH_MATMUL" and len(known) > 1 and known[0].shape[:-2] != known[1].shape[:-2]:
        return "batches that are broadcast: the result is of other numbers"
    if op.kind == "ARG_MAX" and known and known[0].shape and known[0].shape[-1] % 4:
        return "channels that are no multiple of four: it may give a class that does not exist"
    if op.kind in ("FLOOR_DIV", "FLOOR_MOD", "CAST") and op.dtype == "int8":
        return "int8: the result is of other numbers"
    if op.kind == "PAD" and op.dtype == "int32":
        return "int32: the result is of other numbers"
    return ""


def old_gpu(op: Operation) -> str:
    """TensorFlow Lite's GPU delegate, with OpenCL, OpenGL or Metal."""
    if any(len(tensor.shape) > 4 for tensor in (*op.data, *op.outputs)):
        return "rank above 4"
    if _unpacks_weights(op):
        return ""
    types = {tensor.dtype for tensor in (*op.data, *op.outputs)}
    if not types <= {*_PRECISE, "int8", "uint8"}:
        return f"{_named(types - {*_PRECISE, 'int8', 'uint8'})} tensors"
    return "" if op.kind in lists.OLD_GPU or op.kind in ("QUANTIZE", "DEQUANTIZE") else "not in its list"


def core_ml(op: Operation) -> str:
    """The Core ML delegate of iOS."""
    if _unpacks_weights(op) and op.dtype == "float16":
        return ""
    if not {tensor.dtype for tensor in (*op.data, *op.outputs)} <= set(_PRECISE):
        return "integers: it takes floats alone"
    return "" if op.kind in lists.CORE_ML else "not in its list"


def nnapi(op: Operation) -> str:
    """Android's NNAPI, whose drivers take fewer."""
    if any(len(tensor.shape) > 4 for tensor in (*op.data, *op.outputs)):
        return "rank above 4"
    if not {tensor.dtype for tensor in op.data} <= {*_PRECISE, "int8", "uint8", "int32", "bool"}:
        return f"{op.dtype} tensors"
    if op.kind in _PRODUCTS and op.dtype in _PRECISE and _weights(op) == "int8":
        return "int8 weights with float activations"
    return "" if op.kind in lists.NNAPI else "not in its list"


def hexagon(op: Operation) -> str:
    """The Hexagon delegate of Qualcomm's DSPs."""
    if any(len(tensor.shape) > 4 for tensor in (*op.data, *op.outputs)):
        return "rank above 4"
    if not {tensor.dtype for tensor in op.data} <= {"int8", "uint8"}:
        return f"{op.dtype}: it takes 8 bits alone"
    if op.kind == "DEPTHWISE_CONV_2D" and op.inputs[1] and op.inputs[1].shape[2:3] != (3,):
        return "a depthwise kernel that is not 3 wide"
    if op.kind == "RESIZE_BILINEAR" and max(op.outputs[0].shape[1:3], default=0) > 65:
        return "a resize to more than 65"
    return "" if op.kind in lists.HEXAGON else "not in its list"


def edge_tpu(op: Operation) -> str:
    """Coral's EdgeTPU, by its compiler."""
    if _open_sides(op):
        return "a size that the file leaves open"
    if not {tensor.dtype for tensor in op.data} <= {"int8", "uint8"}:
        return f"{op.dtype}: it takes 8 bits alone"
    if op.kind in _PRODUCTS and not (op.inputs[1] and op.inputs[1].constant):
        return "weights that are no constant"
    return "" if op.kind in lists.EDGE_TPU else "not in its list"


def _open_sides(op: Operation) -> bool:
    return any(-1 in tensor.shape for tensor in (*op.data, *op.outputs))


def _unpacks_weights(op: Operation) -> bool:
    """A DEQUANTIZE of a constant: it runs once, when the file is opened."""
    return op.kind == "DEQUANTIZE" and not op.data


def _near(tensor: TensorInfo, output: TensorInfo) -> bool:
    return output.scale > 0 and _NEAREST <= tensor.scale / output.scale < _FARTHEST


def _weights(op: Operation) -> str:
    tensor = op.inputs[1] if len(op.inputs) > 1 else None
    return tensor.dtype if tensor and tensor.constant else ""


def _axes(op: Operation) -> set[int]:
    """Of a reduction, from the front; empty where the file does not say."""
    tensors = [tensor for tensor in op.inputs if tensor]
    rank = len(tensors[0].shape) if tensors else 0
    return {axis % rank for axis in tensors[1].numbers} if len(tensors) > 1 and rank else set()


def _not_for(op: Operation) -> str:
    return f"not in its list for {op.dtype}"


def _named(names: set[str]) -> str:
    return " and ".join(sorted(names))
