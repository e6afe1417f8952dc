"""The race: the contenders, and the table of their times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import engines


@dataclass(frozen=True)
class Contender:
    """One of those that are compared.

    Attributes:
        name: in the table.
        open: makes the `Engine` from the file, if any, `arguments` and the number of threads.
        arguments: of `open`.
        file: a key of `files.PEERS`, or a path of the user's, or None.
        same_weights: whether its logits should be those of the others with `same_weights`.
    """

    name: str
    open: Callable[..., engines.Engine]
    arguments: tuple[Any, ...] = ()
    file: str | Path | None = None
    same_weights: bool = False


@dataclass(frozen=True)
class Row:
    """A contender's result.

    Attributes:
        engine: name and version of the package that runs it.
        made_by: names and versions of the packages that made its file, or "".
        logits_ms, logits_p90_ms: median and 90th percentile to the logits.
        logits_ratio: its median over the first contender's.
        mask_ms, mask_p90_ms, mask_ratio: the same to the mask; NaN without one.
        differs_by: largest difference of its logits from those of the same weights, or None.
    """

    contender: str
    engine: str
    made_by: str
    logits_ms: float
    logits_p90_ms: float
    logits_ratio: float
    mask_ms: float
    mask_p90_ms: float
    mask_ratio: float
    differs_by: float | None


def field(variant: str, ours: Sequence[Path], runtime: str) -> list[Contender]:
    """All contenders: ours first, then the others; on tflite-runtime only TFLite files that it can run."""
    own = [Contender(f"ours, {path}", engines.ours, (runtime,), path) for path in ours]
    own.append(Contender("ours, decoder as in the paper", engines.ours, (runtime,), "plain.tflite"))
    own.append(Contender("keras-hub, full-size logits", engines.keras_hub, (runtime,), "keras_hub.tflite"))
    if runtime == "tflite-runtime":
        return own

    def twin(engine: str, open_: Callable[..., engines.Engine], args: tuple[Any, ...], file: str | None) -> Contender:
        return Contender(f"transformers, {engine}", open_, args, file, same_weights=True)

    onnx, int8 = "transformers.onnx", "openvino_int8.xml"
    return [
        *own,
        twin("PyTorch", engines.torch_eager, (variant,), None),
        twin("LiteRT by litert-torch", engines.litert_torch, (runtime,), "litert_torch.tflite"),
        twin("ONNX Runtime", engines.onnxruntime, (), onnx),
        twin("OpenVINO fp32", engines.openvino, ("f32",), onnx),
        twin("OpenVINO bf16", engines.openvino, ("bf16",), onnx),
        twin("OpenVINO int8, fp32 rest", engines.openvino, ("f32",), int8),
        twin("OpenVINO int8, bf16 rest", engines.openvino, ("bf16",), int8),
    ]


def summarize(
    times: Mapping[str, NDArray[np.float64]], about: Mapping[str, tuple[str, str]], differences: Mapping[str, float]
) -> list[Row]:
    """A row of each contender; ratios are to the first."""
    medians = {name: 1e3 * np.median(spent, axis=0) for name, spent in times.items()}
    p90s = {name: 1e3 * np.quantile(spent, 0.9, axis=0) for name, spent in times.items()}
    first = next(iter(medians.values()))
    return [
        Row(
            contender=name,
            engine=about[name][0],
            made_by=about[name][1],
            logits_ms=float(median[0]),
            logits_p90_ms=float(p90s[name][0]),
            logits_ratio=float(median[0] / first[0]),
            mask_ms=float(median[1]),
            mask_p90_ms=float(p90s[name][1]),
            mask_ratio=float(median[1] / first[1]),
            differs_by=differences.get(name),
        )
        for name, median in medians.items()
    ]


def differences(logits: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Largest distance of each but the first from the first."""
    if not logits:
        return {}
    reference, *others = logits
    return {name: float(np.abs(logits[name] - logits[reference]).max()) for name in others}
