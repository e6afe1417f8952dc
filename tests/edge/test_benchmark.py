from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from segformer_tf.cli import main
from segformer_tf.edge import installed_runtimes, load_image, open_interpreter
from segformer_tf.edge.benchmark.hardware import cores, peak_memory, processor
from segformer_tf.edge.benchmark.matmul import Matmul
from segformer_tf.edge.benchmark.report import COLUMNS, files_table, read_scores, runtimes_table, speed_table, write_csv
from segformer_tf.edge.benchmark.stopwatch import Stopwatch, sample_jpeg
from segformer_tf.edge.benchmark.timing import Benchmark, take_turns, time_files
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.graph_stats import GraphStats, read_graph_stats
from segformer_tf.errors import InputError

both_runtimes = pytest.mark.skipif(len(installed_runtimes()) < 2, reason="needs both runtimes")
linux = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's /proc")


def convert(function: Callable, shape: tuple[int, ...], path: Path) -> Path:
    """A TensorFlow function of one float32 tensor as a ``.tflite`` without metadata."""
    import tensorflow as tf

    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()]).convert())
    return path


@pytest.fixture(scope="module")
def timed(tiny_files: dict) -> Benchmark:
    """The tiny model in fp32 and int8 on every runtime."""
    files = [tiny_files["fp32"], tiny_files["int8"]]
    return time_files(files, threads=1, repeats=3, warm_up=0, scores=[0.25, 0.125])


def test_turns_alternate_and_warm_up_is_dropped() -> None:
    order: list[str] = []

    def runner(name: str) -> Callable[[], str]:
        def run() -> str:
            order.append(name)
            return f"{name}{order.count(name)}"

        return run

    kept = take_turns([runner("a"), runner("b"), runner("c")], repeats=3, warm_up=2)
    assert "".join(order) == "abc" * 5
    assert kept == [["a3", "a4", "a5"], ["b3", "b4", "b5"], ["c3", "c4", "c5"]]


def test_every_file_on_every_runtime_has_a_row_that_adds_up(tiny_files: dict, timed: Benchmark) -> None:
    runtimes = installed_runtimes()
    expected = [(tiny_files[recipe], recipe, name) for recipe in ("fp32", "int8") for name in runtimes]
    assert [(t.path, t.recipe, t.runtime) for t in timed.timings] == expected
    for t in timed.timings:
        assert (t.height, t.width, t.classes, t.image_height, t.image_width) == (97, 161, 6, 97, 161)
        assert 0 < t.p50 <= t.p90
        assert t.resize < t.load  # of the input's size already
        assert max(t.load, t.p50, t.mask) < t.total
        assert t.gmac is not None
        assert t.share == pytest.approx(2 * t.gmac / (t.p50 / 1e3) / timed.conditions.matmul_gflops)
        assert t.mean_iou == (0.25 if t.recipe == "fp32" else 0.125)
    assert timed.timings[0].megabytes == tiny_files["fp32"].stat().st_size / 1e6
    assert len({t.gmac for t in timed.timings}) == 1  # quantising saves no multiplications


