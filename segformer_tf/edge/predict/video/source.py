"""Frames of a video file or a camera, upright RGB with timestamps; whatever the stream holds, never more than one."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import BlockingIOError as NothingYet
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from segformer_tf.edge.predict.video.camera import camera_input
from segformer_tf.edge.predict.video.clock import Clock
from segformer_tf.edge.predict.video.upright import is_sideways, turn_upright
from segformer_tf.errors import InputError, first_line
from segformer_tf.image import Pixels, fit_image

# Containers that a video file may have. Others open further files that they name: playlists, lists of files to join.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
_MOST_PIXELS = 40_000_000  # of a frame: 8K has 35 million
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273
_MISSING = 0.5  # seconds by which a video may end before its stated end


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        ticks: time since the first frame, in units of the source's `Clock.base`.
        decoded: `time.perf_counter` when it was decoded.
    """

    pixels: Pixels
    ticks: int
    decoded: float


class FrameSource:
    """The best video stream of a file or camera.

    Args:
        name: of the file or camera, for messages.
        container: of PyAV; closed when `frames` ends.
        live: whether it is a camera.

    Attributes:
        name, live: as given.
        clock: its frame rate and units of time.
        aspect: width of a pixel by its height, once a frame was read.
        total: frames, or None if the file does not say.
        notes: what to tell the user of its frames so far.
        losses: what could not be decoded so far.

    Raises:
        InputError: no video in it, or frames that are too large.
    """

    def __init__(self, name: str, container: InputContainer, *, live: bool) -> None:
        self.name, self.live, self._container = name, live, container
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise InputError(f"{name}: there is no video in it. Received: {kinds}")
        best = container.streams.best("video")
        self._stream: VideoStream = best if best in streams else streams[0]
        if (context := self._stream.codec_context) is None:
            raise InputError(f"{name}: its video is in a format for which there is no decoder")
        self._check_size(context.width, context.height)
        context.options = {"max_pixels": str(_MOST_PIXELS)}  # before a frame is decoded that changes its size
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.clock = Clock(self._stream.time_base, rate)
        length = self._length()
        self.total = self._stream.frames or (round(length * self.clock.rate) if length else None)
        self.notes: list[str] = []
        self.losses: list[str] = []
        self.aspect = Fraction(1)
        self._size: tuple[int, int] | None = None  # of the first frame, height and width

    def frames(self, *, every: int = 1) -> Generator[Frame, None, None]:
        """Every Nth frame, at the size of the first one.

        Damaged parts are left out, and `losses` says so.

        Raises:
            InputError: a frame that is too large, or turned by a part of a right angle.
        """
        end = 0
        try:
            with closing(self._decode()) as pictures:
                for number, picture in enumerate(pictures):
                    ticks = self.clock.ticks(picture.pts)
                    end = ticks + 1
                    if number % every == 0:
                        yield Frame(self._pixels(picture, number), ticks, time.perf_counter())
        finally:
            self._container.close()
        self._note_end(end and end - 1 + self.clock.interval)

    def _decode(self) -> Generator[VideoFrame, None, None]:
        packets = pictures = refused = 0
        try:
            while True:
                try:
                    for packet in self._container.demux(self._stream):
                        packets += packet.is_corrupt
                        try:
                            decoded = packet.decode()
                        except FFmpegError:
                            refused += 1
                            continue
                        for picture in decoded:
                            pictures += picture.is_corrupt
                            yield picture
                    return
                except NothingYet:  # a camera between two frames, on macOS
                    time.sleep(0.002)
                except (FFmpegError, OSError) as error:
                    self.losses.append(f"{self.name}: breaks off ({first_line_of(error)})")
                    with suppress(FFmpegError):
                        yield from self._stream.codec_context.decode(None)
                    return
        finally:
            damaged = refused + max(packets, pictures)  # a damaged packet gives a damaged picture, or none
            if damaged and not self.live:
                self.losses.append(f"{self.name}: {damaged} damaged frame{'s' * (damaged != 1)}")

    def _pixels(self, picture: VideoFrame, number: int) -> Pixels:
        self._check_size(picture.width, picture.height)
        if self._size is None and (kind := _HDR.get(int(picture.color_trc))):
            self.notes.append(
                f"{self.name}: HDR ({kind}), which is used without tone mapping: paler than what the model has seen"
            )
        pixels: Pixels = np.asarray(picture.reformat(format="rgb24", threads=1).to_ndarray(), np.uint8)
        try:
            pixels = turn_upright(pixels, picture)
            if self._size is None and (aspect := self._stream.sample_aspect_ratio):
                self.aspect = 1 / aspect if is_sideways(picture) else aspect
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        size = pixels.shape[0], pixels.shape[1]
        self._size = self._size or size
        if size != self._size:
            if len(self.notes) < 4:
                old, new = (f"{width}x{height}" for height, width in (self._size, size))
                self.notes.append(f"{self.name}: frame {number} has {new} pixels; from there scaled to {old}")
            pixels = fit_image(pixels, self._size)
        return pixels

    def _check_size(self, width: int, height: int) -> None:
        if not 0 < width * height <= _MOST_PIXELS:
            size = f"{width}x{height}" if width else "an unknown size, or a larger one"
            raise InputError(f"{self.name}: expected frames of {_MOST_PIXELS:,} pixels at most. Received: {size}")

    def _length(self) -> float | None:
        """Seconds that the stream should last, if the file says so."""
        stream = self._stream
        if self.live:
            return None
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        with suppress(ValueError):  # of Matroska, "00:00:04.000000000"
            hours, minutes, seconds = map(float, stream.metadata.get("DURATION", "").split(":"))
            return hours * 3600 + minutes * 60 + seconds
        alone = len(self._container.streams) == 1  # else it may be the length of the sound
        return self._container.duration / av.time_base if alone and self._container.duration else None

    def _note_end(self, ticks: int) -> None:
        """Note an end before the stated one; `ticks` is the end of the last frame."""
        length, lasted = self._length(), float(ticks * self.clock.base)
        if length and lasted < length - _MISSING and not any("breaks off" in loss for loss in self.losses):
            self.losses.append(f"{self.name}: cut off: {lasted:.1f} of {length:.1f} seconds are there")


def open_source(path: Path) -> FrameSource:
    """Open a video file, or a camera named ``camera:DEVICE``.

    Raises:
        InputError: no such file or camera, or one that holds no video that can be read.
    """
    name = str(path)
    if camera := camera_input(name):
        try:
            container = av.open(camera.file, format=camera.format, options=camera.options)
        except (FFmpegError, OSError) as error:
            raise InputError(f"{name}: the camera cannot be opened ({first_line_of(error)}){camera.hint}") from None
        return FrameSource(name, container, live=True)
    if not path.is_file():
        raise InputError(f"{name}: no such video")
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "max_pixels": str(_MOST_PIXELS)}
    try:
        container = av.open(f"file:{path.resolve()}", options=options, metadata_errors="replace")
    except (FFmpegError, OSError) as error:
        reason = first_line_of(error)
        raise InputError(f"{name}: not a readable video, or cut off before its index ({reason})") from None
    return FrameSource(name, container, live=False)


def first_line_of(error: BaseException) -> str:
    """The reason that FFmpeg gives, without number and file."""
    return getattr(error, "strerror", None) or first_line(error)
