"""Videos that are cut off, damaged or no videos at all: what is there is kept, the rest refused in a line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from segformer_tf.edge.predict.video import source
from segformer_tf.edge.predict.video.clock import Clock
from segformer_tf.errors import InputError
from tests.edge.clips import frames_of, predict, read_clip, record_of, refused_lines, write_clip
from tests.helpers import refused


@pytest.fixture
def model(tiny_files: dict[str, Path]) -> Path:
    return tiny_files["fp32"]


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
    for option in ("--slide", "--confidence"):
        assert f"{option} is for images" in refused(capsys, "predict", model, secret, option, "--out", out)
    assert "--ignore-id is for images" in refused(capsys, "predict", model, secret, "--ignore-id", 9, "--out", out)
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


def test_timestamps_always_rise() -> None:
    clock = Clock(Fraction(1, 1000), Fraction(10))
    assert [clock.ticks(t) for t in (7000, 7100, None, 7300, 7300, 7400)] == [0, 100, 200, 300, 400, 500]
    assert [clock.ticks(t) for t in (100, 200, 10**12, 10**12 + 50)] == [600, 700, 800, 850]
    fine = Clock(Fraction(1, 1_000_000), Fraction(30))
    assert fine.base == Fraction(1, 90_000)
    assert [fine.ticks(t) for t in (10, 33_343, 33_344)] == [0, 3000, 6000]
    for base, rate in ((None, None), (Fraction(0), Fraction(0)), (Fraction(5), Fraction(10**6))):
        assert Clock(base, rate).interval == 3600
