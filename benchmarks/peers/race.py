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
        needed: whether there is no race without it.
    """

    name: str
    open: Callable[..., engines.Engine]
    arguments: tuple[Any, ...] = ()
    file: str | Path | None = None
    same_weights: bool = False
    needed: bool = False


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


ENGINES: dict[str, tuple[Callable[..., engines.Engine], tuple[Any, ...]]] = {  # that run ONNX, and their arguments
    "ONNX Runtime": (engines.onnxruntime, ()),
    "OpenVINO fp32": (engines.openvino, ("f32",)),
    "OpenVINO bf16": (engines.openvino, ("bf16",)),
}


def field(variant: str, ours: Sequence[Path], runtime: str) -> list[Contender]:
    """All contenders: ours first, then the others; on tflite-runtime only TFLite files that it can run.

    Where all of ours are ONNX files, only what runs ONNX.
    """
    own = [contender for path in ours for contender in _own(path, runtime)]
    if any(path.suffix != ".onnx" for path in ours):
        own.append(Contender("ours, decoder as in the paper", engines.ours, (runtime,), "plain.tflite"))
        own.append(Contender("keras-hub, full-size logits", engines.keras_hub, (runtime,), "keras_hub.tflite"))
        if runtime == "tflite-runtime":
            return own

    def twin(engine: str, open_: Callable[..., engines.Engine], args: tuple[Any, ...], file: str | None) -> Contender:
        return Contender(f"transformers, {engine}", open_, args, file, same_weights=True)

    onnx = [twin(name, open_, (False, *args), "transformers.onnx") for name, (open_, args) in ENGINES.items()]
    int8 = [
        twin(f"OpenVINO int8, {rest} rest", engines.openvino, (False, precision), "openvino_int8.xml")
        for rest, precision in (("fp32", "f32"), ("bf16", "bf16"))
    ]
    if all(path.suffix == ".onnx" for path in ours):
        return [*own, *onnx, *int8]
    return [
        *own,
        twin("PyTorch", engines.torch_eager, (variant,), None),
        twin("LiteRT by litert-torch", engines.litert_torch, (runtime,), "litert_torch.tflite"),
        *onnx,
        *int8,
    ]


def _own(path: Path, runtime: str) -> list[Contender]:
    if path.suffix != ".onnx":
        return [Contender(f"ours, {path}", engines.ours, (runtime,), path, needed=True)]
    return [
        Contender(f"ours, {path}, {name}", open_, (True, *args), path, needed=open_ is engines.onnxruntime)
        for name, (open_, args) in ENGINES.items()
    ]


def folds_worth(rows: Sequence[Row], ours: Sequence[Path]) -> list[str]:
    """A line for each ONNX file of ours: how many times its time transformers' export takes on the same engine."""
    times = {row.contender: row.logits_ms for row in rows}
    lines = []
    for path in ours:
        pairs = ((name, f"ours, {path}, {name}", f"transformers, {name}") for name in ENGINES)
        ratios = [
            f"{name} {times[other] / times[own]:.2f}x" for name, own, other in pairs if {own, other} <= times.keys()
        ]
        if ratios:
            lines.append(f"transformers' export takes, of the time of {path} to logits: {', '.join(ratios)}")
    return lines


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
