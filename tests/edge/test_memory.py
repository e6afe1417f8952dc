"""What a device needs of memory, measured in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convert.export import export_tflite
from segformer_tf import build_segformer
from segformer_tf.edge import list_images
from tests.edge.test_isolation import run
from tests.helpers import perturb

# VmHWM, for ru_maxrss would count the process that starts this one.
PREDICT = """
from pathlib import Path
from segformer_tf.edge import Segmenter
result = Segmenter(sys.argv[1], runtime="litert", threads=2)(sys.argv[2])
assert result.mask.shape == (512, 512)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("recipe", "megabytes"), [("fp32", 200), ("int8", 150)])
def test_peak_memory_from_file_to_mask(recipe: str, megabytes: int, toy_folder: Path, tmp_path: Path) -> None:
    # Noise all the way: the logits of every cell are mixed.
    model, photo = tmp_path / "b0.tflite", tmp_path / "photo.jpg"
    b0 = perturb(build_segformer("b0", num_classes=11))
    images = list_images([toy_folder / "train" / "images"])
    export_tflite(b0, model, recipe=recipe, size=(512, 512), images=images, runtimes=["litert"])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)).save(photo, quality=95)
    done = run(PREDICT, model, photo)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 / 1e6 <= megabytes