def test_a_photo_is_resized_and_shares_count_by_what_is_given(tiny_files: dict, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(sample_jpeg((400, 600)))
    result = time_files(
        [tiny_files["fp32"]], runtimes=["litert"], threads=1, repeats=3, image=tmp_path / "photo.jpg", gmac=7.0
    )
    (t,) = result.timings
    assert (t.image_height, t.image_width, result.conditions.image) == (400, 600, "photo.jpg")
    assert t.resize > 0.1  # ms, for 240,000 pixels
    assert t.share == pytest.approx(2 * 7.0 / (t.p50 / 1e3) / result.conditions.matmul_gflops)
    assert t.gmac != 7.0


def test_macs_are_those_counted_by_hand(tmp_path: Path) -> None:
    import tensorflow as tf

    def weights(*shape: int) -> tf.Tensor:
        return tf.constant(np.random.default_rng(0).standard_normal(shape, np.float32))

    hand = {}  # name: (what to run on (1, 8, 12, 3), operations it becomes, multiply-accumulates)
    hand["conv"] = (lambda x: tf.nn.conv2d(x, weights(3, 3, 3, 5), 2, "SAME"), "CONV_2D", 4 * 6 * 5 * 27)
    hand["depthwise"] = (
        lambda x: tf.nn.depthwise_conv2d(x, weights(3, 3, 3, 2), [1, 1, 1, 1], "VALID"),
        "DEPTHWISE_CONV_2D",
        6 * 10 * 6 * 9,
    )
    hand["dense"] = (lambda x: tf.reshape(x, (32, 9)) @ weights(9, 7), "FULLY_CONNECTED", 32 * 9 * 7)
    hand["product"] = (lambda x: tf.matmul(x, x + 1, transpose_b=True), "BATCH_MATMUL", 8 * 12 * 12 * 3)
    hand["turned"] = (lambda x: tf.matmul(x, x + 1, transpose_a=True), "BATCH_MATMUL", 8 * 3 * 3 * 12)
    hand["back"] = (
        lambda x: tf.nn.conv2d_transpose(x, weights(4, 4, 5, 3), (1, 16, 24, 5), 2),
        "TRANSPOSE_CONV",
        8 * 12 * 3 * 4 * 4 * 5,
    )
    for name, (function, operation, macs) in hand.items():
        path = convert(function, (1, 8, 12, 3), tmp_path / f"{name}.tflite")
        interpreter = open_interpreter(path, runtime="litert")
        assert operation in {op["op_name"] for op in interpreter._get_ops_details()}, name
        graph = read_graph_stats(interpreter)
        assert graph is not None
        assert graph.macs == macs, name


def test_ops_outside_the_delegate_are_found(tmp_path: Path) -> None:
    import tensorflow as tf

    def function(x: tf.Tensor) -> tf.Tensor:
        for _ in range(2):  # XNNPACK has no such operation; the others are its own
            x = tf.math.floormod(tf.nn.relu(x * 2.0) + 1.0, 0.7)
        return tf.nn.relu(x - 0.1)

    interpreter = open_interpreter(convert(function, (1, 8, 12, 3), tmp_path / "a.tflite"), runtime="litert")
    graph = read_graph_stats(interpreter)
    assert graph is not None
    assert (graph.outside, graph.partitions) == ({"FLOOR_MOD": 2}, 3)


def test_what_is_outside_keeps_tensors_of_its_own(tiny_files: dict) -> None:
    """Another way to the same list: what a delegate computes inside a part never reaches a tensor of the runtime."""
    interpreter = open_interpreter(tiny_files["int8_io"], runtime="litert")
    nodes = interpreter._get_ops_details()
    written = {int(t) for node in nodes if node["op_name"] == "DELEGATE" for t in node["outputs"]}

    def readable(tensor: int) -> bool:
        try:
            interpreter.get_tensor(tensor)
        except ValueError:
            return False
        return True

    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    found = Counter(n["op_name"] for n in own if any(t not in written and readable(int(t)) for t in n["outputs"]))
    graph = read_graph_stats(interpreter)
    assert graph is not None
    assert len(found) > 2
    assert graph.outside == found
    assert graph.ops == len(own)
    assert graph.partitions == len(nodes) - len(own)


@both_runtimes
def test_runtimes_differ_in_what_they_delegate(timed: Benchmark) -> None:
    litert, old = timed.timings[:2]
    assert (litert.partitions, litert.outside) == (1, {})
    assert old.outside is not None
    assert old.partitions is not None
    assert {"GELU", "BATCH_MATMUL", "RSQRT"} <= set(old.outside)
    assert not {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"} & set(old.outside)
    assert old.partitions > 10
    assert old.ops == litert.ops


def test_a_runtime_that_does_not_tell_is_a_dash(timed: Benchmark, tmp_path: Path) -> None:
    assert read_graph_stats(object()) is None
    unknown = {"ops": None, "partitions": None, "outside": None, "gmac": None, "share": None}
    result = Benchmark([replace(timed.timings[0], **unknown)], timed.conditions)
    write_csv(tmp_path / "a.csv", result)
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name for name, value in row.items() if not value} == {*unknown, "gmac_counted"}
    console = Console(width=120)
    with console.capture() as captured:
        for table in (speed_table(result), files_table(result), runtimes_table(result)):
            console.print(table)
    assert captured.get().count(" - ") == 5


def test_memory_is_of_the_file_not_of_the_parent(tmp_path: Path) -> None:
    import tensorflow as tf

    def network(channels: int) -> Callable:
        rng = np.random.default_rng(0)
        shapes = ((1, 1, 3, channels), (1, 1, channels, channels), (1, 1, channels, 6))
        kernels = [tf.constant(rng.standard_normal(shape, np.float32)) for shape in shapes]

        def run(x: tf.Tensor) -> tf.Tensor:
            for kernel in kernels:
                x = tf.nn.conv2d(x, kernel, 1, "SAME")
            return x

        return run

    of_the_parent = peak_memory()
    held = []
    for channels in (16, 4096):
        path = convert(network(channels), (1, 8, 8, 3), tmp_path / f"{channels}.tflite")
        raw = Contract(mean=(0.0,), std=(1.0,))
        with Stopwatch(path, runtime="litert", threads=1, contract=raw) as stopwatch:
            held.append(stopwatch.memory)
    assert held[0] > 20e6  # Python alone, in bytes
    assert held[0] < of_the_parent / 2  # TensorFlow is loaded here
    assert held[1] - held[0] > 4 * 4096**2


@linux
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_the_matrix_product_takes_its_threads_and_then_rests() -> None:
    def used(process: int) -> float:
        """Milliseconds of processor time of all its threads."""
        tasks = Path(f"/proc/{process}/task")
        return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks)) / 1e6

    with Matmul(1) as one, Matmul(2) as two:
        assert one() > [0]
        assert len(os.listdir(f"/proc/{one._process.pid}/task")) == 1
        assert len(os.listdir(f"/proc/{two._process.pid}/task")) == 2
        before = used(two._process.pid)
        two()
        after = used(two._process.pid)
        sleep(0.1)
        idle = used(two._process.pid) - after
    assert after > before
    assert idle < 10


