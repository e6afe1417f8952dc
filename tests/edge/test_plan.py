"""`segformer plan`: what it predicts from what it times."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from segformer_tf.cli import main
from segformer_tf.complexity import complexity
from segformer_tf.config import variant_config
from segformer_tf.edge.plan.estimate import Sample, estimate, timed_variant
from segformer_tf.edge.plan.graphs import TIMED_RECIPES, TIMED_SIZES, TimedGraph, shipped_graphs
from segformer_tf.edge.runtime import installed_runtimes
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.edge.tflite.model import TFLiteModel
from tests.helpers import refused


def sample(variant: str, size: tuple[int, int], *, linear: float, attention: float, recipe: str = "fp32") -> Sample:
    work = complexity(variant_config(variant, num_classes=11), size)
    invoke = linear * work.linear + attention * work.attention
    pixels = size[0] * size[1]
    return Sample(variant, recipe, size, 11, invoke, 1e-5 * pixels, 10.0, 50.0 + 1e-4 * pixels)


SAMPLES = [
    *(sample("b0", size, linear=3e-8, attention=9e-8) for size in ((256, 256), (512, 512))),
    *(sample("b2", size, linear=2e-8, attention=5e-8) for size in ((192, 192), (384, 384))),
]


@pytest.mark.parametrize(
    ("variant", "linear", "attention"), [("b0", 3e-8, 9e-8), ("b1", 2e-8, 5e-8), ("b5", 2e-8, 5e-8)]
)
@pytest.mark.parametrize("size", [(97, 161), (360, 480), (720, 1280)])
def test_rates_of_two_sizes_give_the_time_of_any(
    variant: str, linear: float, attention: float, size: tuple[int, int]
) -> None:
    work = complexity(variant_config(variant, num_classes=19), size)
    result = estimate(SAMPLES, variant, "fp16", size, num_classes=19)
    assert result.invoke == pytest.approx(linear * work.linear + attention * work.attention)
    pixels = size[0] * size[1]
    assert result.total - result.invoke == pytest.approx(1e-5 * pixels * (80 + 19) / (80 + 11))
    assert result.memory == pytest.approx(40 + 1e-4 * pixels + result.megabytes)
    assert not result.timed


def test_what_was_timed_is_given_as_it_was() -> None:
    noisy = [replace(s, invoke=s.invoke * factor) for s, factor in zip(SAMPLES, (1.0, 1.3, 1.0, 1.0), strict=True)]
    result = estimate(noisy, "b0", "fp32", (512, 512), num_classes=11)
    assert result.timed
    assert result.invoke == noisy[1].invoke


def test_rates_are_never_negative() -> None:
    """A small graph that was timed in a busy moment seems slow for its multiply-adds."""
    small, large = replace(SAMPLES[0], invoke=60.0), replace(SAMPLES[1], invoke=100.0)
    times = [
        estimate([small, large], "b0", "fp32", size, num_classes=11).invoke
        for size in ((64, 64), (360, 480), (1024, 1024))
    ]
    assert 0 < times[0] < times[1] < times[2]


def test_the_nearest_channels_are_taken() -> None:
    names = [timed_variant(name, ["b2", "b0", "b0"]) for name in ("tiny", "b0", "b1", "b2", "b4")]
    assert names == ["b0", "b0", "b2", "b2", "b2"]


def test_multiply_adds_are_those_of_the_file(tiny_files: dict) -> None:
    """But for the norms', which are convolutions there, and a projection that goes into the values."""
    (runtime, *_) = installed_runtimes()
    model = TFLiteModel(tiny_files["fp32"], runtime=runtime)
    stats = model.graph_stats()
    assert stats
    assert stats.macs == pytest.approx(complexity(variant_config("tiny", num_classes=6), (97, 161)).total, rel=0.04)


def test_all_graphs_are_there_and_run(tmp_path: Path) -> None:
    graphs = shipped_graphs()
    expected = {(v, recipe, size) for v, sizes in TIMED_SIZES.items() for size in sizes for recipe in TIMED_RECIPES}
    assert {(graph.variant, graph.recipe, graph.size) for graph in graphs} == expected
    assert sum(len(graph.data) for graph in graphs) > 1e8  # weights and all
    graph = next(graph for graph in graphs if graph.variant == "b0" and graph.recipe == "int8")
    segmenter = Segmenter(graph.write(tmp_path))
    assert (segmenter.size, segmenter.recipe) == (graph.size, "int8")


