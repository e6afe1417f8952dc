"""What the class map in the graph costs, and how many pixels its cheap form changes.

python benchmarks/class_map.py
python benchmarks/class_map.py models/camvid_b0_int8.tflite --images data/camvid/test/images
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from cyclopts import run
from numpy.typing import NDArray
from rich.progress import track

from segformer_tf.edge import fit_image, list_images, load_image, logits_to_mask
from segformer_tf.edge.runtime import RUNTIMES, installed_runtimes, runtime_version
from segformer_tf.edge.tflite.model import TFLiteModel
from segformer_tf.load_tensorflow import import_tensorflow

FORMS = ("logits only", "cheap", "exact")
_TIMED = "import sys; from benchmarks.class_map import print_times; print_times(*sys.argv[1:])"


def main(
    model: Path | None = None,
    /,
    *,
    images: Path | None = None,
    size: tuple[int, int] = (512, 512),
    classes: int = 150,
    threads: int = 2,
    repeats: int = 30,
) -> None:
    """Time an untrained b0 with no class map, the cheap and the exact form, image by image in turn.

    Parameters
    ----------
    model
        A .tflite: instead of timing, compare the cheap form of its logits with the exact mask, on --images.
    images
        Folder of images.
    size
        Height and width of the input.
    classes
        Of the untrained network.
    threads
        Of the runtime.
    repeats
        Invokes of each file.
    """
    import_tensorflow()
    if model and images:
        _print_agreement(model, list_images([images]))
        return
    with TemporaryDirectory() as folder:
        for recipe in ("fp32", "int8"):
            for runtime in installed_runtimes():
                files = _files(Path(folder), recipe, runtime, size, classes)
                arguments = [RUNTIMES[runtime], str(threads), str(repeats), *map(str, files)]
                done = subprocess.run([sys.executable, "-c", _TIMED, *arguments], capture_output=True, check=True)
                rows = json.loads(done.stdout.splitlines()[-1])
                print(f"{recipe}, {runtime} {runtime_version(runtime)}, {size[0]}x{size[1]}, {classes} classes:")
                for form, (wall, processor) in zip(FORMS, rows, strict=True):
                    ratios = f"{wall / rows[0][0]:.2f} times the first, by processor time {processor / rows[0][1]:.2f}"
                    print(f"  {form}: {wall:.1f} ms, {ratios}")


def _files(folder: Path, recipe: str, runtime: str, size: tuple[int, int], classes: int) -> list[Path]:
    from convert.graph.class_map import with_class_map
    from convert.graph.flatbuffer import to_tflite
    from convert.graph.segformer import network
    from convert.quantize.calibrate import ranges
    from convert.quantize.recipes import RECIPES
    from convert.sample_images import synthetic_images
    from segformer_tf import build_segformer

    pixels, chosen = synthetic_images(size, 2), RECIPES[recipe]
    graph = network(build_segformer("b0", num_classes=classes), size, runtime=chosen.form([runtime]))
    names = chosen.tensors(graph)
    graph = chosen.rewrite(graph, ranges(graph, names, pixels) if names else {}, pixels)
    paths = []
    for form in FORMS:
        paths.append(folder / f"{recipe} {runtime} {form}.tflite")
        mapped = graph if form == FORMS[0] else with_class_map(graph, size, cheap=form == "cheap")
        paths[-1].write_bytes(to_tflite(mapped))
    return paths


def print_times(module: str, threads: str, repeats: str, *paths: str) -> None:
    """Runs in a process of its own: medians of wall and processor milliseconds of each file, as JSON."""
    interpreters = []
    for path in paths:
        interpreter = import_module(f"{module}.interpreter").Interpreter(path, num_threads=int(threads))
        interpreter.allocate_tensors()
        interpreter.invoke()
        interpreters.append(interpreter)
    times: list[list[tuple[float, float]]] = [[] for _ in paths]
    for _ in range(int(repeats)):
        for interpreter, rows in zip(interpreters, times, strict=True):
            start = time.perf_counter(), time.process_time()
            interpreter.invoke()
            rows.append((1e3 * (time.perf_counter() - start[0]), 1e3 * (time.process_time() - start[1])))
    print(json.dumps([np.median(rows, axis=0).tolist() for rows in times]))


def _print_agreement(model: Path, paths: list[Path]) -> None:
    network = TFLiteModel(model, runtime="litert")
    mapped = _cheap_map(network.grid)
    shares, mixed = [], []
    for path in track(paths, "comparing"):
        logits = network.logits(fit_image(load_image(path), network.size))
        size = 4 * logits.shape[0], 4 * logits.shape[1]
        expected = logits_to_mask(logits, size)
        shares.append(float((mapped(logits) == expected).mean()))
        mixed.append(len(np.unique(expected)))
    height, width = network.size
    print(
        f"{model}, {height}x{width}, {len(paths)} images of {np.median(mixed):.0f} classes: "
        f"{np.mean(shares):.4%} of the pixels as the exact mask, {np.min(shares):.4%} of the worst image"
    )


def _cheap_map(grid: tuple[int, int, int]) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    from convert.graph.class_map import with_class_map
    from convert.graph.flatbuffer import to_tflite
    from convert.graph.ir import Graph, Tensor

    x = Tensor("x", (1, *grid))
    graph = with_class_map(Graph(inputs=[x], outputs=[x]), (4 * grid[0], 4 * grid[1]), cheap=True)
    interpreter = Interpreter(model_content=to_tflite(graph))
    interpreter.allocate_tensors()

    def mask(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], logits[None])
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]

    return mask


if __name__ == "__main__":
    run(main)
