"""Cameras by name: which of FFmpeg's devices reads them on this system."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

CAMERA = "camera:"


@dataclass(frozen=True)
class CameraInput:
    """Arguments of `av.open` for a camera, and a hint for one that cannot be opened."""

    file: str
    format: str
    options: dict[str, str] = field(default_factory=dict)
    hint: str = ""


def camera_input(name: str) -> CameraInput | None:
    """How to open ``camera:0``, ``camera:/dev/video0`` or ``camera:NAME``; None for another name."""
    if not name.startswith(CAMERA):
        return None
    device = name.removeprefix(CAMERA)
    if sys.platform == "darwin":
        return CameraInput(device, "avfoundation", {"framerate": "30"}, "; may the terminal use the camera?")
    if sys.platform == "win32":
        return CameraInput(f"video={device}", "dshow", hint="; expected the camera's name, as in camera:'USB Camera'")
    file = f"/dev/video{device}" if device.isdecimal() else device
    hint = "; are you in the group video?" if os.path.exists(file) and not os.access(file, os.R_OK) else ""
    return CameraInput(file, "v4l2", hint=hint)
