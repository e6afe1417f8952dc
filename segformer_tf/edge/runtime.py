"""The TFLite runtimes: which are installed, and how a file is opened on one."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from typing import Any

from segformer_tf.edge.child_process import ChildProcess, answer_stream
from segformer_tf.edge.compiled import HALF, CompiledInterpreter, compile_in_half
from segformer_tf.edge.gpu import GpuInterpreter, require_gpu
from segformer_tf.errors import InputError, first_line
from segformer_tf.native_log import native_silence

_TRIAL_SECONDS = 120

# On the CPU, in order of preference: LiteRT is the faster one where both are installed.
RUNTIMES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
GPU = "litert-gpu"  # LiteRT's GPU accelerator, used only where it is asked for


def installed_runtimes() -> list[str]:
    """Names of the runtimes on the CPU that can be imported here, the preferred one first."""
    return [name for name, module in RUNTIMES.items() if find_spec(module)]


def runtime_version(runtime: str) -> str:
    """Version of an installed runtime, and the device of litert-gpu, or the processor of litert-fp16."""
    if runtime == GPU:
        return f"{runtime_version('litert')} on {require_gpu().name}"
    if runtime == HALF:
        return f"{runtime_version('litert')} on {machine()}"
    return version(RUNTIMES[runtime].replace("_", "-"))


def open_interpreter(
    path: str | Path,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    intact: bool = False,
    shape: tuple[int, ...] | None = None,
) -> Any:
    """An interpreter with its tensors allocated.

    Args:
        path: a ``.tflite``.
        runtime: "litert", "tflite-runtime", "litert-fp16", or "litert-gpu" in a process of its own
            (`segformer_tf.edge.isolated`). None takes the preferred installed one.
        threads: CPU threads; None leaves it to the runtime.
        intact: the file is known to be as it was exported. Any other is first run in a process of its own, because
            a damaged file can crash the process that loads it. This guards against damage, not against malice.
        shape: of the first input, for a file that leaves it open.

    Raises:
        InputError: the runtime is unknown, not installed or at odds with TensorFlow, or refuses the file.
    """
    runtime = choose_runtime(runtime)
    if runtime == "tflite-runtime" and sys.modules.get("tensorflow"):
        raise InputError(
            "tflite-runtime cannot run in a process that has TensorFlow loaded; "
            "use runtime='litert', or segformer_tf.edge.isolated.IsolatedModel"
        )
    if runtime in (GPU, HALF) and shape:
        raise InputError(f"{path}: {runtime} takes files of one input size only")
    if runtime == GPU:
        return GpuInterpreter(path, lambda: _open(path, "litert", threads, None))
    if not intact:
        _try_elsewhere(path, "litert" if runtime == HALF else runtime, shape)
    if runtime == HALF:
        on_cpu = _open(path, "litert", threads, None)
        return CompiledInterpreter(path, HALF, compile_in_half(path, threads), on_cpu)
    return _open(path, runtime, threads, shape)


def child_environment(runtime: str | None) -> dict[str, str]:
    """Variables that a process needs to run files on a runtime; raises InputError for the GPU if there is none."""
    return require_gpu().environment if runtime == GPU else {}


def usual_threads() -> int:
    """All cores, four at most; or OMP_NUM_THREADS where it says fewer, as libraries of numbers do."""
    cores = min(4, os.cpu_count() or 1)
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number for each level of nesting
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) else cores


def choose_runtime(runtime: str | None) -> str:
    """`runtime`, or the preferred one for None; raises InputError if it is not installed."""
    installed = installed_runtimes()
    if runtime is not None and runtime not in (*RUNTIMES, GPU, HALF):
        raise InputError(f"--runtime must be one of {', '.join((*RUNTIMES, GPU, HALF))}. Received: {runtime}")
    if runtime == GPU:
        require_gpu()
        return runtime
    needed = "litert" if runtime == HALF else runtime
    if not installed or (needed is not None and needed not in installed):
        raise InputError(
            f"{needed or 'no TFLite runtime'} is not installed here (found: {', '.join(installed) or 'none'}); "
            f"pip install {RUNTIMES[needed or 'litert'].replace('_', '-')}"
        )
    return runtime or installed[0]


def _open(path: str | Path, runtime: str, threads: int | None, shape: tuple[int, ...] | None) -> Any:
    module = import_module(f"{RUNTIMES[runtime]}.interpreter")
    try:
        with native_silence():  # errors come as exceptions
            interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
            if shape:
                interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {runtime} {runtime_version(runtime)} refuses it ({first_line(error)})") from None
    return interpreter


def _try_elsewhere(path: str | Path, runtime: str, shape: tuple[int, ...] | None) -> None:
    """Load and run a file in another process; raises InputError if that fails."""
    arguments = (str(path), runtime, *map(str, shape or ()))
    with ChildProcess(run_once, *arguments, name=f"{path}: {runtime}", seconds=_TRIAL_SECONDS) as trial:
        trial.read()


def run_once(path: str, runtime: str, *shape: str) -> None:
    """The child's side: load a file, run it, and send an empty line."""
    send = answer_stream()
    interpreter = _open(path, runtime, 1, tuple(map(int, shape)))
    try:
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {runtime} cannot run it ({first_line(error)})") from None
    send(b"\n")
