"""The race of the peers, with contenders that stand in for them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.files import made_by
from benchmarks.peers import __main__ as command
from benchmarks.peers import files
from benchmarks.peers.keras_hub import errors
from benchmarks.peers.race import ENGINES, Contender, differences, field, folds_worth, summarize
from benchmarks.remote import Remote
from segformer_tf import SegFormer
from segformer_tf.errors import InputError
from tests.contenders import fake_engine, missing_engine
from tests.helpers import noise, within


def test_errors_of_two_exports_of_one_network() -> None:
    expected = noise(1, 3, 5, 4)
    assert errors(expected, expected) == ("0.0e+00", "0.0e+00")
    other = expected.copy()
    other[0, 0, 0, 0] += np.abs(expected).max()
    assert errors(other, expected)[1] == "1.0e+00"


def test_medians_percentiles_and_ratios() -> None:
    times = {
        "ours": np.array([[0.010, 0.020]] * 9 + [[0.5, 0.5]]),
        "slow": np.array([[0.025, np.nan]] * 10),
    }
    about = {"ours": ("litert 2", "ours 1"), "slow": ("onnx 3", "")}
    ours, slow = summarize(times, about, {"slow": 0.5})
    assert (ours.logits_ms, ours.mask_ms, ours.logits_ratio, ours.mask_ratio) == pytest.approx((10, 20, 1, 1))
    assert ours.logits_p90_ms == pytest.approx(1e3 * np.quantile([0.010] * 9 + [0.5], 0.9))
    assert (slow.logits_ms, slow.logits_ratio, slow.differs_by) == pytest.approx((25, 2.5, 0.5))
    assert np.isnan(slow.mask_ms)
    assert (slow.engine, ours.made_by, ours.differs_by) == ("onnx 3", "ours 1", None)


def test_a_broken_conversion_shows() -> None:
    a, b = noise(1, 3, 4, 4), noise(1, 3, 4, 4)
    b[0, 1, 2, 3] += 0.75
    assert differences({"torch": a, "same": a, "off": b}) == pytest.approx({"same": 0.0, "off": 0.75})
    assert differences({}) == {}


def process_state(pid: int | None) -> str:
    """Its letter in /proc, "" where it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rsplit(")")[1].split()[0] if stat.exists() else ""


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_works_only_when_asked() -> None:
    with Remote(str, "abc") as remote:
        assert remote.call("upper") == "ABC"
        if sys.platform == "linux":
            wait_until(lambda: process_state(remote._process.pid) == "T")
        assert remote.call("title") == "Abc"
        with pytest.raises(InputError, match="no attribute"):
            remote.call("no_such_method")
    assert remote._process.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_stopped_process_does_not_outlive_the_command(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(
        "import time\n"
        "from benchmarks.remote import Remote\n"
        "if __name__ == '__main__':\n"
        "    remote = Remote(str, 'abc')\n"
        "    print(remote._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert process_state(child) not in ("", "Z")
        parent.kill()
    wait_until(lambda: process_state(child) in ("", "Z"))


def test_what_is_missing_or_crashes_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no-such-peer is not installed$"):
        Remote(importlib.import_module, "no_such_peer.models", log=tmp_path / "log.txt")
    assert "ModuleNotFoundError" in (tmp_path / "log.txt").read_text()
    with pytest.raises(InputError, match=r"^its process crashed \(SIGABRT\)$"):
        Remote(os.abort)


def test_only_tflite_files_race_on_tflite_runtime() -> None:
    everybody = [c.name for c in field("b0", [Path("a.tflite"), Path("b.tflite")], "litert")]
    assert everybody[:2] == ["ours, a.tflite", "ours, b.tflite"]
    assert len(everybody) == len(set(everybody)) == 11
    few = field("b0", [Path("a.tflite")], "tflite-runtime")
    assert [c.file for c in few] == [Path("a.tflite"), "plain.tflite", "keras_hub.tflite"]


def test_onnx_files_race_on_each_engine_for_them() -> None:
    own = Path("a.onnx")
    names = [c.name for c in field("b0", [own], "litert")]
    assert names[:3] == [f"ours, a.onnx, {engine}" for engine in ENGINES]
    assert names[3:6] == [f"transformers, {engine}" for engine in ENGINES]
    assert {c.file for c in field("b0", [own], "litert")} == {own, "transformers.onnx", "openvino_int8.xml"}
    assert {c.file for c in field("b0", [own, Path("a.tflite")], "litert")} > {own, "plain.tflite", "transformers.onnx"}
    times = {
        "ours, a.onnx, ONNX Runtime": 0.01,
        "transformers, ONNX Runtime": 0.025,
        "ours, a.onnx, OpenVINO fp32": 0.1,
    }
    rows = summarize({name: np.full((2, 2), t) for name, t in times.items()}, dict.fromkeys(times, ("", "")), {})
    assert [line.split(": ")[1] for line in folds_worth(rows, [own, Path("b.onnx")])] == ["ONNX Runtime 2.50x"]
    with pytest.raises(InputError, match=r"races \.tflite files alone"):
        command.main(ours=[own], runtime="tflite-runtime")


def test_the_plain_form_is_the_same_network(tiny: SegFormer) -> None:
    images = noise(1, 64, 96, 3)
    assert within(np.asarray(files.plain_logits(tiny, images)), np.asarray(tiny(images, training=False)))


def test_files_are_made_once_and_again_by_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def write(config: object, out: Path) -> None:
        made.append(out)
        out.write_text("xml")
        out.with_suffix(".bin").write_text("bin")

    monkeypatch.setitem(files.PEERS, "fake.xml", files.PeerFile(write, ("numpy",), (".bin", ".xml")))
    for _ in range(2):
        files.prepare("fake.xml", "b0", tmp_path)
    assert len(made) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"fake.xml", "fake.bin", "fake.txt"}
    assert made_by(tmp_path / "fake.xml") == f"numpy {version('numpy')}"
    (tmp_path / "fake.txt").write_text("numpy 0.1\n")
    files.prepare("fake.xml", "b0", tmp_path)
    assert len(made) == 2
    monkeypatch.setitem(files.PEERS, "fake.xml", files.PeerFile(write, ("no-such",), (".bin", ".xml")))
    files.prepare("fake.xml", "b0", tmp_path)  # where nothing can be made, what is there serves
    assert len(made) == 2


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    own = tmp_path / "own.tflite"
    own.write_bytes(bytes(5_000_000))
    contenders = [
        Contender("ours", fake_engine, (0.0,)),
        Contender("torch", fake_engine, (1.0,), same_weights=True),
        Contender("gone", missing_engine),
        Contender("off", fake_engine, (1.5,), same_weights=True),
    ]
    monkeypatch.setattr(command, "field", lambda *_: contenders)
    monkeypatch.setattr(command, "plain_console", lambda: Console(width=100))
    command.main(ours=[own], rounds=2, threads=3, cache=tmp_path / "cache")
    shown = capsys.readouterr().out
    assert "gone: left out (no-such-peer is not installed)" in shown
    assert "5.0e-01" in shown
    assert "fake 3" in shown
    rows = (tmp_path / "cache" / "b0-litert.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["contender", "ours", "torch", "off"]


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        command.main(ours=[tmp_path / "none.tflite"])
    (b0 := tmp_path / "b0.tflite").write_bytes(bytes(5_000_000))
    with pytest.raises(InputError, match="5000000 bytes are no b2"):
        command.main(ours=[b0], variant="b2")
    with pytest.raises(InputError, match="--threads and --rounds"):
        command.main(ours=[], rounds=0)
