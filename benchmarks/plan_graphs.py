"""``make plan-graphs``: writes the graphs that `segformer plan` times, into segformer_tf/edge/plan/graphs/.

They are exports of untrained networks whose weights are then made of a few numbers, so that they can be compressed: the
time of a kernel does not depend on its weights. ``--check FOLDER`` keeps both kinds there, to be timed side by side.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import zipfile
from pathlib import Path

from segformer_tf.load_tensorflow import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
from ai_edge_litert import schema_py_generated as schema  # noqa: E402
from PIL import Image  # noqa: E402

from convert.export import export_tflite  # noqa: E402
from convert.graph.metadata import write_with_files  # noqa: E402
from convert.sample_images import synthetic_images  # noqa: E402
from segformer_tf import build_segformer  # noqa: E402
from segformer_tf.edge.metadata import INFO_FILE, read_model_info  # noqa: E402
from segformer_tf.edge.plan.graphs import NUM_CLASSES, TIMED_RECIPES, TIMED_SIZES  # noqa: E402

GRAPHS = Path(__file__).parents[1] / "segformer_tf" / "edge" / "plan" / "graphs"
_PERIOD = 61
_WEIGHTS = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT8: "i1"}
_FEWEST_BYTES = 2048  # of a constant that is a weight and not a scale, a shape or a bias


def main() -> None:
    """Write every graph, and print its size."""
    keep = Path(sys.argv[sys.argv.index("--check") + 1]) if "--check" in sys.argv else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        images = [folder / f"{i}.png" for i in range(4)]
        for path, pixels in zip(images, synthetic_images((512, 512), len(images)), strict=True):
            Image.fromarray(pixels).save(path)
        for variant, sizes in TIMED_SIZES.items():
            model = build_segformer(variant, num_classes=NUM_CLASSES)
            for size in sizes:
                for recipe in TIMED_RECIPES:
                    name = f"{variant}_{recipe}_{size[0]}x{size[1]}.tflite"
                    path = folder / f"random_{name}"
                    export_tflite(model, path, recipe=recipe, size=size, images=images, runtimes=["litert"])
                    without = folder / name
                    repeat_weights(path, without)
                    target = GRAPHS / f"{name}.gz"
                    target.write_bytes(gzip.compress(without.read_bytes(), mtime=0))
                    print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


def repeat_weights(path: Path, out: Path) -> None:
    """Copy an exported file with a few numbers, over and over, in place of its weights; biases and scales stay."""
    info = read_model_info(path)
    with zipfile.ZipFile(path) as archive:
        length = json.loads(archive.read(INFO_FILE))["model"]["bytes"]
    content = bytearray(path.read_bytes()[:length])
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    few = np.random.default_rng(0).uniform(-1, 1, _PERIOD)
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        buffer = model.Buffers(tensor.Buffer())
        kind = _WEIGHTS.get(tensor.Type())
        if kind and buffer.DataLength() >= _FEWEST_BYTES:
            stored = buffer.DataAsNumpy().view(kind)
            stored[:] = np.resize(few * np.abs(stored).max(), len(stored)).astype(kind)
    write_with_files(bytes(content), info, out)


if __name__ == "__main__":
    main()
