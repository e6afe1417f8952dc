"""Turns and mirrors frames as the video's display matrix says: phones store what their sensor sees."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from segformer_tf.errors import InputError
from segformer_tf.image import Pixels


def turn_upright(pixels: Pixels, frame: VideoFrame) -> Pixels:
    """(H, W, 3) as it is shown; raises InputError for a turn that is not a right angle."""
    right, down = _matrix(frame)
    if right[1] == down[0] == 0 and right[0] and down[1]:
        across, along = right[0], down[1]
    elif right[0] == down[1] == 0 and right[1] and down[0]:
        pixels = pixels.swapaxes(0, 1)
        across, along = down[0], right[1]
    else:
        raise InputError("its frames are turned by a part of a right angle; expected upright ones")
    return np.ascontiguousarray(pixels[:: -1 if along < 0 else 1, :: -1 if across < 0 else 1])


def is_sideways(frame: VideoFrame) -> bool:
    """Whether width and height change places."""
    return _matrix(frame)[0][0] == 0


def _matrix(frame: VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a step to the right in the stored frame leads, (across, down) in fixed point, and where one down does."""
    try:
        side_data: dict[Any, Any] = {item.type: item for item in cast(Any, frame.side_data)}
    except ValueError:  # a kind that PyAV does not know; of the matrix it gives the turn to the left alone
        quarters, rest = divmod(frame.rotation, 90)
        across, down = ((1, 0), (0, -1), (-1, 0), (0, 1))[quarters % 4] if rest == 0 else (1, 1)
        return (across, down), (-down, across)
    if (matrix := side_data.get(Type.DISPLAYMATRIX)) is None:
        return (1, 0), (0, 1)
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    return (a, b), (c, d)
