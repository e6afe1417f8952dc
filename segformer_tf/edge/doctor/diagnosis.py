"""What a delegate would do with a file, in numbers and in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from segformer_tf.edge.doctor.delegates import Delegate
from segformer_tf.edge.doctor.partitions import delegated_parts
from segformer_tf.edge.tflite.operations import Operation

_MUCH = 0.05  # of the multiply-adds
_MANY_PARTS = 8
_ELSEWHERE = "taken, but outside the part that runs there"


@dataclass(frozen=True)
class Left:
    """Operations of one kind that are left, or computed wrongly.

    Attributes:
        kind, version, dtype, rank: of the operation; the rank of its first output.
        reason: why.
        count: how many.
    """

    kind: str
    version: int
    dtype: str
    rank: int
    reason: str
    count: int

    def __str__(self) -> str:
        many = f"{self.count} x " if self.count > 1 else ""
        return f"{many}{self.kind} v{self.version} {self.dtype} rank {self.rank}: {self.reason}"


@dataclass(frozen=True)
class Diagnosis:
    """What a delegate would do with a file.

    Attributes:
        delegate: which.
        operations: of the file.
        taken: how many of them it runs.
        parts: in how many parts.
        macs_left: share of the multiply-adds that it leaves, 0..1.
        left: what it leaves, the most frequent first.
        wrong: what it takes and computes wrongly.
        refused: why it opens no such file, or "".
    """

    delegate: Delegate
    operations: int
    taken: int
    parts: int
    macs_left: float
    left: list[Left]
    wrong: list[Left]
    refused: str = ""

    @property
    def sentence(self) -> str:
        """Whether it would be slow or wrong there, why, and what to do."""
        if self.refused:
            return f"refuses the file ({self.refused}); run it with LiteRT, or export weight_int8 for it"
        if self.wrong:
            kinds = ", ".join(dict.fromkeys(left.kind for left in self.wrong))
            return f"wrong there: it takes {kinds} and computes other numbers ({self.wrong[0].reason})"
        if not self.left:
            return "takes the whole file"
        advice = f"; {self._advice}" if self._advice else ""
        kinds = ", ".join(list(dict.fromkeys(left.kind for left in self.left))[:4])
        if not self.taken:
            return f"takes nothing ({self.left[0].reason}){advice}"
        where = f"{self.operations - self.taken} operations ({kinds}) stay on the CPU's own kernels"
        share = f" with {self.macs_left:.0%} of the multiply-adds" if self.macs_left >= 0.005 else ""
        borders = f", and each of {self.parts} parts costs copies" if self.parts > 1 else ""
        slow = "slow there" if self.macs_left >= _MUCH or self.parts > _MANY_PARTS else "nearly whole"
        return f"{slow}: {where}{share}{borders}{advice}"

    @property
    def _advice(self) -> str:
        words = " ".join(f"{left.kind} {left.dtype} {left.reason}" for left in self.left)
        return next((advice for word, advice in self.delegate.advice if word in words), "")


def diagnose(operations: Sequence[Operation], delegate: Delegate) -> Diagnosis:
    """What the delegate would do with operations, in the order they run."""
    refused = next((f"{op.kind}: {why}" for op in operations if (why := delegate.refused(op))), "")
    reasons = ["the file is refused"] * len(operations) if refused else [delegate.rule(op) for op in operations]
    taken = {op.dtype for op, reason in zip(operations, reasons, strict=True) if not reason}
    if delegate.beside_floats and "float32" not in taken:
        reasons = [reason or "no operation on floats to take beside it" for reason in reasons]
    parts = delegated_parts(operations, [not reason for reason in reasons])
    if delegate.parts == "largest":
        parts = sorted(parts, key=len)[-1:]
    elif delegate.parts == "first":
        parts = [_beginning(reasons)] if not reasons[0] else []
    inside = {number for part in parts for number in part}
    left, wrong, macs = Counter[Left](), Counter[Left](), 0
    for number, (op, reason) in enumerate(zip(operations, reasons, strict=True)):
        if number not in inside:
            left[_entry(op, reason or _ELSEWHERE)] += 1
            macs += op.macs
        elif fault := delegate.wrong(op):
            wrong[_entry(op, fault)] += 1
    return Diagnosis(
        delegate,
        len(operations),
        len(inside),
        len(parts),
        macs / max(1, sum(op.macs for op in operations)),
        _counted(left),
        _counted(wrong),
        refused,
    )


def _beginning(reasons: Sequence[str]) -> list[int]:
    """The operations before the first that is left."""
    return list(range(next((n for n, reason in enumerate(reasons) if reason), len(reasons))))


def _entry(op: Operation, reason: str) -> Left:
    rank = len(op.outputs[0].shape) if op.outputs else 0
    return Left(op.kind, op.version, op.dtype, rank, reason, 1)


def _counted(entries: Counter[Left]) -> list[Left]:
    ordered = sorted(entries.items(), key=lambda item: (item[0].reason == _ELSEWHERE, -item[1], item[0].kind))
    return [Left(e.kind, e.version, e.dtype, e.rank, e.reason, count) for e, count in ordered]
