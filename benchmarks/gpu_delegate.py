"""How far LiteRT's GPU delegate is from the CPU and from Keras, for each recipe.

python benchmarks/gpu_delegate.py MODEL --size H W
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cyclopts import run
from rich.progress import track

from segformer_tf.edge.runtime import GPU, runtime_version
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.image import list_images
from segformer_tf.load_tensorflow import import_tensorflow
from segformer_tf.terminal import plain_console

COLUMNS = ("recipe", "to the CPU", "same class", "to Keras", "CPU to Keras", "verdict")


def main(
    model: Path,
    /,
    *,
    size: tuple[int, int],
    calibration: Path | None = None,
    images: int = 2,
    csv_file: Path | None = None,
) -> None:
    """Print how far the logits of each recipe on the GPU are from those on the CPU and in Keras, as a Markdown table.

    Parameters
    ----------
    model
        A .keras file or a run folder.
    size
        Height and width of the input.
    calibration
        Folder of images to calibrate and to compare on. Default: synthetic ones.
    images
        How many to compare on.
    csv_file
        File to write the rows to.
    """
    import_tensorflow()
    from convert.export import export_tflite
    from convert.exported import run_on
    from convert.quantize.recipes import RECIPES
    from convert.sample_images import sample_images
    from segformer_tf.keras_file import load_segformer
    from segformer_tf.metrics import relative_error

    loaded = load_segformer(model)
    paths = list_images([calibration]) if calibration else []
    pixels = sample_images(paths, size, count=images, synthetic=images)
    keras = np.concatenate([loaded.logits(each[None]) for each in pixels])
    rows = []
    with TemporaryDirectory() as folder:
        for recipe in track(RECIPES.values(), "recipes", transient=True, console=plain_console(stderr=True)):
            if GPU in recipe.refused:
                rows.append([recipe.name, "", "", "", "", f"refused: {recipe.refused[GPU]}"])
                continue
            if recipe.needs_calibration and not paths:
                rows.append([recipe.name, "", "", "", "", "not run: needs --calibration"])
                continue
            file = Path(folder) / f"{recipe.name}.tflite"
            export_tflite(loaded, file, recipe=recipe.name, size=size, images=paths, runtimes=["litert"])
            cpu = run_on(file, pixels, runtime="litert")
            try:
                gpu = run_on(file, pixels, runtime=GPU)
            except InputError as error:
                rows.append([recipe.name, "", "", "", "", str(error).removeprefix(f"{file}: ")])
                continue
            same = float((gpu.argmax(-1) == cpu.argmax(-1)).mean())
            to_keras = relative_error(gpu, keras)
            verdict = "right" if to_keras <= recipe.tolerance else "WRONG"
            errors = [f"{relative_error(gpu, cpu):.1e}", f"{same:.2%}", f"{to_keras:.1e}"]
            rows.append([recipe.name, *errors, f"{relative_error(cpu, keras):.1e}", verdict])
    print(f"{model.name}, {size[0]}x{size[1]}, {len(pixels)} images, {GPU} {runtime_version(GPU)}\n")
    print("\n".join("| " + " | ".join(row) + " |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)))
    if csv_file:
        with atomic(csv_file) as part, part.open("w", newline="") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])
    if any(row[-1] == "WRONG" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
