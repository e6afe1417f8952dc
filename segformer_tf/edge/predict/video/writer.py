"""Writes overlay and mask videos, with the timestamps of the frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from segformer_tf.edge.predict.video.source import FrameSource, first_line_of
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels

_BT709 = 1  # of ITU-T H.273: matrix, primaries and transfer; what players assume of HD
# No frame waits for more than ten others, which bounds memory; none is shown out of order.
_H264 = {"preset": "veryfast", "crf": "20", "x264-params": "rc-lookahead=10:bframes=0"}
_FFV1 = {"level": "3", "g": "1", "slicecrc": "1"}  # each frame on its own, with a checksum


class VideoFile:
    """A video file of one stream that is being written; a context manager that ends the file.

    Args:
        path: of the file.
        source: of the frames, whose clock and shape of pixels the file has.
        rate: frames per second, on the average.
        name: of the file, for messages.

    Raises:
        InputError: an encoder that is missing or refuses the frames, or a full disk; also from the methods.
    """

    codec = container = pixel_format = ""
    options: dict[str, str] = {}  # noqa: RUF012  constants of the classes below

    def __init__(self, path: Path, source: FrameSource, rate: Fraction, *, name: Path) -> None:
        self._name = name
        self._path, self._source, self._rate = path, source, rate
        self._file: Any = None
        self._stream: Any = None

    def _open(self, width: int, height: int) -> None:
        if self.codec not in av.codecs_available:
            raise InputError(f"this PyAV has no {self.codec}, for {self._name.name}; pip install av brings one")
        self._file = av.open(str(self._path), "w", format=self.container)
        self._stream = self._file.add_stream(self.codec, rate=self._rate, options=self.options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, self.pixel_format
        context = self._stream.codec_context
        context.time_base = self._source.clock.base
        context.sample_aspect_ratio = self._source.aspect
        context.thread_count = 1  # the other cores are the network's
        self._tag(context)

    def _tag(self, context: Any) -> None:
        """State colors in the stream."""

    def _write(self, frame: VideoFrame, ticks: int) -> None:
        try:
            if self._file is None:
                self._open(frame.width, frame.height)
            frame.pts, frame.time_base = ticks, self._source.clock.base
            self._file.mux(self._stream.encode(frame))
        except (FFmpegError, OSError) as error:
            raise InputError(f"{self._name}: cannot be written ({first_line_of(error)})") from None

    def close(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        if self._file is None:
            return
        try:
            self._file.mux(self._stream.encode(None))
            self._file.close()
        except (FFmpegError, OSError) as error:
            raise InputError(f"{self._name}: cannot be written ({first_line_of(error)})") from None


class OverlayVideo(VideoFile):
    """H.264 in MP4, which everything plays; a side of odd length gets one more row or column, a copy of its last."""

    codec, container, pixel_format, options = "libx264", "mp4", "yuv420p", _H264

    def add(self, picture: Pixels, ticks: int) -> None:
        """Write an (H, W, 3) uint8 RGB picture."""
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(
            format=self.pixel_format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        self._write(frame, ticks)

    def _tag(self, context: Any) -> None:
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = int(ColorRange.MPEG)


class MaskVideo(VideoFile):
    """FFV1 in Matroska: lossless, gray value = class id."""

    codec, container, pixel_format, options = "ffv1", "matroska", "gray", _FFV1

    def add(self, mask: NDArray[np.uint8], ticks: int) -> None:
        """Write an (H, W) uint8 mask."""
        self._write(VideoFrame.from_ndarray(mask, format="gray"), ticks)
