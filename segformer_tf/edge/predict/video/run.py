"""Segments videos and cameras: decoding, network and encoding side by side, with few frames between them."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segformer_tf.edge.predict.video.camera import CAMERA
from segformer_tf.edge.predict.video.channel import Channel, ahead, behind
from segformer_tf.edge.predict.video.options import VideoOptions
from segformer_tf.edge.predict.video.record import Record
from segformer_tf.edge.predict.video.source import Frame, FrameSource, open_source
from segformer_tf.edge.predict.video.writer import MaskVideo, OverlayVideo
from segformer_tf.edge.result import Result
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.edge.tflite.model import answer_to_mask
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.overlay import overlay
from segformer_tf.terminal import plain_console

_WAITING = 2  # frames between two stages
_SILENCE = 10.0  # seconds without a frame after which a camera is given up
_GLANCE = 0.2  # seconds between two looks at whether to stop


def file_like(path: Path) -> Path:
    """The path, or ``camera_0`` for ``camera:0``, whose results take its name."""
    name = str(path)
    return Path(re.sub(r"\W+", "_", name).strip("_")) if name.startswith(CAMERA) else path


def output_paths(out: Path, name: str, options: VideoOptions) -> dict[str, Path]:
    """The files that are written of a video, by what they show."""
    paths = {"overlay": out / f"{name}_overlay.mp4", "mask": out / f"{name}_mask.mkv"}
    return {kind: path for kind, path in paths.items() if options.save in (kind, "both")}


def predict_videos(segmenter: Segmenter, videos: Mapping[str, Path], out: Path, options: VideoOptions) -> None:
    """Write overlay and mask videos of each, and ``predictions.json``, to the folder `out`.

    Ctrl-C ends a video after the frame in hand; what is there is kept, as a whole file.

    Args:
        segmenter: the model.
        videos: video files and cameras by the name of their results.
        out: an existing folder.
        options: checked ones.

    Raises:
        InputError: videos that are not whole or cannot be read; what can be decoded of them and of the others is
            written first.
        KeyboardInterrupt: Ctrl-C before the end of a file; for a camera that is the end.
        SystemExit: SIGTERM likewise.
    """
    results = {path.resolve() for name in videos for path in output_paths(out, name, options).values()}
    if both := [path for path in videos.values() if path.resolve() in results]:
        raise InputError(f"{both[0]}: would be replaced by results; give another folder by --out")
    console = plain_console()
    records: dict[str, Any] = {}
    errors: list[str] = []
    cut = lossy = False
    columns = (
        *(TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}")),
        TimeRemainingColumn(),
    )
    with stop_signals() as stop, Progress(*columns, console=console) as progress:
        for name, path in videos.items():
            try:
                source = open_source(path)
                records[str(path)] = _predict(
                    segmenter, source, output_paths(out, name, options), options, progress, stop
                )
                errors += source.losses
                lossy |= bool(source.losses)
                cut = bool(stop) and not source.live
            except InputError as error:
                errors.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            if stop:
                break
    if records:
        with atomic(out / "predictions.json") as part:
            part.write_text(json.dumps(records, indent=1), "utf-8")
    for video, record in records.items():
        rate, p90 = record["segmented_per_second"], record["latency_ms"]["p90"]
        console.print(
            f"{video}: {record['frames']} frames, {rate:.1f} per second, 90 % of them within {p90:.0f} ms -> {out}"
        )
    if errors:
        raise InputError("\n".join([*errors, *["what could be decoded is kept"] * lossy]))
    if cut:
        print("stopped; the frames until then are kept", file=sys.stderr)
        if stop[0] == signal.SIGTERM:
            sys.exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


def _predict(
    segmenter: Segmenter,
    source: FrameSource,
    paths: Mapping[str, Path],
    options: VideoOptions,
    progress: Progress,
    stop: list[int],
) -> dict[str, Any]:
    """Segment one video; returns its record. Raises InputError if it has no frame at all."""
    total = options.count(source.total, float(source.clock.rate))
    task = progress.add_task("", total=total, figures="")
    record, average = Record(segmenter.labels), segmenter.moving_average(options.smooth)
    noted = 0
    with ExitStack() as stack:
        parts = {kind: stack.enter_context(atomic(path)) for kind, path in paths.items()}
        files = _Files(parts, paths, source, options.every)
        with (
            behind(files.add, _WAITING) as encoder,
            ahead(source.frames(every=options.every), 1 if source.live else _WAITING, newest=source.live) as decoder,
        ):
            for frame in _until(decoder, source, options, stop):
                since = frame.decoded if source.live else perf_counter()
                result = segmenter.smoothed(frame.pixels, average)
                plain = None
                if options.smooth and average.latest is not None:
                    plain = answer_to_mask(average.latest, (result.mask.shape[0], result.mask.shape[1]))
                record.add(result, since, plain)
                if not encoder.put((frame.ticks, result)):
                    break
                for note in source.notes[noted:]:
                    print(note, file=sys.stderr)
                    noted += 1
                figures = f"{record.rate:.1f} fps, {record.latency:.0f} ms"
                progress.update(task, completed=record.frames, figures=figures)
                if record.frames == options.frames:
                    break
        files.close()
        if not record.frames:
            raise InputError("; ".join(source.losses) or "no frame in it could be decoded")
    progress.update(task, total=record.frames)
    summary = record.summary()
    summary["fps"] = round(float(source.clock.rate / options.every), 3)
    if source.live:
        summary["dropped"] = decoder.dropped
    return summary


def _until(decoder: Channel[Frame], source: FrameSource, options: VideoOptions, stop: list[int]) -> Iterator[Frame]:
    """Frames until the end of the video, `options.seconds`, or a signal."""
    silence, begun = 0.0, False
    while not stop:
        try:
            frame = decoder.get(_GLANCE)
        except InputError as error:
            if not begun:
                raise
            source.losses.append(str(error))
            return
        except TimeoutError:
            silence += _GLANCE
            if source.live and silence > _SILENCE:
                source.losses.append(f"{source.name}: no frame for {_SILENCE:.0f} seconds")
                return
            continue
        if frame is None or (options.seconds and frame.ticks * source.clock.base >= options.seconds):
            return
        silence, begun = 0.0, True
        yield frame


class _Files:
    """The videos that are written of one source."""

    def __init__(self, parts: Mapping[str, Path], paths: Mapping[str, Path], source: FrameSource, every: int) -> None:
        rate = source.clock.rate / every
        self._overlay = OverlayVideo(parts[o], source, rate, name=paths[o]) if (o := "overlay") in parts else None
        self._mask = MaskVideo(parts[m], source, rate, name=paths[m]) if (m := "mask") in parts else None

    def add(self, item: tuple[int, Result]) -> None:
        ticks, result = item
        if self._overlay:
            self._overlay.add(overlay(result.image, result.mask, result.labels), ticks)
        if self._mask:
            self._mask.add(result.mask, ticks)

    def close(self) -> None:
        for file in (self._overlay, self._mask):
            if file:
                file.close()


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM, instead of ending at once; a second one ends as usual."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.getsignal(n) or signal.SIG_DFL for n in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
