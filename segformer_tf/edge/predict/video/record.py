"""What `predictions.json` says of a video: shares of the classes, flicker, and how fast it went."""

from __future__ import annotations

from collections import Counter, deque
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.edge.result import Result
from segformer_tf.labels import Labels

_RECENT = 10_000  # frames whose latencies are kept: a camera may run for days


class Flicker:
    """The share of pixels whose class differs from the frame before, mean over all pairs of consecutive frames.

    Moving objects and a moving camera change classes too, so only values of the same video can be compared.
    """

    def __init__(self) -> None:
        self._sum, self._pairs = 0.0, 0
        self._before: NDArray[np.uint8] | None = None

    def add(self, mask: NDArray[np.uint8]) -> None:
        """Take in the (H, W) mask of the next frame, of the same size."""
        if self._before is not None:
            self._sum += float(np.count_nonzero(mask != self._before) / mask.size)
            self._pairs += 1
        self._before = mask

    @property
    def share(self) -> float | None:
        """0..1; None for less than two frames."""
        return round(self._sum / self._pairs, 6) if self._pairs else None


class Record:
    """Figures of the frames of a video, in a memory that does not grow with it.

    Attributes:
        frames: how many.
        latency: milliseconds to the mask of the latest frame: in a file since the network took it in hand; from a
            camera since it was decoded, waiting included.
    """

    def __init__(self, labels: Labels) -> None:
        self.frames = 0
        self.latency = 0.0
        self._labels = labels
        self._size = 0, 0
        self._counts = np.zeros(256, np.int64)
        self._flicker, self._plain_flicker = Flicker(), Flicker()
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._speed: Counter[str] = Counter()
        self._begin = perf_counter()

    def add(self, result: Result, since: float, plain: NDArray[np.uint8] | None = None) -> None:
        """Take in a frame: its result, `perf_counter` where its latency begins, and its mask without smoothing."""
        self.frames += 1
        self._size = result.mask.shape[0], result.mask.shape[1]
        self._counts += np.bincount(result.mask.ravel(), minlength=256)
        self._flicker.add(result.mask)
        if plain is not None:
            self._plain_flicker.add(plain)
        self.latency = (perf_counter() - since) * 1e3
        self._latencies.append(self.latency)
        self._speed.update(result.speed)

    @property
    def rate(self) -> float:
        """Frames per second of wall time so far."""
        return self.frames / (perf_counter() - self._begin)

    def summary(self) -> dict[str, Any]:
        """All figures, in plain JSON types; at least one frame was added."""
        names, pixels = self._labels.names, int(self._counts.sum())
        ids = [int(i) for i in np.argsort(-self._counts, kind="stable") if self._counts[i]]
        flicker = {"share": self._flicker.share}
        if self._plain_flicker.share is not None:
            flicker["unsmoothed"] = self._plain_flicker.share
        p50, p90, p99 = np.percentile(self._latencies, (50, 90, 99)).round(3).tolist()
        return {
            "height": self._size[0],
            "width": self._size[1],
            "frames": self.frames,
            "classes": [{"id": i, "name": names[i], "share": round(self._counts[i] / pixels, 6)} for i in ids],
            "flicker": flicker,
            "segmented_per_second": round(self.rate, 3),
            "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
            "speed_ms": {stage: round(total / self.frames, 3) for stage, total in self._speed.items()},
        }
