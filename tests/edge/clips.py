"""Clips that are written and read for tests of videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from segformer_tf.cli import main
from segformer_tf.image import fit_image

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


def refused_lines(capsys: pytest.CaptureFixture, *arguments: object) -> list[str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict(*arguments)
    assert stop.value.code == 1
    return capsys.readouterr().err.splitlines()
