"""A network as TFLite sees it: tensors, operations, and methods that add them one by one.

We write the graph ourselves instead of leaving it to a converter: every transpose, rank and folded constant is our
choice. A recipe rewrites the float graph into a new one (`convert.quantize`), `convert.graph.flatbuffer` packs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (stored - zero_point)``; arrays of one value, or of one per channel along `axis`."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """An edge of the graph.

    Attributes:
        name: unique, after the paper's and the checkpoints' names.
        shape: static, batch 1.
        dtype: of what is stored.
        data: the value of a constant, else None.
        quantization: of an integer tensor, else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any = np.float32
    data: NDArray[Any] | None = None
    quantization: Quantization | None = None

    @property
    def value(self) -> NDArray[Any]:
        """`data` of a constant."""
        assert self.data is not None
        return self.data


@dataclass(frozen=True, eq=False)
class Op:
    """An operation: TFLite's name, the tensors it reads, the one it writes, options as the schema spells them."""

    kind: str
    inputs: list[Tensor]
    output: Tensor
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Graph:
    """Operations in the order they run. Methods append one and return its output.

    Attributes:
        ops: operations.
        inputs: what the caller feeds.
        outputs: what the caller reads.
    """

    ops: list[Op] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def input(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
        tensor = Tensor(name, shape, dtype)
        self.inputs.append(tensor)
        return tensor

    def conv(
        self,
        name: str,
        x: Tensor,
        kernel: NDArray[Any],
        bias: NDArray[Any] | None = None,
        *,
        stride: int = 1,
        activation: str = "NONE",
    ) -> Tensor:
        """CONV_2D without padding; `kernel` (kh, kw, in, out) or (in, out) for 1x1, `bias` (out,) or None for 0."""
        if kernel.ndim == 2:
            kernel = kernel[None, None]
        kh, kw, _, out = kernel.shape
        bias = np.zeros(out) if bias is None else bias
        batch, height, width, _ = x.shape
        shape = batch, (height - kh) // stride + 1, (width - kw) // stride + 1, out
        options = {"padding": "VALID", "strideH": stride, "strideW": stride, "fusedActivationFunction": activation}
        weights = constant(f"{name}/kernel", kernel.transpose(3, 0, 1, 2))
        return self.add_op("CONV_2D", name, [x, weights, constant(f"{name}/bias", bias)], shape, **options)

    def depthwise(self, name: str, x: Tensor, kernel: NDArray[Any], bias: NDArray[Any]) -> Tensor:
        """DEPTHWISE_CONV_2D, stride 1, zero padding; `kernel` (kh, kw, C, 1), `bias` (C,)."""
        inputs = [x, constant(f"{name}/kernel", kernel.transpose(3, 0, 1, 2)), constant(f"{name}/bias", bias)]
        options = {"padding": "SAME", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
        return self.add_op("DEPTHWISE_CONV_2D", name, inputs, x.shape, **options)

    def binary(
        self,
        kind: str,
        name: str,
        x: Tensor | NDArray[Any] | float,
        y: Tensor | NDArray[Any] | float,
        *,
        activation: str = "NONE",
    ) -> Tensor:
        """ADD, SUB, MUL, DIV or SQUARED_DIFFERENCE, with broadcasting; arrays and numbers become constants."""
        x, y = (t if isinstance(t, Tensor) else constant(f"{name}/constant", np.asarray(t)) for t in (x, y))
        options = (
            {} if kind in ("SQUARED_DIFFERENCE", "MINIMUM", "MAXIMUM") else {"fusedActivationFunction": activation}
        )
        return self.add_op(kind, name, [x, y], np.broadcast_shapes(x.shape, y.shape), **options)

    def unary(self, kind: str, name: str, x: Tensor, **options: Any) -> Tensor:
        """An operation on each element, such as RSQRT, SQRT, GELU, SOFTMAX or LOGISTIC."""
        return self.add_op(kind, name, [x], x.shape, **options)

    def mean_of_channels(self, name: str, x: Tensor) -> Tensor:
        """MEAN over the last axis, which keeps one entry."""
        axis = constant(f"{name}/axis", np.array([len(x.shape) - 1], np.int32))
        return self.add_op("MEAN", name, [x, axis], (*x.shape[:-1], 1), keepDims=True)

    def matmul(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """BATCH_MATMUL: (..., n, k) by (..., k, m) of equal batches, which LiteRT's GPU delegate broadcasts wrongly."""
        assert x.shape[:-2] == y.shape[:-2], (name, x.shape, y.shape)
        return self.add_op("BATCH_MATMUL", name, [x, y], (*x.shape[:-1], y.shape[-1]))

    def reshape(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if x.shape == shape:
            return x
        new = np.array(shape, np.int32)
        return self.add_op("RESHAPE", name, [x, constant(f"{name}/shape", new)], shape, newShape=new)

    def transpose(self, name: str, x: Tensor, order: Sequence[int]) -> Tensor:
        shape = tuple(x.shape[i] for i in order)
        return self.add_op("TRANSPOSE", name, [x, constant(f"{name}/order", np.array(order, np.int32))], shape)

    def pad(self, name: str, x: Tensor, by: int) -> Tensor:
        """Zeros around height and width."""
        pads = np.array([[0, 0], [by, by], [by, by], [0, 0]], np.int32)
        batch, height, width, channels = x.shape
        shape = batch, height + 2 * by, width + 2 * by, channels
        return self.add_op("PAD", name, [x, constant(f"{name}/by", pads)], shape)

    def resize(self, name: str, x: Tensor, size: tuple[int, int]) -> Tensor:
        """RESIZE_BILINEAR, half-pixel centers."""
        if x.shape[1:3] == size:
            return x
        new = constant(f"{name}/size", np.array(size, np.int32))
        shape = x.shape[0], *size, x.shape[3]
        return self.add_op("RESIZE_BILINEAR", name, [x, new], shape, alignCorners=False, halfPixelCenters=True)

    def add_op(self, kind: str, name: str, inputs: list[Tensor], shape: tuple[int, ...], **options: Any) -> Tensor:
        """Any operation."""
        output = Tensor(name, tuple(int(n) for n in shape))
        self.ops.append(Op(kind, inputs, output, options))
        return output


def constant(name: str, value: NDArray[Any]) -> Tensor:
    """A tensor of a fixed value: int32 where the array is, else float32."""
    value = np.ascontiguousarray(value if value.dtype == np.int32 else value.astype(np.float32))
    return Tensor(name, value.shape, value.dtype.type, value)
