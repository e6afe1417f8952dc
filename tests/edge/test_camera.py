"""Stages side by side, signals, and cameras: FFmpeg's test picture, and fakes that break off or say nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import av
import numpy as np
import pytest

from segformer_tf.edge.predict.video import run, source
from segformer_tf.edge.predict.video.camera import CameraInput, camera_input
from segformer_tf.edge.predict.video.channel import Channel, ahead, behind
from segformer_tf.errors import InputError
from tests.edge.clips import frames_of, predict, read_clip, record_of, refused_lines, write_clip
from tests.helpers import refused


@pytest.fixture
def model(tiny_files: dict[str, Path]) -> Path:
    return tiny_files["fp32"]


def test_no_stage_runs_ahead_of_the_next_by_more_than_its_bound() -> None:
    made, used, go = [], [], Event()

    def items() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    with ahead(items(), 2) as channel:
        for i in range(50):
            assert channel.get() == i
            assert len(made) <= i + 1 + 2 + 1  # taken, waiting, in hand
        assert channel.get() is None

    def use(item: int) -> None:
        go.wait()
        used.append(item)

    with behind(use, 2) as channel:
        for i in range(3):  # one in use, two waiting
            assert channel.put(i)
        while len(channel._items) == 3:
            pass
        assert len(channel._items) == 2
        assert not used
        go.set()
    assert used == [0, 1, 2]


def test_errors_cross_the_stages() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise InputError("decoder")

    def full(item: int) -> None:
        raise InputError(f"disk {item}")

    with ahead(broken(), 2) as channel:
        assert channel.get() == 1
        with pytest.raises(InputError, match="decoder"):
            channel.get()
    with pytest.raises(InputError, match="disk 0"), behind(full, 1) as sink:
        assert any(not sink.put(i) for i in range(1000))
    with pytest.raises(TimeoutError):
        Channel(1).get(timeout=0.01)
    newest: Channel[int] = Channel(1, newest=True)
    assert all(newest.put(i) for i in range(5))
    assert (newest.get(), newest.dropped) == (4, 4)


@pytest.fixture
def fake_camera(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes ``camera:`` a test picture of FFmpeg's, as endless and as fast as the decoder."""

    def use(graph: str = "testsrc=size=64x48:rate=10") -> None:
        monkeypatch.setattr(source, "camera_input", lambda name: CameraInput(graph, "lavfi") if ":" in name else None)

    return use


def test_a_camera_ends_by_frames_and_drops_what_comes_too_fast(
    model: Path, tmp_path: Path, fake_camera: Callable
) -> None:
    fake_camera()
    predict(model, "camera:0", "--out", tmp_path, "--frames", 4, "--overwrite")
    masks, times = read_clip(tmp_path / "camera_0_mask.mkv")
    record = record_of(tmp_path)
    assert len(masks) == record["frames"] == 4
    assert times[0] == 0 or record["dropped"]
    assert np.diff(times).min() > 0.099  # of the picture's own clock


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_camera_with_whole_files(
    model: Path, tmp_path: Path, fake_camera: Callable, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fake_camera()
    _signal_at(monkeypatch, 3, number)
    before = signal.getsignal(number)
    predict(model, "camera:0", "--out", tmp_path)
    assert len(read_clip(tmp_path / "camera_0_mask.mkv")[0]) == 3
    assert len(read_clip(tmp_path / "camera_0_overlay.mp4")[0]) == 3
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_there_is_of_a_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int, code: int
) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames_of(9))
    _signal_at(monkeypatch, 2, number)
    with pytest.raises(SystemExit) as stop:
        predict(model, clip, write_clip(tmp_path / "other.mkv", frames_of(2)), "--out", tmp_path / "seen")
    assert stop.value.code == code
    assert "the frames until then are kept" in capsys.readouterr().err
    assert len(read_clip(tmp_path / "seen/clip_overlay.mp4")[0]) == record_of(tmp_path / "seen")["frames"] == 2
    assert not list((tmp_path / "seen").glob(".*"))


def _signal_at(monkeypatch: pytest.MonkeyPatch, frame: int, number: int) -> None:
    add = run.Record.add

    def add_and_signal(self: run.Record, *arguments: object) -> None:
        add(self, *arguments)
        if self.frames == frame:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(run.Record, "add", add_and_signal)


def test_a_camera_that_breaks_off_keeps_what_it_gave(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    frames = [av.VideoFrame.from_ndarray(pixels, format="rgb24") for pixels in frames_of(3, (48, 64))]

    class Camera:
        """What of PyAV's container is used."""

        format = SimpleNamespace(name="fake")
        duration = None
        closed = False

        def __init__(self, error: Exception) -> None:
            self.error = error
            context = SimpleNamespace(width=64, height=48, decode=lambda packet: [])
            self.stream = SimpleNamespace(
                type="video", disposition=0, codec_context=context, average_rate=None, guessed_rate=Fraction(10),
                time_base=Fraction(1, 1000), duration=None, frames=0, metadata={}, sample_aspect_ratio=None,
            )  # fmt: skip
            self.streams = SimpleNamespace(video=[self.stream], best=lambda kind: self.stream)

        def demux(self, stream: object) -> Iterator[object]:
            for i, frame in enumerate(frames):
                frame.pts = i * 100
                yield SimpleNamespace(is_corrupt=False, decode=lambda frame=frame: [frame])
                taken.wait()
                taken.clear()
            raise self.error

        def close(self) -> None:
            self.closed = True

    taken, add = Event(), run.Record.add
    monkeypatch.setattr(run.Record, "add", lambda self, *given: (add(self, *given), taken.set()))
    camera = Camera(OSError(19, "No such device"))
    monkeypatch.setattr(av, "open", lambda *a, **k: camera if k.get("format") == "v4l2" else OPEN(*a, **k))
    OPEN = av.container.core.open
    monkeypatch.setattr(sys, "platform", "linux")
    lines = refused_lines(capsys, model, "camera:7", "--out", tmp_path)
    assert "camera:7: breaks off (No such device)" in lines[0]
    assert record_of(tmp_path)["frames"] == 3
    assert len(read_clip(tmp_path / "camera_7_mask.mkv")[0]) == 3
    assert camera.closed


def test_a_silent_camera_is_given_up(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_camera: Callable, capsys: pytest.CaptureFixture
) -> None:
    fake_camera()
    monkeypatch.setattr(run, "_SILENCE", 0.3)
    monkeypatch.setattr(run, "_GLANCE", 0.05)
    wake = Event()

    def frames(self: source.FrameSource, *, every: int) -> Iterator[source.Frame]:
        wake.wait(0.6)
        yield from ()

    monkeypatch.setattr(source.FrameSource, "frames", frames)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        predict(model, "camera:0", "--out", tmp_path)
    assert "camera:0: no frame for" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_each_system_has_its_cameras(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = {
        ("linux", "camera:2"): ("/dev/video2", "v4l2"),
        ("linux", "camera:/dev/video0"): ("/dev/video0", "v4l2"),
        ("darwin", "camera:0"): ("0", "avfoundation"),
        ("win32", "camera:USB Camera"): ("video=USB Camera", "dshow"),
    }
    for (system, name), expected in names.items():
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", system)
            camera = camera_input(name)
            assert camera
            assert (camera.file, camera.format) == expected
    assert camera_input("clip.mp4") is None
    assert "camera:99: the camera cannot be opened" in refused(capsys, "predict", model, "camera:99", "--out", tmp_path)
