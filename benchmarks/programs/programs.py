"""The programs: each runs a file on a photo in a process of its own, which ends before the next one's turn."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from segformer_tf.edge.runtime import GPU, RUNTIMES, child_environment, installed_runtimes
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, fit_image
from segformer_tf.mask import logits_to_mask

ROOT = Path(__file__).parents[2]
MEDIAPIPE = ROOT / ".mediapipe" / "bin" / "python"
WEB = ROOT / "web"
_SECONDS = 3600  # until a process counts as hanging: a GPU on a CPU takes a minute for an image


@dataclass(frozen=True)
class Input:
    """A file's: (height, width), and the type of its values."""

    size: tuple[int, int]
    dtype: np.dtype[Any]


def input_of(file: Path) -> Input:
    """Of a file of `segformer export`."""
    graph = schema.Model.GetRootAsModel(file.read_bytes(), 0).Subgraphs(0)
    tensor = graph.Tensors(graph.Inputs(0))
    _, height, width, _ = tensor.ShapeAsNumpy().tolist()
    return Input((height, width), np.dtype(np.uint8 if tensor.Type() == schema.TensorType.UINT8 else np.float32))


@dataclass(frozen=True)
class Job:
    """One turn of a program.

    Attributes:
        file: a ``.tflite``.
        input: of it.
        photo: (H, W, 3) uint8 RGB.
        folder: for files in between.
        calls: calls to time, after one that does not count.
        threads: CPU threads, where the program lets one choose.
    """

    file: Path
    input: Input
    photo: Pixels
    folder: Path
    calls: int
    threads: int

    @property
    def fitted(self) -> Pixels:
        """The photo at the file's size."""
        return fit_image(self.photo, self.input.size)

    def mask_of(self, logits: NDArray[np.float32]) -> NDArray[np.uint8]:
        """At the photo's size."""
        return logits_to_mask(logits, (self.photo.shape[0], self.photo.shape[1]))


@dataclass(frozen=True)
class Answer:
    """What a program makes of a `Job`.

    Attributes:
        ms: median of the calls, to the logits, or of MediaPipe to its category mask.
        version: of the program, and its device where it says.
        logits: (h, w, C), or None.
        masks: (H, W) uint8 at the photo's size; by what they are where the program gives several.
    """

    ms: float
    version: str
    logits: NDArray[np.float32] | None
    masks: Mapping[str, NDArray[np.uint8]]


def on_tflite(job: Job, *, runtime: str) -> Answer:
    """`TFLiteModel` on a runtime; raises InputError if it is not installed or refuses the file."""
    if runtime in RUNTIMES and runtime not in installed_runtimes():
        raise InputError(f"not installed: pip install {RUNTIMES[runtime].replace('_', '-')}")
    environment = child_environment(runtime)
    np.save(job.folder / "pixels.npy", job.fitted)
    files = job.file, job.folder / "pixels.npy", job.folder / "logits.npy"
    command = [sys.executable, "-m", "benchmarks.programs.on_tflite", *files, runtime, job.threads, job.calls]
    report = json.loads(_output(command, environment).splitlines()[-1])
    logits = np.load(job.folder / "logits.npy")
    return Answer(report["ms"], report["version"], logits, {"": job.mask_of(logits)})


def on_mediapipe(job: Job) -> Answer:
    """`ImageSegmenter` on the photo as it is; raises InputError without its environment, or if it refuses the file."""
    if not MEDIAPIPE.is_file():
        raise InputError("not installed: make mediapipe")
    report, masks = mediapipe_masks(job.file, job.photo, job.folder, calls=job.calls)
    answers = {"category mask": masks["category"], "largest confidence": masks["confidence"].argmax(0).astype(np.uint8)}
    return Answer(report["ms"], report["version"], None, answers)


def mediapipe_masks(
    file: Path, photo: Pixels, folder: Path, *, calls: int = 1, video: bool = False
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `benchmarks/programs/on_mediapipe.py` prints, and the arrays that it writes."""
    np.save(folder / "photo.npy", photo)
    script = Path(__file__).with_name("on_mediapipe.py")
    command = [MEDIAPIPE, script, file, folder / "photo.npy", folder / "masks.npz", "--calls", calls]
    report = json.loads(_output([*command, *(["--video"] if video else [])]).splitlines()[-1])
    with np.load(folder / "masks.npz") as arrays:
        return report, dict(arrays)


def on_litert_js(job: Job, *, accelerator: str) -> Answer:
    """LiteRT.js in Chromium by `web/agreement.mjs`; raises InputError if something is missing or refuses the file."""
    if not (node := shutil.which("node")):
        raise InputError("not installed: apt-get install nodejs npm chromium")
    if not (WEB / "node_modules").is_dir():
        raise InputError("not installed: npm ci, in web/")
    job.fitted.astype(job.input.dtype).tofile(job.folder / "input.bin")
    out = job.folder / accelerator
    command = [node, WEB / "agreement.mjs", job.file, job.folder / "input.bin", out, "--accelerator", accelerator]
    try:
        _output([*command, "--runs", job.calls, "--threads", job.threads])
    except InputError as error:
        raise InputError(str(error).removeprefix("agreement: ")) from None
    report = json.loads(Path(f"{out}.json").read_text("utf-8"))
    *others, last = report["outputs"]  # the logits, in a file with a class map as well
    if last["dtype"] != "float32":
        raise InputError(f"gives logits of {last['dtype']}, which are not compared here")
    logits = np.fromfile(f"{out}.{len(others)}.bin", np.float32).reshape(last["shape"])[0]
    device = f" on {report['adapter']}" if report.get("adapter") else ""
    version = f"{report['litertjs']}, Chromium {report['chromium'].split('.')[0]}{device}"
    return Answer(report["median_ms"], version, logits, {"": job.mask_of(logits)})


def _output(command: list[Any], environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a process; raises InputError with the reason in one line."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, errors="replace", timeout=_SECONDS, env=variables
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"did not answer within {_SECONDS} s") from None
    if done.returncode < 0:
        raise InputError(f"crashed ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise InputError(_reason(done.stderr))
    return done.stdout


def _reason(errors: str) -> str:
    """The line of a process's errors that says why it ended."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()] or ["ended without a reason"]
    return next((line for line in reversed(lines) if "failed: " in line), lines[-1])


PROGRAMS: dict[str, Callable[[Job], Answer]] = {
    "tflite-runtime": partial(on_tflite, runtime="tflite-runtime"),
    "litert": partial(on_tflite, runtime="litert"),
    "litert-gpu": partial(on_tflite, runtime=GPU),
    "mediapipe": on_mediapipe,
    "litert.js-wasm": partial(on_litert_js, accelerator="wasm"),
    "litert.js-webgpu": partial(on_litert_js, accelerator="webgpu"),
}
