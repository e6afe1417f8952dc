"""What `segformer doctor` says of a delegate is what the delegate does."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from convert.graph.class_map import with_class_map
from convert.graph.flatbuffer import pack, to_tflite
from convert.graph.ir import Graph, Tensor
from convert.graph.segformer import network
from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.edge.doctor.delegates import DELEGATES, Delegate
from segformer_tf.edge.doctor.diagnosis import Diagnosis, diagnose
from segformer_tf.edge.gpu import find_gpu
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.runtime import GPU
from segformer_tf.edge.tflite.flatbuffer import Table, indirect
from segformer_tf.edge.tflite.graph_stats import read_graph_stats
from segformer_tf.edge.tflite.operations import read_operations
from segformer_tf.errors import InputError
from segformer_tf.native_log import native_silence
from tests.edge.one_operation import beside_floats, one_operation_files

BY_NAME = {delegate.name: delegate for delegate in DELEGATES}
INT8 = Path(__file__).parents[2] / "models" / "camvid_b0_int8.tflite"

Truth = tuple[int, dict[str, int]]


def said(path: Path, delegate: Delegate) -> Truth:
    """Parts, and what is left by kind, as `graph_stats` has them."""
    diagnosis = diagnose(read_operations(path), delegate)
    left: Counter[str] = Counter()
    for each in diagnosis.left:
        left[each.kind] += each.count
    return diagnosis.parts, dict(left)


def truth(path: Path) -> Truth | None:
    """The same from LiteRT; None if it refuses the file."""
    try:
        with native_silence():
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError):
        return None
    stats = read_graph_stats(interpreter)
    assert stats
    return stats.partitions, stats.outside


def truths_of_tflite_runtime(paths: list[Path]) -> list[Truth | None]:
    """The same from tflite-runtime, which shares no process with TensorFlow."""
    code = """
import json, os, sys
from tflite_runtime.interpreter import Interpreter
from segformer_tf.edge.tflite.flatbuffer import Table, indirect
from segformer_tf.edge.tflite.graph_stats import read_graph_stats
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
for path in json.loads(sys.stdin.read()):
    try:
        interpreter = Interpreter(path, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError):
        print("null")
        continue
    stats = read_graph_stats(interpreter)
    print(json.dumps([stats.partitions, stats.outside]))
"""
    names = json.dumps([str(path) for path in paths])
    done = subprocess.run([sys.executable, "-c", code], input=names, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [None if answer is None else (answer[0], answer[1]) for answer in answers]


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("one"), []
    for name, file in one_operation_files():
        paths.append(folder / f"{name}.tflite")
        paths[-1].write_bytes(file)
        if name in ("TRANSPOSE int8", "ADD int8", "SOFTMAX int8"):
            paths.append(folder / f"{name} beside floats.tflite")
            paths[-1].write_bytes(beside_floats(file))
    return paths


@pytest.fixture(scope="module")
def networks(tiny: SegFormer, tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("networks"), [INT8, *tiny_files.values()]
    for form in ("litert", "tflite-runtime"):
        graph = network(tiny, (64, 96), runtime=form)
        for cheap in (True, False):
            paths.append(folder / f"{form} {cheap}.tflite")
            paths[-1].write_bytes(to_tflite(with_class_map(graph, (64, 96), cheap=cheap)))
    return paths


def test_xnnpack_in_litert_takes_what_it_says(small_files: list[Path], networks: list[Path]) -> None:
    seen = {path: truth(path) for path in (*small_files, *networks)}
    known = {path: answer for path, answer in seen.items() if answer}
    assert len(known) > 250
    assert {path.stem: said(path, BY_NAME["xnnpack"]) for path in known} == {p.stem: a for p, a in known.items()}
    taken = Counter(bool(parts) for parts, _ in known.values())
    assert min(taken.values()) > 80  # of both


def test_xnnpack_in_tflite_runtime_takes_what_it_says(small_files: list[Path], networks: list[Path]) -> None:
    paths = [*small_files, *networks]
    answers = dict(zip(paths, truths_of_tflite_runtime(paths), strict=True))
    known = {path: answer for path, answer in answers.items() if answer}
    refused = {path.stem for path in networks if not answers[path]}
    assert refused == {p.stem for p in networks if diagnose(read_operations(p), BY_NAME["xnnpack-2.14"]).refused}
    assert {"dynamic_int4", "w8a16"} <= refused
    assert len(known) > 250
    assert {path.stem: said(path, BY_NAME["xnnpack-2.14"]) for path in known} == {p.stem: a for p, a in known.items()}
    taken = Counter(bool(parts) for parts, _ in known.values())
    assert min(taken.values()) > 30


def broadcast(path: Path) -> Path:
    graph = Graph()
    x, y = graph.input("x", (1, 8, 8, 32)), graph.input("y", (1, 1, 32, 16))
    graph.outputs = [graph.add_op("BATCH_MATMUL", "product", [x, y], (1, 8, 8, 16))]
    path.write_bytes(to_tflite(graph))
    return path


def test_what_the_gpu_computes_wrongly_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`test_gpu_delegate` has the files that show it."""
    main(["doctor", str(broadcast(tmp_path / "x.tflite"))])
    out = capsys.readouterr().out
    assert "LiteRT's GPU accelerator: wrong there: it takes BATCH_MATMUL and computes other numbers" in out
    assert "XNNPACK in LiteRT 2.3, CPU: takes the whole file" in out