@pytest.fixture
def tiny_graphs(tiny_files: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [TimedGraph("tiny", recipe, (97, 161), tiny_files[recipe].read_bytes()) for recipe in TIMED_RECIPES]
    monkeypatch.setattr("segformer_tf.edge.plan.cli.shipped_graphs", lambda: graphs)


def test_only_the_sizes_of_one_network_are_in_memory_together(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, started = 0, 0, []

    class Watch:
        grid, memory = (1, 1, 11), 10**8

        def __init__(self, path: Path, *, runtime: str, threads: int) -> None:
            self.path = path
            started.append((path.name.split("_")[0], threads))

        def __enter__(self) -> Watch:
            nonlocal running, most
            running += 1
            most = max(most, running)
            return self

        def __exit__(self, *_: object) -> None:
            nonlocal running
            running -= 1

        def __call__(self) -> list[float]:
            return [1.0, 2.0, 3.0, 4.0]

    monkeypatch.setattr("segformer_tf.edge.plan.measure.Stopwatch", Watch)
    monkeypatch.setattr("segformer_tf.edge.plan.measure._WARM_UP_SECONDS", 0.01)  # nothing is timed
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    main(["plan", "--variant", "b0"])
    assert (most, started) == (2, [("b0", 3)] * 6)  # two sizes of three recipes, and none of b2
    main(["plan", "--variant", "b5", "--recipe", "fp16", "--threads", "1", "--json", str(tmp_path / "plan.json")])
    assert (most, started[6:]) == (2, [("b2", 1)] * 2)
    (sample, _) = json.loads((tmp_path / "plan.json").read_text())["timed"]
    assert (sample["invoke"], sample["picture"], sample["memory"]) == (3.0, 6.0, 100.0)


@pytest.mark.usefixtures("tiny_graphs")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "plan.json"
    options = ["--variant", "tiny", "--recipe", "int8", "--num-classes", "6", "--repeats", "1", "--threads", "1"]
    main(["plan", *options, "--size", "97", "161", "--size", "194", "322", "--json", str(out)])
    shown = capsys.readouterr().out
    assert "97x161" in shown
    assert "194x322" in shown
    content = json.loads(out.read_text())
    first, second = content["plan"]
    assert (first["timed"], second["timed"]) == (True, False)
    assert second["invoke"] == pytest.approx(first["invoke"] * second["gmac"] / first["gmac"], rel=0.5)
    assert "memory: MB of a process" in shown
    assert "left out" not in shown
    slow = 1e3 / max(first["total"], second["total"])
    both = ["--size", "29", "29", "--size", "1940", "3220"]
    main(["plan", *options, *both, "--fps", f"{slow:g}"])
    shown = capsys.readouterr().out
    assert f"1 of 2 left out by --fps {slow:g}" in shown
    assert "1940x3220" not in shown
    line = refused(capsys, "plan", *options, *both, "--fps", "100000", "--memory", "1")
    assert line.startswith("segformer: none of 2 fits; the fastest is tiny at 29x29")
    assert "of memory" in line


def test_options_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "plan.json").touch()
    for options, line in (
        ("--variant b9", "--variant must be of"),
        ("--fps 0", "--fps must be positive. Received: 0"),
        ("--memory -1", "--memory must be positive"),
        ("--size 28 64", "at least 29 pixels"),
        ("--num-classes 1", "from 2 to 255. Received: 1"),
        ("--repeats 0", "--repeats must be positive"),
        ("--runtime litert-gpu", "--runtime litert-gpu"),
        (f"--json {tmp_path}/plan.json", "plan.json"),
    ):
        assert line in refused(capsys, "plan", *options.split())


def test_export_of_an_untrained_network_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, says in (
        (("b0",), "b0 is an untrained network, which needs --num-classes"),
        (("model.keras", "--num-classes", "3"), "--num-classes goes with an untrained network"),
    ):
        assert says in refused(capsys, "export", *arguments, "--out", tmp_path / "x.tflite")
    out = tmp_path / "tiny.tflite"
    main(["export", "tiny", "--num-classes", "3", "--size", "33", "65", "--out", str(out), "--runtime", "litert"])
    assert Segmenter(out).license.startswith("untrained")
