"""Videos and cameras: what is written equals what `Segmenter` gives for the frames, whatever the stream does."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import av
import numpy as np
import pytest

from segformer_tf.cli import main
from segformer_tf.edge import Segmenter, logits_to_mask
from segformer_tf.edge.predict.video import run, source
from segformer_tf.edge.predict.video.camera import CameraInput, camera_input
from segformer_tf.edge.predict.video.channel import Channel, ahead, behind
from segformer_tf.edge.predict.video.clock import Clock
from segformer_tf.edge.predict.video.record import Flicker
from segformer_tf.edge.smoothing import MovingAverage
from segformer_tf.errors import InputError
from segformer_tf.image import fit_image
from segformer_tf.overlay import overlay
from tests.helpers import refused

RATE = Fraction(10)


def frames_of(count: int, size: tuple[int, int] = (45, 67), seed: int = 0) -> list[np.ndarray]:
    """Smooth colors that drift, so that masks have regions and neighbors differ a little."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, 256, (2, 4, 5, 3)).astype(np.float32)
    steps = np.linspace(0, 1, max(count, 2))
    return [fit_image((ends[0] * (1 - t) + ends[1] * t).astype(np.uint8), size) for t in steps[:count]]


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "ffv1",
    pixel_format: str = "bgr0",
    times: Sequence[int] | None = None,
    turn: dict | None = None,
    **options: object,
) -> Path:
    """A clip of 10 frames per second, or with timestamps in milliseconds; lossless by default."""
    with av.open(str(path), "w", options=options.pop("container", {})) as file:
        stream = file.add_stream(codec, rate=RATE, options=options.pop("encoder", {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        unit = Fraction(1, 1000) if times else 1 / RATE
        stream.codec_context.time_base = unit
        if turn:
            stream.set_display_rotation(**turn)
        for key, value in options.items():
            setattr(stream.codec_context, key, value)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[i] if times else i, unit
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def read_clip(path: Path, kind: str = "gray") -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as file:
        pairs = [(frame.to_ndarray(format=kind), float(frame.time)) for frame in file.decode(video=0)]
    return [pixels for pixels, _ in pairs], [time for _, time in pairs]


def predict(*arguments: object) -> None:
    main(["predict", *map(str, arguments)])


def record_of(out: Path) -> dict:
    (record,) = json.loads((out / "predictions.json").read_text()).values()
    return record


@pytest.fixture
def model(tiny_files: dict[str, Path]) -> Path:
    return tiny_files["fp32"]


@pytest.fixture
def segmenter(model: Path) -> Segmenter:
    return Segmenter(model)


def test_masks_and_overlays_are_those_of_the_frames(model: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    frames = frames_of(5)  # of odd sides
    clip = write_clip(tmp_path / "clip.mkv", frames)
    predict(model, clip, "--out", tmp_path / "seen")
    results = [segmenter(frame) for frame in frames]
    masks, times = read_clip(tmp_path / "seen/clip_mask.mkv")
    np.testing.assert_array_equal(masks, [result.mask for result in results])
    assert len({mask.tobytes() for mask in masks}) == 5
    np.testing.assert_allclose(times, np.arange(5) / 10, atol=1e-9)
    overlays, times = read_clip(tmp_path / "seen/clip_overlay.mp4", "rgb24")
    np.testing.assert_allclose(times, np.arange(5) / 10, atol=1e-9)
    for shown, result in zip(overlays, results, strict=True):
        assert shown.shape == (46, 68, 3)
        expected = overlay(result.image, result.mask, result.labels)
        assert np.abs(shown[:45, :67].astype(int) - expected).mean() < 6
        assert np.abs(shown[45].astype(int) - shown[44]).mean() < 4  # the added row
    record = record_of(tmp_path / "seen")
    pixels = np.bincount(np.ravel([result.mask for result in results]), minlength=6) / (5 * 45 * 67)
    assert {c["id"]: c["share"] for c in record["classes"]} == {
        i: pytest.approx(share, abs=1e-6) for i, share in enumerate(pixels) if share
    }
    changes = [(a.mask != b.mask).mean() for a, b in pairwise(results)]
    assert record["flicker"] == {"share": pytest.approx(np.mean(changes), abs=1e-6)}
    assert (record["frames"], record["fps"], record["height"], record["width"]) == (5, 10, 45, 67)
    assert 0 < record["latency_ms"]["p50"] <= record["latency_ms"]["p90"] <= record["latency_ms"]["p99"]
    assert not list((tmp_path / "seen").glob(".*"))
    with pytest.raises(SystemExit):  # nothing is replaced unasked
        predict(model, clip, "--out", tmp_path / "seen")
    (tmp_path / "clip_mask.mkv").write_bytes(b"mine")
    with pytest.raises(SystemExit):  # and an input never
        predict(model, clip, tmp_path / "clip_mask.mkv", "--out", tmp_path, "--overwrite")
    assert (tmp_path / "clip_mask.mkv").read_bytes() == b"mine"


def test_every_third_frame_of_a_variable_rate_keeps_its_time(model: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    frames, times = frames_of(8), [500, 533, 600, 610, 900, 1400, 1433, 1500]
    clip = write_clip(tmp_path / "clip.mkv", frames, times=times)
    predict(model, clip, "--out", tmp_path / "seen", "--every", 3)
    masks, kept = read_clip(tmp_path / "seen/clip_mask.mkv")
    np.testing.assert_array_equal(masks, [segmenter(frame).mask for frame in frames[::3]])
    np.testing.assert_allclose(kept, [0, 0.11, 0.933], atol=1e-9)
    np.testing.assert_allclose(read_clip(tmp_path / "seen/clip_overlay.mp4")[1], [0, 0.11, 0.933], atol=1e-4)


def test_frames_and_seconds_end_early_and_save_chooses(model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames_of(8))
    for option, kept in {("--frames", 3): 3, ("--seconds", 0.45): 5}.items():
        out = tmp_path / option[0]
        predict(model, clip, "--out", out, *option, "--save", "mask")
        assert sorted(path.name for path in out.iterdir()) == ["clip_mask.mkv", "predictions.json"]
        assert len(read_clip(out / "clip_mask.mkv")[0]) == record_of(out)["frames"] == kept


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_phones_turn_and_mirror(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    (frame,) = frames_of(1, (46, 68))
    turn = {"degrees": degrees, "hflip": mirrored}
    clip = write_clip(
        tmp_path / "clip.mp4", [frame] * 2, codec="libx264rgb", pixel_format="rgb24", turn=turn, encoder={"crf": "0"}
    )
    expected = np.rot90(frame, degrees // 90)  # counterclockwise, then mirrored
    expected = expected[:, ::-1] if mirrored else expected
    for seen in source.open_source(clip).frames():
        np.testing.assert_array_equal(seen.pixels, expected)


@pytest.mark.parametrize("degrees", [0, 90])
def test_pixels_that_are_not_square_stay_so(model: Path, tmp_path: Path, degrees: int) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", frames_of(2, (46, 68)), codec="libx264", pixel_format="yuv420p",
        turn={"degrees": degrees}, sample_aspect_ratio=Fraction(4, 3),
    )  # fmt: skip
    predict(model, clip, "--out", tmp_path / "seen")
    with av.open(str(tmp_path / "seen/clip_overlay.mp4")) as file:
        assert file.streams.video[0].sample_aspect_ratio == (Fraction(3, 4) if degrees else Fraction(4, 3))


def test_ten_bits_and_hdr_become_8_bit_rgb_and_it_is_said(tmp_path: Path) -> None:
    (frame,) = frames_of(1, (64, 96))
    clip = write_clip(
        tmp_path / "clip.mkv", [frame], codec="libx265", pixel_format="yuv420p10le", color_trc=16, color_range=1,
        encoder={"x265-params": "log-level=none:crf=4:transfer=16"},
    )  # fmt: skip
    opened = source.open_source(clip)
    (seen,) = opened.frames()
    assert seen.pixels.dtype == np.uint8
    assert np.abs(seen.pixels.astype(int) - frame).mean() < 4
    assert "HDR (PQ)" in opened.notes[0]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])
def test_what_is_there_of_a_truncated_video_is_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    frames = frames_of(30, (96, 128))
    clip = write_clip(
        tmp_path / f"clip.{kind}", frames, codec="mpeg4", pixel_format="yuv420p", bit_rate=4_000_000,
        container={"movflags": "faststart"} if kind == "mp4" else {},
    )  # fmt: skip
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 2 // 3])
    if kind == "ts":  # a broadcast, which has no end to miss
        predict(model, clip, "--out", tmp_path / "seen", "--save", "mask")
    else:
        lines = refused_lines(capsys, model, clip, "--out", tmp_path / "seen", "--save", "mask")
        assert any(f"{clip}: {word}" in line for line in lines for word in ("breaks off", "cut off", "1 damaged"))
        assert lines[-1] == "what could be decoded is kept"
    masks, _ = read_clip(tmp_path / "seen/clip_mask.mkv")
    assert 10 < len(masks) == record_of(tmp_path / "seen")["frames"] < 30
    clip.write_bytes(whole)
    predict(model, clip, "--out", tmp_path / "again", "--save", "mask")  # and a whole one is not called broken
    assert len(read_clip(tmp_path / "again/clip_mask.mkv")[0]) == 30


def refused_lines(capsys: pytest.CaptureFixture, *arguments: object) -> list[str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict(*arguments)
    assert stop.value.code == 1
    return capsys.readouterr().err.splitlines()


def test_a_damaged_frame_is_counted_and_the_others_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", frames_of(6, (96, 128)), codec="libx264", pixel_format="yuv420p", encoder={"g": "1"}
    )
    with av.open(str(clip)) as file:
        place, size = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size][3]
    content = bytearray(clip.read_bytes())
    content[place : place + size] = bytes(size)
    clip.write_bytes(content)
    lines = refused_lines(capsys, model, clip, "--out", tmp_path / "seen")
    assert "1 damaged frame" in lines[0]
    early = refused_lines(capsys, model, clip, "--out", tmp_path / "early", "--frames", 4)
    assert "1 damaged frame" in early[0]
    _, times = read_clip(tmp_path / "seen/clip_mask.mkv")
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.4, 0.5], atol=1e-9)


def test_what_is_no_video_is_refused_in_a_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    secret = write_clip(tmp_path / "secret.mkv", frames_of(2))
    texts = {
        "text.mp4": "hello\n" * 100,
        "list.mp4": f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "join.mp4": f"ffconcat version 1.0\nfile {secret.name}\n",
        "empty.mp4": "",
    }
    out = tmp_path / "seen"
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert f"{name}: not a readable video" in refused(capsys, "predict", model, tmp_path / name, "--out", out)
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    line = refused(capsys, "predict", model, tmp_path / "sound.mp4", "--out", out)
    assert line.endswith("there is no video in it. Received: audio")
    assert "no such video" in refused(capsys, "predict", model, tmp_path / "none.mp4", "--out", out)
    photo = tmp_path / "a.png"
    photo.touch()
    assert "predict images and videos apart" in refused(capsys, "predict", model, secret, photo, "--out", out)
    assert "--bits is for images" in refused(capsys, "predict", model, secret, "--bits", 12, "--out", out)
    assert "--smooth is for videos" in refused(capsys, "predict", model, photo, "--smooth", 0.5, "--out", out)
    for option in (("--smooth", 1), ("--every", 0), ("--frames", 0), ("--seconds", -1)):
        assert option[0] in refused(capsys, "predict", model, secret, *option, "--out", out)
    assert not list(out.glob("*"))


def test_frames_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_MOST_PIXELS", 3000)
    lossless = write_clip(tmp_path / "clip.mkv", frames_of(2))
    with pytest.raises(InputError, match=r"clip\.mkv: expected frames of 3,000 pixels at most\. Received: an unknown"):
        source.open_source(lossless)
    compressed = write_clip(tmp_path / "clip.mp4", frames_of(2, (46, 68)), codec="libx264", pixel_format="yuv420p")
    with pytest.raises(InputError, match="Received: 68x46"):
        source.open_source(compressed)


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    small, large = frames_of(3, (32, 48)), frames_of(3, (64, 80), seed=1)
    parts = []
    for name, frames in {"a.ts": small, "b.ts": large}.items():
        clip = write_clip(tmp_path / name, frames, codec="libx264", pixel_format="yuv420p")
        parts.append(clip.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    opened = source.open_source(tmp_path / "both.ts")
    seen = list(opened.frames())
    assert len(seen) == 6
    assert {frame.pixels.shape for frame in seen} == {(32, 48, 3)}
    assert np.diff([frame.ticks for frame in seen]).min() > 0  # though the second clock begins anew
    assert "frame 3 has 80x64 pixels; from there scaled to 48x32" in opened.notes[0]


def test_smoothing_is_a_plain_moving_average(model: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frames = [np.clip(f + rng.normal(0, 60, f.shape), 0, 255).astype(np.uint8) for f in frames_of(6)]
    logits = [segmenter.logits(fit_image(frame, segmenter.size)).astype(np.float64) for frame in frames]
    means = logits[:1]
    for each in logits[1:]:
        means.append(0.8 * means[-1] + (1 - 0.8) * each)
    expected = [
        logits_to_mask(mean.astype(np.float32), frame.shape[:2]) for mean, frame in zip(means, frames, strict=True)
    ]
    masks = [result.mask for result in segmenter.stream(iter(frames), smooth=0.8)]
    plain = [result.mask for result in segmenter.stream(frames)]
    assert np.mean([a == b for a, b in zip(masks, expected, strict=True)]) > 0.9999
    np.testing.assert_array_equal(plain, [segmenter(frame).mask for frame in frames])
    assert not np.array_equal(masks, plain)
    predict(model, write_clip(tmp_path / "clip.mkv", frames), "--out", tmp_path / "seen", "--smooth", 0.8)
    np.testing.assert_array_equal(read_clip(tmp_path / "seen/clip_mask.mkv")[0], masks)
    flicker = record_of(tmp_path / "seen")["flicker"]
    for share, stack in ((flicker["share"], masks), (flicker["unsmoothed"], plain)):
        changes = [(a != b).mean() for a, b in pairwise(stack)]
        assert share == pytest.approx(np.mean(changes), abs=1e-6)
    assert flicker["share"] < flicker["unsmoothed"]


def test_an_average_that_is_not_finite_begins_anew() -> None:
    average, ones = MovingAverage(0.5), np.ones((1, 1, 2), np.float32)
    assert np.isnan(average(ones * np.nan)).all()
    np.testing.assert_array_equal(average(ones), ones)
    np.testing.assert_array_equal(average(3 * ones), 2 * ones)
    assert Flicker().share is None


def test_stream_takes_one_frame_at_a_time_and_refuses_at_once(segmenter: Segmenter) -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for i, frame in enumerate(frames_of(4)):
            taken.append(i)
            yield frame

    results = segmenter.stream(camera())
    assert not taken
    next(results)
    assert taken == [0]
    with pytest.raises(InputError, match=r"0 to below 1\. Received: 1"):
        segmenter.stream([], smooth=1)
    with pytest.raises(InputError, match="expected frames as RGB arrays"):
        next(segmenter.stream(["photo.jpg"]))  # type: ignore[list-item]


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


def test_timestamps_always_rise() -> None:
    clock = Clock(Fraction(1, 1000), Fraction(10))
    assert [clock.ticks(t) for t in (7000, 7100, None, 7300, 7300, 7400)] == [0, 100, 200, 300, 400, 500]
    assert [clock.ticks(t) for t in (100, 200, 10**12, 10**12 + 50)] == [600, 700, 800, 850]
    fine = Clock(Fraction(1, 1_000_000), Fraction(30))
    assert fine.base == Fraction(1, 90_000)
    assert [fine.ticks(t) for t in (10, 33_343, 33_344)] == [0, 3000, 6000]
    for base, rate in ((None, None), (Fraction(0), Fraction(0)), (Fraction(5), Fraction(10**6))):
        assert Clock(base, rate).interval == 3600


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
        predict(model, clip, clip.with_name("other.mkv"), "--out", tmp_path / "seen")
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
    monkeypatch: pytest.MonkeyPatch, model: Path, capsys: pytest.CaptureFixture
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
    assert "camera:99: the camera cannot be opened" in refused(capsys, "predict", model, "camera:99")


def test_a_full_disk_is_a_line_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames_of(4))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segformer_tf.edge.predict.video.writer.VideoFile._open", full)
    lines = refused_lines(capsys, model, clip, "--out", tmp_path / "seen")
    assert lines[-1].endswith("clip_overlay.mp4: cannot be written (No space left on device)")
    assert not list((tmp_path / "seen").iterdir())
