"""The two TFLite runtimes behind one door."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError
from segformer_tf.quiet import native_silence

# In order of preference: LiteRT is the faster one where both are installed.
RUNTIMES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


def installed_runtimes() -> list[str]:
    """Names of the runtimes that can be imported here, the preferred one first."""
    return [name for name, module in RUNTIMES.items() if find_spec(module)]


def runtime_version(runtime: str) -> str:
    """Version of an installed runtime."""
    return version(RUNTIMES[runtime].replace("_", "-"))


def open_interpreter(path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> Any:
    """An interpreter with its tensors allocated.

    Args:
        path: a ``.tflite``.
        runtime: "litert" or "tflite-runtime"; None takes the preferred one that is installed.
        threads: CPU threads; None leaves it to the runtime.

    Raises:
        InputError: the runtime is unknown, not installed or at odds with TensorFlow, or refuses the file.
    """
    installed = installed_runtimes()
    if runtime is not None and runtime not in RUNTIMES:
        raise InputError(f"--runtime must be one of {', '.join(RUNTIMES)}. Received: {runtime}")
    if not installed or (runtime is not None and runtime not in installed):
        raise InputError(
            f"{runtime or 'no TFLite runtime'} is not installed here (found: {', '.join(installed) or 'none'}); "
            f"pip install {RUNTIMES[runtime or 'litert'].replace('_', '-')}"
        )
    runtime = runtime or installed[0]
    if runtime == "tflite-runtime" and sys.modules.get("tensorflow"):
        raise InputError(
            "tflite-runtime cannot run in a process that has TensorFlow loaded; "
            "use runtime='litert', or segformer_tf.edge.worker.Worker"
        )
    module = import_module(f"{RUNTIMES[runtime]}.interpreter")
    try:
        with native_silence():  # what goes wrong comes as an exception
            interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {runtime} {runtime_version(runtime)} refuses it ({_first_line(error)})") from None
    return interpreter


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
