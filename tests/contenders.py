"""Contenders of a race, in a module without TensorFlow, which each of their processes would import."""

from __future__ import annotations

import importlib

import numpy as np

from benchmarks.peers.engines import Engine


def fake_engine(step: float, threads: int) -> Engine:
    """Gives the number it was opened with."""
    return Engine(lambda: np.full((1, 3, 4, 4), step), None, f"fake {threads}", "")


def missing_engine(threads: int) -> Engine:
    importlib.import_module("no_such_peer")
    raise AssertionError
