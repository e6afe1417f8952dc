"""The comparison with other networks: the race, the frontier, the table, with stand-ins for files and processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.rivals import __main__ as command
from benchmarks.rivals import chart, heads, keras_networks, torch_networks
from benchmarks.rivals import race as racing
from benchmarks.rivals.engine import Facts, pixels_for
from benchmarks.rivals.networks import NETWORKS
from benchmarks.rivals.page import BEGIN, END, update_page
from benchmarks.rivals.results import Row, ahead_of, frontier, read_results, verdict, write_results
from benchmarks.rivals.table import cells, failures, sources, table
from segformer_tf.errors import InputError

B0 = Row("ours_b0", "SegFormer-B0", "int8", mean_iou=37.4, source="paper", logits_ms=30.0, mask_ms=50.0, cpu_ms=60.0)
FAST = replace(B0, key="fast", name="Fast", mean_iou=42.8, logits_ms=24.0, mask_ms=55.0)
COARSE = replace(B0, key="coarse", name="Coarse", mean_iou=31.0, logits_ms=10.0)
LARGE = replace(B0, key="large", name="Large", form="fp32", mean_iou=48.3, logits_ms=3000.0, published_parameters=300.0)
UNPLACED = replace(B0, key="unknown", name="Unknown", mean_iou=None, source="", logits_ms=1.0)
BROKEN = Row("broken", "Broken", "int8", error="ValueError: no", mean_iou=50.0, source="paper")
ROWS = [B0, FAST, COARSE, LARGE, UNPLACED, BROKEN]


def test_the_frontier_is_what_nobody_is_ahead_of() -> None:
    assert frontier(ROWS) == [COARSE, FAST, LARGE]
    assert ahead_of(B0, ROWS) == [FAST]
    assert ahead_of(B0, ROWS, "mask_ms") == [] or ahead_of(B0, ROWS, "mask_ms") == [LARGE]
    assert ahead_of(B0, [B0, replace(B0, key="twin")]) == []
    assert ahead_of(B0, [replace(B0, logits_ms=29.0)]) != []
    assert verdict(B0, ROWS).endswith("ahead are Fast, int8 (+5.4 points in 0.80x of the time).")
    assert "on the frontier of time to the logits" in verdict(FAST, ROWS)


def test_results_come_back(tmp_path: Path) -> None:
    rows = [replace(B0, grid=(128, 128), outside={"GELU": 2}), BROKEN]
    write_results(tmp_path / "results.json", rows, {"threads": 2})
    assert read_results(tmp_path / "results.json") == (rows, {"threads": 2})


def test_the_table_fits_into_80_columns(capsys: pytest.CaptureFixture) -> None:
    wide = replace(
        LARGE, name="DeepLabv3+, MobileNetV3, keras-hub", parameters=308.12, gmac=361.5, megabytes=1232.4,
        logits_ms=12345.6, mask_ms=12399.1, cpu_ms=24000.0, memory=2612.0,
    )  # fmt: skip
    Console(width=80).print(table([*ROWS, wide, replace(wide, form="int8", how="dynamic range: static failed")]))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "dyn8" in shown
    assert "error" in shown
    crashed = replace(B0, form="fp32", error="crashed", parameters=None)
    assert [line[2] for line in cells([crashed, replace(B0, parameters=3.75)])] == ["3.75", ""]
    lines = sources(ROWS)
    assert lines[0] == "SegFormer-B0: 37.4 % by paper"
    assert "Unknown: not published on ADE20K" in lines
    assert "Large: 48.3 % by paper (300 M parameters)" in lines
    assert failures(ROWS) == ["Broken, int8: ValueError: no"]


class FakeRemote:
    """Runs `start` here; counts who was open."""

    opened: ClassVar[list[str]] = []

    def __init__(self, start: Any, *arguments: Any, log: Path | None = None) -> None:
        self.rival = start(*arguments)
        self.opened.append(arguments[0].name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, method: str) -> Any:
        return getattr(self.rival, method)()


class FakeRival:
    """Takes as long as its file's name says."""

    def __init__(self, path: Path, own: bool, threads: int) -> None:
        if path.stem == "broken":
            raise InputError("crashed (SIGSEGV)")
        self.seconds = float(path.stem)

    def turn(self) -> tuple[float, float, float]:
        return self.seconds, 2 * self.seconds, 3 * self.seconds

    def facts(self) -> Facts:
        return Facts(50_000_000, 4.1, 1, {}, (128, 128), "litert", "")


