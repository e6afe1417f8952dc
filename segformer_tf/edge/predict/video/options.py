"""Options of `predict` for videos and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from segformer_tf.edge.smoothing import MovingAverage
from segformer_tf.errors import InputError

Save = Literal["both", "overlay", "mask"]


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which frames are segmented, and what is written of them."""

    save: Save = "both"
    """Of a video: write NAME_overlay.mp4 (H.264), NAME_mask.mkv (lossless, gray value = class id), or both."""

    every: int = 1
    """Of a video: segment and write every Nth frame only. The results last as long as the video."""

    smooth: float = 0
    """Of a video: weight of earlier frames in the scores, 0 to below 1, against flicker, such as 0.8. Fast objects
    smear."""

    frames: int | None = None
    """Of a video or camera: stop after so many written frames."""

    seconds: float | None = None
    """Of a video or camera: stop after so many seconds of it. A camera goes on until then, or until Ctrl-C."""

    def check(self) -> None:
        """Raises InputError for values out of range."""
        for name, value in (("--every", self.every), ("--frames", self.frames)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more. Received: {value}")
        if self.seconds is not None and not 0 < self.seconds < inf:
            raise InputError(f"--seconds must be above 0. Received: {self.seconds:g}")
        try:
            MovingAverage(self.smooth)
        except InputError as error:
            raise InputError(f"--smooth: {error}") from None

    def count(self, total: int | None, rate: float) -> int | None:
        """Frames that will be written of `total` at `rate` per second, or None if that is open."""
        counts = [] if total is None else [-(-total // self.every)]
        counts += [] if self.frames is None else [self.frames]
        counts += [] if self.seconds is None else [max(1, round(self.seconds * rate / self.every))]
        return min(counts, default=None)
