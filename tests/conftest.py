"""Fixtures of all tests. Torch comes before TensorFlow: the other way round their libraries collide."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # `tmp_path` is looked at afterwards

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segformer_tf.scratch import begin_scratch

if TYPE_CHECKING:
    from segformer_tf import SegFormer
    from training.config import TrainConfig
    from training.runs.folder import Run

# Whatever lands in the temporary folder beside `tmp_path`, also of processes that tests kill, goes when the tests end.
begin_scratch()

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")

# Real samples: SEGFORMER_TF_DATA or ../shared/data.
DATA = Path(os.environ.get("SEGFORMER_TF_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") == "no" or WORKER:  # what hands out tests to workers runs none itself
        _prepare_tensorflow()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    if "tensorflow" in sys.modules:
        _first_example()


@settings(max_examples=1, database=None)
@given(st.none())
def _first_example(_: None) -> None:
    """Hypothesis collects all garbage at the first example of a process: here, while there is little."""


def _prepare_tensorflow() -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        del os.environ[name]  # of this process alone, by the Makefile: others have their memory measured
    gc.disable()
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401
    import tensorflow as tf

    # Two devices, so that MirroredStrategy is really run.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # Graphs of a few steps are not worth optimizing; workers and other processes that tests start do optimize theirs.
    if not tf.config.list_physical_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    from tests.cheaper import make_cheaper

    make_cheaper()
    gc.freeze()


def pytest_collection_finish() -> None:
    """Millions of objects of the libraries stay: not looking at them again saves a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


# The same few examples every time; `make fuzz` takes many, new ones.
settings.register_profile("few", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("few")


# Files of many seconds, the longest first, so that two workers end at about the same time.
LONG = (
    *("test_workers", "test_parity", "test_export", "test_scaling", "test_keras_doors", "test_keras_page"),
    *("test_segformer", "test_pretrain", "test_import", "test_train", "test_fine_tuning", "test_resume"),
    *("test_gpu_delegate", "test_notebook", "test_kept", "test_fuzz", "test_benchmark", "test_peers", "test_gpu"),
    *("test_datasets", "test_memory", "test_distilled", "test_preprocessor", "test_losses", "test_hub", "test_forms"),
    *("test_onnx", "test_doctor", "test_wrong_on_a_delegate", "test_painting", "test_rivals_deeplab"),
    *("test_corruptions", "test_robustness", "test_resolution", "test_erf", "test_on_jax", "test_features"),
    "test_accuracy",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        if item.path.stem in LONG or {"quick", "tiny_files", "trained"}.intersection(item.fixturenames):
            item.add_marker("long")


@pytest.fixture(autouse=True)
def _seed() -> None:
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def tiny() -> SegFormer:
    """A perturbed tiny model of 6 classes; do not change it."""
    from segformer_tf import build_segformer
    from tests.helpers import perturb

    return perturb(build_segformer("tiny", num_classes=6))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A path by its name, written by whichever worker of pytest-xdist needs it first; do not change it."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if WORKER else root

    def path(name: str, write: Callable[[Path], object]) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / f"{name}.done").exists():
                shutil.rmtree(root / name, ignore_errors=True)  # a writer that failed halfway
                write(root / name)
                (root / f"{name}.done").touch()
        return root / name

    return path


@pytest.fixture(scope="session")
def toy_folder(shared: Callable) -> Path:
    """Toy shapes as a folder: 6 train, 3 val, 3 test samples; raw ids are 10 times the class, 200 is ignored."""
    return shared("toy_folder", write_toy_folder)


def write_toy_folder(root: Path) -> None:
    from training.data.tfds.toy import NAMES, draw_sample

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
def tiny_files(tiny: SegFormer, toy_folder: Path, shared: Callable) -> dict[str, Path]:
    """The tiny model at 97x161 in every recipe, verified on every installed runtime that it is for."""
    from convert.export import export_tflite
    from convert.quantize.recipes import RECIPES
    from segformer_tf.edge import installed_runtimes, list_images

    images = list_images([toy_folder / "train" / "images"])

    def file(recipe: str) -> Path:
        runtimes = RECIPES[recipe].fitting(installed_runtimes())
        options = {"recipe": recipe, "size": (97, 161), "images": images, "runtimes": runtimes}
        return shared(f"{recipe}.tflite", lambda out: export_tflite(tiny, out, **options))

    # Two workers that need them at once begin at either end.
    files = {recipe: file(recipe) for recipe in (reversed(RECIPES) if WORKER == "gw1" else RECIPES)}
    return {recipe: files[recipe] for recipe in RECIPES}


@pytest.fixture(scope="session")
def trained(toy_folder: Path, shared: Callable) -> Path:
    """The run folder of a `SMALL` training on `toy_folder`; copy it to change it."""
    from tests.training.small import SMALL
    from training.train import train

    return shared("trained", lambda out: train(replace(SMALL, data=str(toy_folder), out=out)))


@pytest.fixture(scope="session")
def left_alone(toy_folder: Path, shared: Callable, train_quickly: Callable) -> Path:
    """An `EXACT` run on `toy_folder` that nothing stopped, as under `quick` and `shrunk`; do not change it."""
    from tests.training.small import EXACT, shrink_networks

    def run(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            shrink_networks(patch.setattr)
            train_quickly(replace(EXACT, data=str(toy_folder), out=out))

    return shared("left_alone", run)


@pytest.fixture(scope="session")
def train_quickly() -> Callable[[TrainConfig], Run]:
    """`training.train.train` as under `quick`, for fixtures of a wider scope."""
    from training.train import train

    def run(config: TrainConfig) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            _train_quickly(patch)
            return train(config)

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains without tracing and plotting, for tests of a few steps whose subject is neither."""
    _train_quickly(monkeypatch)


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of three layers, for tests of runs for which any network will do; not together with `trained`."""
    from tests.training.small import shrink_networks

    shrink_networks(monkeypatch.setattr)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks without attention and MLPs, for tests of runs that look into stages; not together with `trained`."""
    from tests.training.small import lighten_networks

    lighten_networks(monkeypatch.setattr)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """`predict` and `predict_on_batch` of new models trace a graph, as they do for users."""
    import keras

    monkeypatch.setattr(keras.Model, "make_predict_function", keras.Model.make_predict_function.__wrapped__)


@pytest.fixture
def real_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of the device library start anew, as they do for users."""
    from segformer_tf.edge import child_process

    monkeypatch.setattr(child_process, "subprocess", subprocess)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes empty pictures."""
    _plot_nothing(monkeypatch)


def _train_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.Model, "run_eagerly", property(lambda self: True, lambda self, value: None))
    _plot_nothing(monkeypatch)


def _plot_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())
    # The layout of a figure takes longer than its file.
    panels = (f"tasks.{task}.plot_panel" for task in ("segmentation", "classification", "painting"))
    for plot in ("runs.callbacks.plot_history", *panels):
        monkeypatch.setattr(f"training.{plot}", lambda _, out, **__: Path(out).touch())
