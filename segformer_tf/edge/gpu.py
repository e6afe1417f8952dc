"""LiteRT's GPU accelerator, the code that phones run: WebGPU on a Vulkan device.

Where no GPU is found, SwiftShader is used: Vulkan on the CPU, slow, which comes with Chromium and Chrome.
VK_ICD_FILENAMES and VK_DRIVER_FILES name another driver, as for any program that uses Vulkan.

A process keeps the driver that it first loads. So the device is looked for in processes of their own (`probe`), and
files run in others, by `segformer_tf.edge.isolated`.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segformer_tf.edge.child_process import ChildProcess, answer_stream
from segformer_tf.edge.compiled import CompiledInterpreter
from segformer_tf.errors import InputError
from segformer_tf.native_log import native_log

_DRIVER_VARIABLES = ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")
_SWIFTSHADER = "vk_swiftshader_icd.json"
_BROWSERS = ("/usr/lib/chromium", "/usr/lib/chromium-browser", "/usr/lib64/chromium-browser", "/opt/google/chrome")
_DRIVERS = ("/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d")
_DEVICE_VARIABLE = "SEGFORMER_TF_GPU"  # in a process that was started for the GPU: the device's name
_NO_DEVICE = "Failed to initialize WebGPU environment"
_PROBE_SECONDS = 60
# A file of one operation, RSQRT of four numbers.
_PROBE = (
    "eNptUTuqAkEQrH0OvkEHNVjEwFtoYGAsBgYG5iK83UXwA+sHvYGhB/AInsxLrDU9jQzyBoqa7umu7trtA1hMZoMUffSQogMHC38MIzAH3IkH8SRu"
    "CVAjk1jrT0N7DG/gDVQCxkSbOGTleb0rln9ZvjptjtLna6z2WNUyyldlJ9p1qalH7xdlKzkjeSdzinxfbrNyecyhNalotCJfhlHI+x2nxIyYq/52"
    "td7hy1vYNXizOiuJgH/iH2Komq+qqvyT7x19PHZlH6hmOL/MBrl4ziXynnx9q47UOTT1fzn14+kNGYocBw=="
)


@dataclass(frozen=True)
class Gpu:
    """A device that LiteRT's GPU accelerator can use.

    Attributes:
        name: by its driver.
        environment: variables that a process needs to use it.
    """

    name: str
    environment: dict[str, str]


@functools.cache
def find_gpu() -> Gpu | None:
    """The device that the variables above name; else one of this machine; else SwiftShader; else None."""
    if name := os.environ.get(_DEVICE_VARIABLE):
        return Gpu(name, {})
    if not find_spec("ai_edge_litert"):
        return None
    for environment in _candidates():
        try:
            with ChildProcess(
                probe, name="the probe of the GPU", seconds=_PROBE_SECONDS, environment=environment
            ) as child:
                name = child.read().decode(errors="replace").strip()
        except InputError:
            continue
        return Gpu(name, {**environment, _DEVICE_VARIABLE: name})
    return None


def require_gpu() -> Gpu:
    """The device of `find_gpu`; raises InputError if there is none."""
    if gpu := find_gpu():
        return gpu
    raise InputError(
        "litert-gpu: no Vulkan device was found; expected ai-edge-litert 2.3 or newer, libvulkan, and a GPU's driver "
        "or SwiftShader (which Debian's chromium brings, or whose vk_swiftshader_icd.json VK_ICD_FILENAMES names)"
    )


def _candidates() -> Iterator[dict[str, str]]:
    if not sys.platform.startswith("linux") or any(map(os.environ.get, _DRIVER_VARIABLES)):
        yield {}
        return
    quiet = {} if "XDG_RUNTIME_DIR" in os.environ else {"XDG_RUNTIME_DIR": tempfile.gettempdir()}  # else it complains
    if any(Path(folder).glob("*.json") for folder in _DRIVERS):
        yield quiet
    for folder in _BROWSERS:
        if (driver := Path(folder, _SWIFTSHADER)).is_file():
            yield {**quiet, **dict.fromkeys(_DRIVER_VARIABLES, str(driver))}


class GpuInterpreter(CompiledInterpreter):
    """A file on the GPU.

    Args:
        path: a ``.tflite``.
        open_on_cpu: gives an `Interpreter` of it.
        enforce_f32: compute in float32 on devices that have float16, too.

    Raises:
        InputError: a process that was not started for the GPU, or a file that the accelerator does not take whole.
    """

    def __init__(self, path: str | Path, open_on_cpu: Callable[[], Any], *, enforce_f32: bool = True) -> None:
        if _DEVICE_VARIABLE not in os.environ:
            raise InputError("litert-gpu runs in a process of its own: use segformer_tf.edge.isolated.IsolatedModel")
        on_cpu = open_on_cpu()
        model, self.device = compile_on_gpu(path, enforce_f32=enforce_f32)
        super().__init__(path, "litert-gpu", model, on_cpu)
        self._classes = dict(self._class_counts())

    def _class_counts(self) -> Iterator[tuple[int, int]]:
        """For each class map, its tensor and how many classes there are."""
        shapes = {int(tensor["index"]): tensor["shape"] for tensor in self.get_tensor_details()}
        casts = {
            int(op["inputs"][0]): int(op["outputs"][0]) for op in self._get_ops_details() if op["op_name"] == "CAST"
        }
        for op in self._get_ops_details():
            if op["op_name"] == "ARG_MAX":
                logits, axis = op["inputs"]
                ids = int(op["outputs"][0])
                yield casts.get(ids, ids), int(shapes[int(logits)][int(self._cpu.get_tensor(axis).ravel()[0])])

    def check(self, tensor: dict[str, Any], value: NDArray[Any]) -> None:
        """A GPU pads channels to a multiple of four, and its ARG_MAX may take the padding for a class."""
        classes = self._classes.get(int(tensor["index"]))
        if classes is not None and not 0 <= value.min() <= value.max() < classes:
            raise InputError(
                f"{self._path}: litert-gpu is wrong: its ARG_MAX gives class {value.max()}, "
                f"expected 0 to {classes - 1}; use the logits, or a file by `segformer export --class-map`"
            )


def compile_on_gpu(path: str | Path, *, enforce_f32: bool = True) -> tuple[Any, str]:
    """A `CompiledModel` that runs on the GPU alone, and the device's name; raises InputError if it does not.

    Args:
        path: a ``.tflite``.
        enforce_f32: compute in float32 on devices that have float16, too.
    """
    from ai_edge_litert.compiled_model import CompiledModel, GpuOptions, HardwareAccelerator, Options

    options = Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=enforce_f32))
    with native_log() as log:
        try:
            model = CompiledModel.from_file(str(path), options=options)
            adapter = re.search(r"Selected adapter: (.+?), arch=", log())
        except (RuntimeError, ValueError) as error:
            if _NO_DEVICE in log():
                raise InputError(f"litert-gpu: the device cannot be used ({_NO_DEVICE})") from None
            reasons = _reasons(log()) or str(error).splitlines()[-1:]
            raise InputError(f"{path}: litert-gpu does not take it whole ({'; '.join(reasons)})") from None
    if not model.is_fully_accelerated():
        raise InputError(f"{path}: litert-gpu leaves a part of it to the CPU")
    return model, adapter[1] if adapter else "a GPU"


def _reasons(log: str) -> list[str]:
    """Why the delegate refuses operations, by its log: each reason once, three at most."""
    listed = log.partition("Following operations are not supported by GPU delegate:")[2].splitlines()
    lines = re.findall(r"^([A-Z0-9_]+): (.+)$", "\n".join(listed), re.M)
    reasons = list(dict.fromkeys(f"{kind}: {why.rpartition('. ')[0] or why}" for kind, why in lines))
    return reasons[:3] + [f"and {len(reasons) - 3} more"] * (len(reasons) > 3)


def probe() -> None:
    """Runs in a process of its own: sends the device's name, or fails."""
    send = answer_stream()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.tflite"
        path.write_bytes(zlib.decompress(base64.b64decode(_PROBE)))
        _, device = compile_on_gpu(path)
    send(f"{device}\n".encode())
