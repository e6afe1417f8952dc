"""Videos: what is written equals what `Segmenter` gives for the frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from segformer_tf.edge import Segmenter, logits_to_mask
from segformer_tf.edge.predict.video import source
from segformer_tf.edge.predict.video.record import Flicker
from segformer_tf.edge.smoothing import MovingAverage
from segformer_tf.errors import InputError
from segformer_tf.image import fit_image
from segformer_tf.overlay import overlay
from tests.edge.clips import frames_of, predict, read_clip, record_of, write_clip


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
