"""A ``.tflite`` in words and numbers: its tensors, its operations, what each runtime makes of it. No TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from convert.describe.recorded import recorded
from segformer_tf.edge.child_process import ChildProcess, answer_stream
from segformer_tf.edge.metadata import ModelInfo, find_model_info
from segformer_tf.edge.runtime import choose_runtime, installed_runtimes, open_interpreter, runtime_version
from segformer_tf.edge.tflite.graph_stats import GraphStats, read_graph_stats
from segformer_tf.edge.tflite.operations import read_operations
from segformer_tf.errors import InputError

_INTEGERS = ("uint8", "int32", "int64")  # of a class map


@dataclass(frozen=True)
class Opened:
    """A file on one runtime.

    Attributes:
        inputs, outputs: (dtype, shape, name) of each; -1 is an open side.
        stats: its operations, or None where the runtime does not list them.
    """

    inputs: list[tuple[str, list[int], str]]
    outputs: list[tuple[str, list[int], str]]
    stats: GraphStats | None


def describe_tflite(path: Path) -> tuple[dict[str, str], list[Table]]:
    """Facts by name, and tables of the runtimes that are installed here and of the operations.

    Raises:
        InputError: no such file, a damaged one, no runtime, or none that takes it.
    """
    read_operations(path)  # a damaged file is refused before a runtime sees it
    model_info = find_model_info(path)
    choose_runtime(None)
    opened: dict[str, Opened | str] = {}
    for runtime in installed_runtimes():
        try:
            opened[runtime] = open_elsewhere(path, runtime)
        except InputError as error:
            opened[runtime] = str(error).removeprefix(f"{path}: ")
    first = next((result for result in opened.values() if isinstance(result, Opened)), None)
    if first is None:
        raise InputError(f"{path}: {'; '.join(map(str, opened.values()))}")
    facts = {"recipe": model_info.recipe if model_info else "unknown", "size": f"{path.stat().st_size / 1e6:.2f} MB"}
    for name, ports in (("input", first.inputs), ("output", first.outputs)):
        facts[name] = ", ".join(f"{dtype} {shape}" for dtype, shape, _ in ports)
    facts["class map"] = _class_map(first)
    tables = [_runtimes(opened, model_info)]
    if first.stats:
        tables.append(_operations(first.stats))
    return {**facts, **recorded(model_info)}, tables


def open_elsewhere(path: Path, runtime: str) -> Opened:
    """Open a file on a runtime in a process of its own; raises InputError if that fails."""
    with ChildProcess(open_once, str(path), runtime, name=f"{path}: {runtime}") as child:
        answer = json.loads(child.read())
    stats = GraphStats(**answer["stats"]) if answer["stats"] else None
    return Opened(answer["inputs"], answer["outputs"], stats)


def open_once(path: str, runtime: str) -> None:
    """The child's side: a line of JSON."""
    send = answer_stream()
    interpreter = open_interpreter(path, runtime=runtime, intact=True)  # what crashes, crashes this process
    stats = read_graph_stats(interpreter)
    ports = {"inputs": interpreter.get_input_details(), "outputs": interpreter.get_output_details()}
    answer: dict[str, Any] = {
        name: [(t["dtype"].__name__, [int(n) for n in t["shape_signature"]], t["name"]) for t in details]
        for name, details in ports.items()
    }
    answer["stats"] = asdict(stats) if stats else None
    send(json.dumps(answer).encode() + b"\n")


def _class_map(opened: Opened) -> str:
    """Which output holds class ids at the input's size, or that none does."""
    size = opened.inputs[0][1][1:3] if opened.inputs else []
    for dtype, shape, name in opened.outputs:
        if dtype in _INTEGERS and shape[1:] == size:
            return f"{dtype} {shape}, output {name!r}"
    return "none in the graph"


def _runtimes(opened: Mapping[str, Opened | str], model_info: ModelInfo | None) -> Table:
    verified = model_info.created.get("verified") if model_info else None
    known = [str(name) for name in verified] if isinstance(verified, list) else []
    caption = "XNNPACK runs a partition as a whole; verified: compared with Keras on this version when it was exported."
    table = Table(title="on the runtimes installed here", caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("runtime", no_wrap=True)
    table.add_column("partitions", justify="right", no_wrap=True)
    table.add_column("operations outside of them", overflow="fold")
    table.add_column("verified", no_wrap=True)
    for runtime, result in opened.items():
        name = f"{runtime} {runtime_version(runtime)}"
        was = "yes" if name in known else "no"
        if isinstance(result, str):
            table.add_row(name, "", result.removeprefix(f"{name} "), was)
        elif result.stats is None:
            table.add_row(name, "", "not listed by this runtime", was)
        else:
            outside = ", ".join(f"{count} {kind}" for kind, count in result.stats.outside.items())
            table.add_row(name, str(result.stats.partitions), outside or "none", was)
    return table


def _operations(stats: GraphStats) -> Table:
    table = Table(title="operations of the graph", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("operation", no_wrap=True)
    for name in ("count", "MMAC"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, (count, macs) in stats.kinds.items():
        table.add_row(kind, str(count), f"{macs / 1e6:,.1f}" if macs else "")
    table.add_section()
    table.add_row("together", str(stats.ops), f"{stats.macs / 1e6:,.1f}")
    return table
