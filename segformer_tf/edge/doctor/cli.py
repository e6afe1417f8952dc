"""The verb `doctor`, without TensorFlow and without a runtime."""

from __future__ import annotations

import json as json_module
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segformer_tf.edge.doctor.delegates import DELEGATES
from segformer_tf.edge.doctor.diagnosis import Diagnosis, diagnose
from segformer_tf.edge.tflite.operations import read_operations
from segformer_tf.terminal import narrow_table, plain_console

if TYPE_CHECKING:
    DelegateName = str
else:
    DelegateName = Literal[tuple(delegate.name for delegate in DELEGATES)]

_LINES = 4  # of what is left, where several delegates are listed


def doctor(
    model: Path,
    /,
    *,
    delegate: Annotated[list[DelegateName] | None, Parameter(consume_multiple=True)] = None,
    json: bool = False,
) -> None:
    """Say which delegates would run which operations of a .tflite, and what to do where one would be slow or wrong.

    It reads the file and runs nothing; any .tflite will do. What a delegate leaves runs on the CPU's own kernels, and
    every border costs a copy. In the column "known", "run" means that each rule was tried here with files of one
    operation, "read" that it is from the source named in the manual and was not run.

    Whether a file gives the right answer there, only running it says: `segformer export --runtime` and
    `segformer verify` do, for litert, tflite-runtime and litert-gpu.

    For instance:

        segformer doctor model.tflite

        segformer doctor model.tflite --delegate litert-gpu edgetpu

    Parameters
    ----------
    model
        A .tflite, also of another project.
    delegate
        Only these, with everything they leave. Default: all, with the most frequent.
    json
        Print one JSON object.
    """
    operations = read_operations(model)
    chosen = [each for each in DELEGATES if delegate is None or each.name in delegate]
    diagnoses = [diagnose(operations, each) for each in chosen]
    if json:
        print(json_module.dumps({"file": str(model), "delegates": [_facts(each) for each in diagnoses]}, indent=1))
        return
    console = plain_console()
    types = Counter(op.dtype for op in operations)
    print(f"{model}: {len(operations)} operations, {', '.join(f'{n} {name}' for name, n in types.most_common(4))}")
    table = narrow_table(("delegate",), ("takes", "parts", "multiply-adds"))
    table.add_column("known")
    for each in diagnoses:
        table.add_row(
            each.delegate.name,
            f"{each.taken} of {each.operations}",
            str(each.parts),
            f"{1 - each.macs_left:.0%}",
            "run" if each.delegate.run else "read",
        )
    console.print(table)
    for each in diagnoses:
        print(f"{each.delegate.title}: {each.sentence}")
        listed = [f"wrong: {left}" for left in each.wrong] + [str(left) for left in each.left]
        shown = listed if delegate else listed[:_LINES]
        for line in shown:
            print(f"  {line}")
        if more := len(listed) - len(shown):
            print(f"  and {more} more: --delegate {each.delegate.name}")


def _facts(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "name": diagnosis.delegate.name,
        "known": "run" if diagnosis.delegate.run else "read",
        "source": diagnosis.delegate.source,
        "operations": diagnosis.operations,
        "taken": diagnosis.taken,
        "parts": diagnosis.parts,
        "multiply_adds_left": round(diagnosis.macs_left, 4),
        "refused": diagnosis.refused,
        "says": diagnosis.sentence,
        "left": [asdict(left) for left in diagnosis.left],
        "wrong": [asdict(left) for left in diagnosis.wrong],
    }
