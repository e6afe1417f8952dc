"""A file as LiteRT's `CompiledModel`, for what its `Interpreter` does not do: a GPU, or float16 on the CPU.

Float16: XNNPACK is told to compute in it whatever the file says. Where a processor has no such arithmetic (x86), it
stores every tensor in float16 and computes in between in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError, first_line
from segformer_tf.metrics import relative_error
from segformer_tf.native_log import native_silence

HALF = "litert-fp16"  # LiteRT on the CPU in float16, used only where it is asked for
_LARGEST_ERROR = 0.2  # relative, to the CPU's result; right files, int8 ones too, are below 0.05
_FORCE_FLOAT16 = 4  # of XNNPACK's flags


class CompiledInterpreter:
    """A `CompiledModel` with the methods of `Interpreter` that this package uses.

    The first result is compared with the `Interpreter`'s: if it is equal bit by bit, what was asked for was not used;
    if it is far off, it is wrong.

    Args:
        path: a ``.tflite``.
        runtime: its name, for messages.
        model: the `CompiledModel` of it.
        on_cpu: an `Interpreter` of it.
    """

    def __init__(self, path: str | Path, runtime: str, model: Any, on_cpu: Any) -> None:
        self._path, self._runtime, self._model = path, runtime, model
        self._cpu: Any = on_cpu
        self._inputs, self._outputs = self._cpu.get_input_details(), self._cpu.get_output_details()
        self.get_tensor_details, self._get_ops_details = self._cpu.get_tensor_details, self._cpu._get_ops_details
        self._input_buffers = self._model.create_input_buffers(0)
        self._output_buffers = self._model.create_output_buffers(0)
        self._values = {int(t["index"]): np.zeros(t["shape"], t["dtype"]) for t in (*self._inputs, *self._outputs)}

    def get_input_details(self) -> list[dict[str, Any]]:
        return self._inputs

    def get_output_details(self) -> list[dict[str, Any]]:
        return self._outputs

    def tensor(self, index: int) -> Callable[[], NDArray[Any]]:
        return lambda: self._values[index]

    def get_tensor(self, index: int) -> NDArray[Any]:
        return self._values[index].copy()

    def invoke(self) -> None:
        """Raises InputError if what was asked for was not used, or its result is not the CPU's."""
        for tensor, buffer in zip(self._inputs, self._input_buffers, strict=True):
            buffer.write(self._values[int(tensor["index"])])
        self._model.run_by_index(0, self._input_buffers, self._output_buffers)
        for tensor, buffer in zip(self._outputs, self._output_buffers, strict=True):
            value = self._values[int(tensor["index"])]
            value[:] = np.asarray(buffer.read(value.size, value.dtype.type)).reshape(value.shape)
            self.check(tensor, value)
        if self._cpu is not None:
            self._compare_with_cpu()

    def check(self, tensor: dict[str, Any], value: NDArray[Any]) -> None:
        """Raises InputError for an output that cannot be right."""

    def _compare_with_cpu(self) -> None:
        for tensor in self._inputs:
            self._cpu.tensor(tensor["index"])()[:] = self._values[int(tensor["index"])]
        self._cpu.invoke()
        floats = [tensor for tensor in self._outputs if np.issubdtype(tensor["dtype"], np.floating)]
        pairs = [(self._cpu.get_tensor(t["index"]), self._values[int(t["index"])]) for t in floats]
        if pairs and all(np.array_equal(cpu, value) for cpu, value in pairs):
            unused = "computes in float32 here" if self._runtime == HALF else "the GPU was not used"
            raise InputError(f"{self._path}: {self._runtime} gives the CPU's result bit by bit: {unused}")
        for cpu, value in pairs:
            shape = (*cpu.shape[:3], -1)  # one channel may come as (1, H, W)
            error = relative_error(value.reshape(shape), cpu.reshape(shape))
            if not error <= _LARGEST_ERROR:  # also of a nan
                raise InputError(f"{self._path}: {self._runtime} is wrong: {error:.0%} off the CPU's result")
        self._cpu = None


def compile_in_half(path: str | Path, threads: int | None) -> Any:
    """A `CompiledModel` that computes in float16 on the CPU; raises InputError if LiteRT refuses the file."""
    from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, HardwareAccelerator, Options

    cpu = CpuOptions(num_threads=threads or 0, xnnpack_flags=_FORCE_FLOAT16)
    with native_silence():
        try:
            return CompiledModel.from_file(
                str(path), options=Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu)
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: {HALF} refuses it ({first_line(error)})") from None
