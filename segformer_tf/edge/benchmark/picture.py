"""A scatter of labelled circles, drawn by Pillow alone: a device has no plotting library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, hypot, log10, sqrt

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT = 900, 600
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 70, 870, 500  # the frame
_FINE = 2  # drawn so many times larger, then reduced: smooth circles
_LARGEST = 26  # radius of the largest circle
_COLORS = ("#1b6ca8", "#d1641d", "#3a8a4d", "#7d4aa5")
_INK, _GRID = "#222222", "#dddddd"

_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """A circle: where (data units), its area's size (any unit, positive), its label, and the kind that colours it."""

    x: float
    y: float
    area: float
    label: str
    kind: str


@dataclass(frozen=True)
class Axis:
    """Data units on pixels.

    Attributes:
        low: at `start`.
        high: at `end`.
        step: between ticks; 0 is one of them, or would be.
        start: pixel.
        end: pixel.
    """

    low: float
    high: float
    step: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Axis:
        """Wide enough for the values, with room around them, from tick to tick."""
        low, high = min(values), max(values)
        room = 0.15 * (high - low) or 0.15 * abs(high) or 1.0
        step = _round_step((high - low + 2 * room) / 6)
        below = floor((low - room) / step) * step
        return cls(below if low < 0 else max(0.0, below), ceil((high + room) / step) * step, step, start, end)

    def pixel(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions in data units, and what to write there."""
        digits = max(0, -floor(log10(self.step) + 1e-9))
        count = round((self.high - self.low) / self.step)
        values = [self.low + i * self.step for i in range(count + 1)]
        return [(value, f"{value:.{digits}f}") for value in values]


def draw_points(points: Sequence[Point], *, x_title: str, y_title: str, note: str) -> Image.Image:
    """Circles over two axes, a label beside each, kinds in a legend above, a note below.

    Args:
        points: at least one.
        x_title: what the horizontal axis is.
        y_title: what the vertical axis is.
        note: small print.

    Returns:
        900x600 RGB.
    """
    canvas = _Canvas()
    x = Axis.over([point.x for point in points], _LEFT, _RIGHT)
    y = Axis.over([point.y for point in points], _BOTTOM, _TOP)
    for value, text in x.ticks():
        canvas.line((x.pixel(value), _TOP, x.pixel(value), _BOTTOM), _GRID)
        canvas.text((x.pixel(value), _BOTTOM + 8), text, anchor="ma")
    for value, text in y.ticks():
        canvas.line((_LEFT, y.pixel(value), _RIGHT, y.pixel(value)), _GRID)
        canvas.text((_LEFT - 8, y.pixel(value)), text, anchor="rm")
    canvas.line((_LEFT, _TOP, _LEFT, _BOTTOM), _INK)
    canvas.line((_LEFT, _BOTTOM, _RIGHT, _BOTTOM), _INK)
    canvas.text(((_LEFT + _RIGHT) / 2, _BOTTOM + 34), x_title, anchor="ma")
    canvas.text((_LEFT - 8, _TOP - 14), y_title, anchor="rd")
    canvas.text((_LEFT, _HEIGHT - 12), note, anchor="ld", size=13, room=_RIGHT - _LEFT)

    kinds = list(dict.fromkeys(point.kind for point in points))
    colors = {kind: _COLORS[i % len(_COLORS)] for i, kind in enumerate(kinds)}
    legend = float(_LEFT + 10)
    for kind in kinds:
        canvas.circle(legend + 7, _TOP - 34, 7, colors[kind])
        legend = canvas.text((legend + 20, _TOP - 34), kind, anchor="lm")[2] + 28

    largest = max(point.area for point in points)
    circles = [(x.pixel(p.x), y.pixel(p.y), max(3.0, _LARGEST * sqrt(p.area / largest))) for p in points]
    for (cx, cy, radius), point in sorted(zip(circles, points, strict=True), key=lambda pair: -pair[0][2]):
        canvas.circle(cx, cy, radius, colors[point.kind])
    for cx, cy, _ in circles:
        canvas.circle(cx, cy, 1.5, _INK)
    taken: list[_Box] = []
    for circle, point in zip(circles, points, strict=True):
        box = place_label(canvas.measure(point.label), circle, circles, taken)
        taken.append(box)
        canvas.pointer(circle, box)
        canvas.text((box[0], box[1]), point.label, anchor="la")
    return canvas.finish()


def place_label(
    size: tuple[float, float],
    circle: tuple[float, float, float],
    circles: Sequence[tuple[float, float, float]],
    taken: Sequence[_Box],
) -> _Box:
    """A box (left, top, right, bottom) for a label near its circle (x, y, radius), clear of circles and labels.

    Where there is no such place inside the frame, the nearest one that is inside.
    """
    spots = [box for box in _spots(size, circle) if _inside(box)]
    for box in spots:
        if not any(_meets_circle(box, other) for other in circles) and not any(_meet(box, other) for other in taken):
            return box
    return spots[0] if spots else next(_spots(size, circle))


def _spots(size: tuple[float, float], circle: tuple[float, float, float]) -> Iterator[_Box]:
    """Boxes around a circle, near ones first."""
    width, height = size
    x, y, radius = circle
    for away in range(4, 200, 8):
        for right, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            reach = (radius + away) / hypot(right, down)
            middle = x + right * (reach + width / 2), y + down * (reach + height / 2)
            left, top = middle[0] - width / 2, middle[1] - height / 2
            yield left, top, left + width, top + height


def _inside(box: _Box) -> bool:
    return box[0] > _LEFT and box[1] > _TOP and box[2] <= _RIGHT and box[3] < _BOTTOM


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _meets_circle(box: _Box, circle: tuple[float, float, float]) -> bool:
    x, y, radius = circle
    across, down = max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3])
    return hypot(across, down) < radius + 1


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


class _Canvas:
    """Draws in pixels of the finished picture."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (_WIDTH * _FINE, _HEIGHT * _FINE), "white")
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def line(self, ends: _Box, color: str) -> None:
        self._draw.line([_FINE * value for value in ends], fill=color, width=_FINE)

    def circle(self, x: float, y: float, radius: float, color: str) -> None:
        box = [_FINE * value for value in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, fill=f"{color}b0", outline=color, width=_FINE)

    def pointer(self, circle: tuple[float, float, float], box: _Box) -> None:
        """A line from a circle's middle to its label, where that had to go far."""
        x, y, radius = circle
        end = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
        if hypot(end[0] - x, end[1] - y) > radius + 10:
            self.line((x, y, *end), _INK)

    def measure(self, text: str) -> tuple[float, float]:
        """(width, height) of a line of text."""
        left, _, right, bottom = self._draw.textbbox((0, 0), text, font=self._font(15), anchor="la")
        return (right - left) / _FINE + 4, bottom / _FINE + 4

    def text(
        self, at: tuple[float, float], text: str, *, anchor: str, size: int = 15, room: float = float("inf")
    ) -> _Box:
        """Write; gives the box that it fills. Text wider than `room` is cut."""
        font = self._font(size)
        while text and self._draw.textlength(text, font=font) > room * _FINE:
            text = text[:-1]
        place = (at[0] * _FINE, at[1] * _FINE)
        self._draw.text(place, text, fill=_INK, font=font, anchor=anchor)
        left, top, right, bottom = self._draw.textbbox(place, text, font=font, anchor=anchor)
        return left / _FINE, top / _FINE, right / _FINE, bottom / _FINE

    def finish(self) -> Image.Image:
        return self._image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)

    @staticmethod
    def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
        return ImageFont.load_default(size * _FINE)
