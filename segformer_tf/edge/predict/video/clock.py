"""Timestamps of a video's frames that always rise, whatever the stream says."""

from __future__ import annotations

from fractions import Fraction

_FINEST = 90_000  # ticks a second, the clock of MPEG
_LONGEST = 3600  # seconds between two frames; more is a break in the clock
_MOST_RATE = 1000
_DEFAULT_RATE = Fraction(25)


class Clock:
    """Units of time of a video, and the times of its frames in them.

    Args:
        time_base: seconds per unit of the stream's timestamps, if known.
        rate: frames per second on the average, if known.

    Attributes:
        base: seconds per tick: the stream's own, unless that is finer than 1/90,000.
        rate: frames per second; 25 if not known.
        interval: ticks between two frames at this rate.
    """

    def __init__(self, time_base: Fraction | None, rate: Fraction | None) -> None:
        self._scale = time_base if time_base and 0 < time_base <= 1 else Fraction(1, _FINEST)
        self.base = self._scale if self._scale.denominator <= _FINEST else Fraction(1, _FINEST)
        known = rate is not None and 0 < rate <= _MOST_RATE
        self.rate = rate.limit_denominator(10_000) if known and rate else _DEFAULT_RATE
        self.interval = max(1, round(1 / (self.rate * self.base)))
        self._shift: int | None = None
        self._last = -self.interval

    def ticks(self, timestamp: int | None) -> int:
        """Ticks from the first frame to this one, always more than the last.

        A frame without a timestamp, one that goes back or one that is an hour late follows at the frame rate, and the
        clock goes on from there.
        """
        expected = self._last + self.interval
        if timestamp is None:
            self._last = expected
            return expected
        own = round(timestamp * self._scale / self.base)
        if self._shift is None:
            self._shift = -own
        if not 0 < own + self._shift - self._last <= _LONGEST / self.base:
            self._shift = expected - own
        self._last = own + self._shift
        return self._last
