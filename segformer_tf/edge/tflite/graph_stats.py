"""Operations of a loaded ``.tflite``: which of them a delegate runs, and how many multiplications they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

_DELEGATE = "DELEGATE"  # a node in place of a part of the graph that a delegate (XNNPACK) runs


@dataclass(frozen=True)
class GraphStats:
    """The graph as one runtime sees it.

    Attributes:
        ops: operations in the file.
        partitions: parts that a delegate runs; each one costs copies and a start.
        outside: counts of the operations that the runtime's own kernels run, by name, the most frequent first.
        macs: multiply-accumulates of the convolutions and matrix products, for one image.
        kinds: how many operations of each name there are, and their multiply-accumulates, the most frequent first.
    """

    ops: int
    partitions: int
    outside: dict[str, int]
    macs: int
    kinds: dict[str, tuple[int, int]]


def read_graph_stats(interpreter: Any) -> GraphStats | None:
    """Of an interpreter that has its tensors allocated; None if it lacks these methods, which are undocumented."""
    try:
        nodes = interpreter._get_ops_details()
        shapes = {int(t["index"]): tuple(map(int, t["shape"])) for t in interpreter.get_tensor_details()}
        ops = [_Op(n["op_name"], tuple(map(int, n["inputs"])), tuple(map(int, n["outputs"]))) for n in nodes]
    except (AttributeError, KeyError):
        return None
    delegates = [op for op in ops if op.name == _DELEGATE]
    own = [op for op in ops if op.name != _DELEGATE]
    macs: Counter[str] = Counter()
    for op in own:
        macs[op.name] += multiply_adds(op.name, op.inputs, op.outputs, shapes)
    return GraphStats(
        ops=len(own),
        partitions=len(delegates),
        outside=dict(Counter(op.name for op in _outside(own, delegates)).most_common()),
        macs=macs.total(),
        kinds={kind: (count, macs[kind]) for kind, count in Counter(op.name for op in own).most_common()},
    )


@dataclass(frozen=True)
class _Op:
    """Name, and numbers of the tensors it reads and writes (-1 for an optional one that is missing)."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _outside(own: list[_Op], delegates: list[_Op]) -> list[_Op]:
    """Operations that no delegate runs.

    The runtimes list the operations of a part beside the delegate's node that replaces them. That node reads every
    tensor that enters the part, so a walk back from its outputs to its inputs stays inside the part.
    """
    maker = {tensor: op for op in own for tensor in op.outputs}
    inside: set[tuple[int, ...]] = set()
    for delegate in delegates:
        border = set(delegate.inputs)
        queue = list(delegate.outputs)
        while queue:
            tensor = queue.pop()
            op = None if tensor in border else maker.get(tensor)
            if op and op.outputs not in inside:
                inside.add(op.outputs)
                queue += op.inputs
    return [op for op in own if op.outputs not in inside]


def multiply_adds(
    name: str, inputs: Sequence[int], outputs: Sequence[int], shapes: Mapping[int, tuple[int, ...]]
) -> int:
    """Multiply-accumulates of one operation, from the shapes of its tensors; 0 of all but the products."""
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"):
        return 0
    out = shapes[outputs[0]]
    if name == "BATCH_MATMUL":  # [.., M, K] or, transposed, [.., K, M] gives [.., M, N]
        left = shapes[inputs[0]]
        return prod(out) * (left[-1] * left[-2] // out[-2])
    weights = shapes[inputs[1]]
    if name == "CONV_2D":  # (out channels, height, width, in channels of a group)
        return prod(out) * prod(weights[1:])
    if name == "DEPTHWISE_CONV_2D":  # (1, height, width, channels)
        return prod(out) * prod(weights[1:3])
    if name == "FULLY_CONNECTED":  # (out, in)
        return prod(out) * weights[-1]
    return prod(shapes[inputs[2]]) * prod(weights[:3])  # transposed: every input meets the whole kernel