def test_a_crash_is_a_row_and_a_slow_file_takes_fewer_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(racing, "Remote", FakeRemote)
    monkeypatch.setattr(FakeRemote, "opened", [])
    entries = [racing.Entry(Path(f"{name}.tflite"), own=False) for name in ("0.1", "broken", "2.5")]
    racing.race(entries, rounds=5, turns=2, threads=2, log=tmp_path / "log.txt", start=FakeRival)
    fast, broken, slow = entries
    assert fast.seconds == [(0.1, 0.2, pytest.approx(0.3))] * 10
    assert len(slow.seconds) == 2 + 1 + 1
    assert broken.error == "crashed (SIGSEGV)"
    assert FakeRemote.opened[:4] == ["0.1.tflite", "2.5.tflite"] * 2


def test_the_command_keeps_failures_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tried = []

    class Maker:
        def __init__(self, make: Any, network: Any, form: str, cache: Path, *, log: Path) -> None:
            tried.append((network.key, form))
            if network.key == "pvtv2_b0":
                raise InputError("ValueError: cannot convert /a/lib/site-packages/timm/pvt.py " + "x" * 400)
            path = command.path_of(network, form, cache)
            path.write_bytes(bytes(1_500_000))
            path.with_suffix(".json").write_text('{"parameters": 3000000, "how": "static"}')
            path.with_suffix(".txt").write_text("timm 1")

        def close(self) -> None:
            pass

    def fill(entries: Any, **_: object) -> None:
        for entry in entries:
            entry.seconds, entry.facts = [(0.03, 0.05, 0.06)] * 2, Facts(9_000_000, 4.1, 1, {}, (128, 128), "", "")

    monkeypatch.setattr(command, "Remote", Maker)
    monkeypatch.setattr(command, "race", fill)
    keys = ["ours_b0", "pvtv2_b0"]
    (tmp_path / "pvtv2_b0_fp32.tflite").touch()  # by other packages than those that fail
    (page := tmp_path / "page.md").write_text("# Before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    command.main(only=keys, cache=tmp_path, picture=tmp_path / "rivals.png", page=page)
    written = page.read_text()
    assert written.startswith("# Before\n<!-- results -->\n\n| network | |")
    assert written.endswith("<!-- end of results -->\nafter\n")
    assert "| SegFormer-B0 | fp32 | 3.00 | 4.1 | 1.5 | 30.0 | 50.0 | 60 | 9 | 37.4 |" in written
    assert "- PVTv2-B0, Semantic FPN, fp32: `ValueError: cannot convert timm/pvt.py" in written
    assert "old" not in written
    assert "medians of 2 interleaved turns" in written
    page.write_text(f"{BEGIN}{END}")
    update_page(page, [BROKEN], {"threads": 1, "date": "2026", "processor": "", "cores": 1, "litert": "2"})
    assert "| Broken | int8 | | | | error |" in page.read_text()
    page.write_text("no marks")
    with pytest.raises(InputError, match="expected a line <!-- results -->"):
        update_page(page, [B0], {})
    assert tried == [("ours_b0", "fp32"), ("ours_b0", "int8"), ("pvtv2_b0", "fp32")]
    shown = capsys.readouterr().out
    assert "cannot convert timm/pvt.py" in shown
    assert "site-packages" not in shown
    assert "SegFormer-B0, int8: on the frontier of time to the mask" in shown.replace("\n", " ")
    assert (tmp_path / "rivals.png").stat().st_size < 150_000
    tried.clear()
    command.main(only=keys, cache=tmp_path, race_them=False)
    assert ("pvtv2_b0", "fp32") not in tried
    monkeypatch.setattr(command, "_installed", lambda packages: "timm 9")
    command.main(only=keys, cache=tmp_path, race_them=False)
    assert ("pvtv2_b0", "fp32") in tried


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--only must be of ours_tiny, .* Received: resnet"):
        command.main(only=["resnet"], cache=tmp_path)
    with pytest.raises(InputError, match="--rounds, --turns and --threads"):
        command.main(rounds=0, cache=tmp_path)
    with pytest.raises(InputError, match="no results yet"):
        command.main(make=False, race_them=False, cache=tmp_path)
    with pytest.raises(InputError, match="no file to measure"):
        command.main(make=False, cache=tmp_path)


def test_each_network_has_a_builder_and_each_accuracy_a_table() -> None:
    assert len({network.key for network in NETWORKS}) == len(NETWORKS)
    for network in NETWORKS:
        if network.road != "ours":
            assert callable(getattr(torch_networks if network.road == "torch" else keras_networks, network.make))
        if network.published:
            assert 20 < network.published.mean_iou < 60
            assert "table" in network.published.source.lower()


def test_int8_inputs_are_quantized() -> None:
    values = pixels_for({"dtype": np.float32, "quantization": (0.0, 0)})
    quantized = pixels_for({"dtype": np.int8, "quantization": (0.02, 3)})
    assert np.abs((quantized.astype(np.float64) - 3) * 0.02 - values).max() <= 0.01 + 1e-6
    assert pixels_for({"dtype": np.uint8, "quantization": (0.0, 0)}, own=True).max() > 100


def test_labels_cover_nothing() -> None:
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure = Figure(figsize=(7, 9), dpi=120)
    axes = figure.add_axes((0.12, 0.15, 0.85, 0.74))
    axes.margins(0.12)
    rows = [replace(B0, key=f"{i}", name=f"Network {i}", logits_ms=10.0 + i, mean_iou=37 + i / 10) for i in range(6)]
    axes.scatter([row.logits_ms for row in rows], [row.mean_iou for row in rows])
    chart._label(axes, rows)
    assert [text.get_text() for text in axes.texts] == [row.name for row in rows]
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    points = [Bbox([place - 4, place + 4]) for place in axes.transData.transform(axes.collections[0].get_offsets())]
    for i, box in enumerate(boxes):
        assert box.count_overlaps([*boxes[:i], *boxes[i + 1 :], *points]) == 0
        assert axes.bbox.count_contains(box.corners()) == 4


@pytest.mark.torch
@pytest.mark.parametrize(
    ("head", "channels", "strides", "out"),
    [
        (heads.AllMLP, (8, 16, 24, 32), (4, 8, 16, 32), 4),
        (heads.SemanticFPN, (8, 16, 24, 32), (4, 8, 16, 32), 4),
        (lambda c, n: heads.DeepLabPlus(c, n, low=4, width=16), (8, 32), (4, 8), 4),
        (lambda c, n: heads.EfficientViTHead(c, n, 16, 2), (16, 24, 32), (8, 16, 32), 8),
    ],
)
def test_heads_give_logits_on_their_grid(head: Any, channels: Any, strides: Any, out: int) -> None:
    features = [torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)]
    with torch.no_grad():
        logits = head(channels, 5).eval()(features)
    assert logits.shape == (2, 5, 64 // out, 96 // out)
    assert float(logits.std()) > 0


@pytest.mark.torch
def test_norms_get_the_statistics_of_pictures() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
    settled = torch_networks.settle(model)
    assert not settled.training
    with torch.no_grad():
        pictures = torch.cat([torch.from_numpy(torch_networks.normalized(seed)) for seed in (1, 2)])
        out = settled(pictures)
    assert out.mean((0, 2, 3)).abs().max() < 1e-4
    assert (out.std((0, 2, 3)) - 1).abs().max() < 1e-2
