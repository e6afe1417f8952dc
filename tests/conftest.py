"""Fixtures of all tests. Torch comes before TensorFlow: the other way round their libraries collide."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # `tmp_path` is looked at afterwards
with contextlib.suppress(ImportError):
    import torch  # noqa: F401

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings
from PIL import Image

from segformer_tf import SegFormer, build_segformer
from segformer_tf.scratch import begin_scratch
from tests.helpers import perturb
from training.data.tfds.toy import NAMES, draw_sample

# Whatever lands in the temporary folder beside `tmp_path`, also of processes that tests kill, goes when the tests end.
begin_scratch()

# Real samples: SEGFORMER_TF_DATA or ../shared/data.
DATA = Path(os.environ.get("SEGFORMER_TF_DATA", Path(__file__).parents[2] / "shared" / "data"))

# Two devices, so that MirroredStrategy is really run.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


# The same few examples every time; `make fuzz` takes many, new ones.
settings.register_profile("few", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("few")


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def tiny() -> SegFormer:
    """A perturbed tiny model of 6 classes; do not change it."""
    return perturb(build_segformer("tiny", num_classes=6))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy shapes as a folder: 6 train, 3 val, 3 test samples; raw ids are 10 times the class, 200 is ignored."""
    root = tmp_path_factory.mktemp("toy_folder")
    for seed, (split, count) in enumerate({"train": 6, "val": 3, "test": 3}.items()):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            image, mask = draw_sample(np.random.default_rng([seed, i]))
            raw = np.where(mask == 255, 200, mask * 10).astype(np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{i}.png")
            Image.fromarray(raw).save(root / split / "masks" / f"{i}.png")
    classes = [{"id": 10 * i, "name": name, "color": [40 * i, 0, 255 - 40 * i]} for i, name in enumerate(NAMES)]
    (root / "dataset.json").write_text(json.dumps({"name": "toy", "classes": classes, "ignore": [200]}))
    return root


@pytest.fixture(scope="session")
def camvid() -> Path:
    """CamVid as a folder data set, from SEGFORMER_TF_DATA or ../shared/data."""
    root = DATA / "camvid"
    if not (root / "dataset.json").is_file():
        pytest.skip("needs CamVid: set SEGFORMER_TF_DATA to a folder that has camvid/dataset.json")
    return root


@pytest.fixture(scope="session")
def ade20k() -> Path:
    """A few images and masks of ADE20K, from SEGFORMER_TF_DATA or ../shared/data."""
    root = DATA / "ade20k_samples"
    if not (root / "masks").is_dir():
        pytest.skip("needs ADE20K samples: set SEGFORMER_TF_DATA to a folder that has ade20k_samples/{images,masks}")
    return root


@pytest.fixture(scope="session")
def tiny_files(tiny: SegFormer, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model at 97x161 in every recipe, verified on every installed runtime that it is for."""
    from convert.export import export_tflite
    from convert.quantize.recipes import RECIPES
    from segformer_tf.edge import installed_runtimes, list_images

    folder, images = tmp_path_factory.mktemp("tflite"), list_images([toy_folder / "train" / "images"])
    files = {recipe: folder / f"{recipe}.tflite" for recipe in RECIPES}
    for recipe, out in files.items():
        runtimes = RECIPES[recipe].fitting(installed_runtimes())
        export_tflite(tiny, out, recipe=recipe, size=(97, 161), images=images, runtimes=runtimes)
    return files
