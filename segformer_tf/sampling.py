"""Choosing a few of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced, in order, the first and the last among them."""
    last = len(items) - 1
    return [items[int(i)] for i in np.unique(np.linspace(0, last, min(count, len(items))).astype(int))]
