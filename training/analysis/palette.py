"""Colors and markers of charts: Okabe and Ito's, told apart with every kind of color vision, and in print by shape."""

from __future__ import annotations

from typing import Any

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"


def style(index: int) -> dict[str, Any]:
    """Color and marker of the series with this number, as arguments of matplotlib; the eighth is like the first."""
    return {"color": _COLORS[index % len(_COLORS)], "marker": _MARKERS[index % len(_MARKERS)]}