def test_the_sample_picture_is_work_to_decode() -> None:
    jpeg = sample_jpeg((300, 400))
    pixels = load_image(Image.open(BytesIO(jpeg)))
    assert pixels.shape == (300, 400, 3)
    assert len(jpeg) > 300 * 400 / 8  # at least a bit for each pixel, as photographs have
    assert pixels.std() > 20


def test_csv_and_picture_hold_all(
    tiny_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    models = [str(tiny_files[recipe]) for recipe in ("fp32", "fp16")]
    for name, score in (("a", 0.5), ("b", 0.25)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mean_iou": score}))
    scores = ("--scores", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    table, picture = tmp_path / "a.csv", tmp_path / "a.png"
    options = ("--runtime", "litert", "--threads", "1", "--repeats", "2", "--warm-up", "1", "--gmac", "0.5")
    main(["benchmark", *models, *options, *scores, "--csv", str(table), "--picture", str(picture)])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    words = " ".join(shown.split())
    for text in ("invoke", "p50", "matmul", "peak", "MB", "fp16.tflite", "0.2500", "shares count 0.5 GMAC"):
        assert text in words
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mean_iou"] for row in rows] == ["0.5", "0.25"]
    for row in rows:
        assert tuple(row) == COLUMNS
        assert {name for name, value in row.items() if not value} == set()
        assert float(row["p50"]) <= float(row["p90"])
        assert (row["threads"], row["warm_up"], row["repeats"], row["gmac_counted"]) == ("1", "1", "2", "0.5")
        assert row["machine"] == processor()
    with Image.open(picture) as opened:
        assert opened.size == (900, 600)


def test_what_cannot_be_timed_is_one_line(tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "text.tflite").write_text("no model at all")
    (tmp_path / "none.json").write_text('{"mean_iou": null}')
    (tmp_path / "one.json").write_text('{"mean_iou": 0.5}')
    model = tiny_files["fp32"]
    cases = {
        (): "no model given; expected .tflite files",
        (tmp_path / "missing.tflite",): "missing.tflite: no such model file",
        (tmp_path / "text.tflite",): "text.tflite: not a TFLite file",
        (model, "--repeats", 0): "--repeats must be positive. Received: 0",
        (model, "--warm-up", -1): "--warm-up must not be negative. Received: -1",
        (model, "--threads", 0): "--threads must be positive. Received: 0",
        (model, "--gmac", 0): "--gmac must be positive. Received: 0.0",
        (
            model,
            "--runtime",
            "onnx",
        ): "--runtime must be one of litert, tflite-runtime, litert-gpu, litert-fp16. Received: onnx",
        (model, "--image", tmp_path / "missing.jpg"): "missing.jpg: no such image",
        (model, "--image", tmp_path / "a.png"): "a.png: not a readable image",
        (model, "--scores", tmp_path / "missing.json"): "missing.json: scores that cannot be read",
        (model, "--scores", tmp_path / "none.json"): 'with "mean_iou" from 0 to 1',
        (model, model, "--scores", tmp_path / "one.json"): "expected scores of each of 2 files. Received: 1",
        (model, "--picture", tmp_path / "a.svg"): "--picture must end in .png",
        (model, "--picture", tmp_path / "a.png"): "a.png: exists already",
    }
    for arguments, message in cases.items():
        with pytest.raises(SystemExit):
            main(["benchmark", *map(str, arguments)])
        output = capsys.readouterr()
        assert message in output.err, arguments
        assert len(output.err.splitlines()) == 1, arguments
        assert not output.out.strip(), arguments
    assert read_scores(tmp_path / "one.json") == 0.5


def test_a_file_that_crashes_its_runtime_is_named(tiny_files: dict) -> None:
    with Stopwatch(tiny_files["fp32"], runtime="litert", threads=1) as stopwatch:
        assert isinstance(stopwatch.graph, GraphStats)
        stopwatch._process.kill()
        with pytest.raises(InputError, match=r"fp32\.tflite: litert did not answer"):
            stopwatch()