def test_the_gpu_takes_what_it_says(networks: list[Path], tiny_files: dict[str, Path]) -> None:
    if find_gpu() is None:
        pytest.skip("needs a Vulkan device: a GPU's driver, or SwiftShader (apt-get install chromium libvulkan1)")
    for path in (tiny_files["fp32"], tiny_files["int8_io"], networks[-4]):
        diagnosis = diagnose(read_operations(path), BY_NAME["litert-gpu"])
        try:
            with IsolatedModel(path, runtime=GPU):
                refused = ""
        except InputError as error:
            refused = str(error)
        assert ("does not take it whole" in refused) == bool(diagnosis.left)
        for left in diagnosis.left:
            if not left.reason.startswith("taken"):
                assert left.kind in refused


def of(graph: Graph, name: str, path: Path) -> Diagnosis:
    path.write_bytes(to_tflite(graph))
    return diagnose(read_operations(path), BY_NAME[name])


def test_one_part_at_the_beginning_or_the_largest_is_all_that_some_run(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", (1, 8, 8, 16))
    for n, kind in enumerate(("ABS", "LOG_SOFTMAX", "EXP", "SQRT", "SIGN")):
        x = graph.unary(kind, f"{n}", x)
    graph.outputs = [x]
    largest, everything = (of(graph, name, tmp_path / "x.tflite") for name in ("litert-gpu", "xnnpack"))
    assert (largest.taken, largest.parts) == (3, 1)
    assert [str(left).partition(":")[0] for left in largest.left] == [
        "LOG_SOFTMAX v1 float32 rank 4",
        "ABS v1 float32 rank 4",
    ]
    assert (everything.taken, everything.parts) == (3, 2)
    reordered = Graph(inputs=[Tensor("x", (1, 8, 8, 16), np.int8)])
    y = reordered.inputs[0]
    for n, kind in enumerate(("RELU", "LOGISTIC", "GELU", "RELU")):
        y = Tensor(f"{n}", y.shape, np.int8)
        reordered.add_op(kind, f"{n}", [reordered.ops[-1].output if n else reordered.inputs[0]], y.shape)
    for op in reordered.ops:
        object.__setattr__(op.output, "dtype", np.int8)
    reordered.outputs = [reordered.ops[-1].output]
    first = of(reordered, "edgetpu", tmp_path / "y.tflite")
    assert (first.taken, first.parts) == (2, 1)


def test_it_says_what_to_do(capsys: pytest.CaptureFixture, tiny_files: dict[str, Path]) -> None:
    main(["doctor", str(INT8)])
    out = capsys.readouterr().out
    assert "XNNPACK in LiteRT 2.3, CPU: takes the whole file" in out
    assert "slow there: 233 operations" in out
    assert "export with --recipe weight_int8 --runtime tflite-runtime, or run it with LiteRT" in out
    assert "Coral EdgeTPU: takes nothing (float32: it takes 8 bits alone); no recipe suits it" in out
    main(["doctor", str(tiny_files["w8a16"]), "--delegate", "litert-gpu", "--json"])
    facts = json.loads(capsys.readouterr().out)
    (gpu,) = facts["delegates"]
    assert gpu["known"] == "run"
    assert gpu["says"].endswith("export with --recipe fp16, or int8")
    assert {"kind", "version", "dtype", "rank", "reason", "count"} == set(gpu["left"][0])
    assert sum(left["count"] for left in gpu["left"]) == gpu["operations"] - gpu["taken"]


def test_every_delegate_has_a_source_and_an_advice_for_all() -> None:
    for delegate in DELEGATES:
        assert delegate.run == ("2026" in delegate.source)
        assert delegate.run or "https://" in delegate.source
        assert delegate.advice[-1][0] == ""


def test_a_broken_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = to_tflite(Graph())
    for name, content, words in (
        ("empty", b"", "empty file"),
        ("text", b"not a model at all", "not a TFLite file"),
        ("cut", INT8.read_bytes()[:2000], "cut off or damaged; copy it again"),
        ("bare", whole, "without operations"),
    ):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        with pytest.raises(SystemExit):
            main(["doctor", str(path)])
        error = capsys.readouterr().err
        assert words in error
        assert error.count("TFLite file") <= 1
        assert f"{name}.tflite" in error
        assert len(error.strip().splitlines()) == 1
    with pytest.raises(InputError, match="no such model file"):
        read_operations(tmp_path / "none.tflite")


def test_a_damaged_file_never_ends_in_a_traceback(tmp_path: Path) -> None:
    content, random = broadcast(tmp_path / "x.tflite").read_bytes(), np.random.default_rng(0)
    path, ended = tmp_path / "damaged.tflite", Counter[str]()
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            struct.pack_into("<B", damaged, place, random.integers(256))
        path.write_bytes(damaged)
        try:
            operations = read_operations(path)
            for delegate in DELEGATES:
                assert diagnose(operations, delegate).sentence
            ended["read"] += 1
        except InputError:
            ended["refused"] += 1
    assert min(ended.values()) > 20


def strange(path: Path, change: Callable[[schema.ModelT], None]) -> Path:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(broadcast(path).read_bytes(), 0))
    change(model)
    path.write_bytes(pack(model))
    return path


def test_a_strangers_names_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def rename(model: schema.ModelT) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = "\x1b[31mred\nline"

    main(["doctor", str(strange(tmp_path / "x.tflite", rename)), "--delegate", "xnnpack"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"CUSTOM:\x1b[31mred\nline v" in out


@pytest.mark.parametrize("kind", ["QUANTIZE", "RESIZE_BILINEAR", "ADD"])
def test_an_operation_without_an_output_is_refused(tmp_path: Path, kind: str) -> None:
    def change(model: schema.ModelT) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        model.subgraphs[0].operators[0].outputs = np.zeros(0, np.int32)

    with pytest.raises(InputError, match=f"{kind} has no output"):
        read_operations(strange(tmp_path / "x.tflite", change))


def test_the_largest_of_a_scalar_is_no_traceback(tmp_path: Path) -> None:
    def change(model: schema.ModelT) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ARG_MAX
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = tensor.shapeSignature = np.zeros(0, np.int32)

    operations = read_operations(strange(tmp_path / "x.tflite", change))
    assert [diagnose(operations, each).sentence for each in DELEGATES]


def test_lists_that_overlap_are_refused(tmp_path: Path) -> None:
    """A thousand operations, all of them one table whose list of inputs is long: a small file, and much to read."""
    count, data = 1000, bytearray(broadcast(tmp_path / "x.tflite").read_bytes())
    graph = Table(bytes(data), indirect(bytes(data), 0)).children(2)[0]
    place = graph._field(3)
    assert place
    data += b"\0" * (-len(data) % 4)
    start = len(data) + 4
    slots = start + 4 * count
    table = slots + 12
    struct.pack_into("<I", data, place, start - 4 - place)
    data += struct.pack("<I", count)
    data += b"".join(struct.pack("<I", table - start - 4 * i) for i in range(count))
    data += struct.pack("<HHHHHH", 10, 12, 0, 4, 8, 0)  # of the table: no code, its inputs, its outputs
    data += struct.pack("<iII", table - slots, 8, 4) + struct.pack("<I", count) + bytes(4 * count)
    path = tmp_path / "overlapping.tflite"
    path.write_bytes(data)
    with pytest.raises(InputError, match="its lists overlap"):
        read_operations(path)
