"""examples/cpp, built and run: its masks are those of `Segmenter`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from segformer_tf.edge import Segmenter
from segformer_tf.model import SegFormer
from tests.cpp.tflite import FOLDER, LIBRARIES

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"
Run = Callable[..., subprocess.CompletedProcess]

pytestmark = pytest.mark.cpp


@pytest.fixture(scope="session")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The program, built by its CMakeLists.txt."""
    if not LIBRARIES.is_dir():
        pytest.fail(f"needs {FOLDER}: make test-cpp")
    build = tmp_path_factory.mktemp("build")
    # The library is of a newer libc than the linker's.
    settings = [f"-DTFLITE={FOLDER}", "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined"]
    subprocess.run(["cmake", "-S", SOURCE, "-B", build, *settings], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", build], check=True, stdout=subprocess.DEVNULL)
    (loader,) = LIBRARIES.glob("ld-linux-*.so.*")

    def run(*arguments: Path) -> subprocess.CompletedProcess:
        command = [loader, "--library-path", LIBRARIES, build / "segment", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("height", "width", "recipe", "least"),
    [
        *((97, 161, recipe, least) for recipe, least in (("fp32", 0.999), ("int8", 0.95))),
        (60, 400, "fp32", 0.999),
        (200, 333, "fp32", 0.999),
        (501, 333, "fp32", 0.98 if int(PIL.__version__.partition(".")[0]) < 13 else 0.999),
    ],
)
def test_mask_is_that_of_segmenter(
    segment: Run, tiny_files: dict, tmp_path: Path, height: int, width: int, recipe: str, least: float
) -> None:
    """Kernels of another build round otherwise, most of all integers; random weights are sensitive to that.

    The last size is reduced in another order by Pillow before 13: some pixels differ by 1 of 255.
    """
    blocks = np.random.default_rng(0).integers(0, 256, (height // 7 + 1, width // 9 + 1, 3), np.uint8)
    photo = blocks.repeat(7, 0).repeat(9, 1)[:height, :width]
    Image.fromarray(photo).save(tmp_path / "photo.ppm")
    done = segment(tiny_files[recipe], tmp_path / "photo.ppm", tmp_path / "mask.pgm")
    assert (done.returncode, done.stderr) == (0, "")
    ours = Segmenter(tiny_files[recipe])(photo).mask
    theirs = np.asarray(Image.open(tmp_path / "mask.pgm"))
    assert theirs.shape == ours.shape
    assert len(np.unique(ours)) > 1
    assert (theirs == ours).mean() >= least


def test_camvid(segment: Run, camvid: Path, tmp_path: Path) -> None:
    model = Path(__file__).parents[2] / "models" / "camvid_b0_int8.tflite"
    photo = Image.open(sorted((camvid / "test" / "images").iterdir())[0]).convert("RGB")
    photo.save(tmp_path / "photo.ppm")
    assert segment(model, tmp_path / "photo.ppm", tmp_path / "mask.pgm").returncode == 0
    mask = np.asarray(Image.open(tmp_path / "mask.pgm"))
    assert (mask == Segmenter(model)(np.asarray(photo)).mask).mean() >= 0.99


def test_a_class_map_before_the_logits(segment: Run, tiny: SegFormer, tmp_path: Path) -> None:
    from convert.export import export_tflite

    export_tflite(tiny, tmp_path / "map.tflite", recipe="fp32", class_map=True, size=(33, 65), runtimes=["litert"])
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.ppm")
    done = segment(tmp_path / "map.tflite", tmp_path / "photo.ppm", tmp_path / "mask.pgm")
    assert (done.returncode, done.stderr) == (0, "")
    ours = Segmenter(tmp_path / "map.tflite", runtime="litert")(photo).mask
    assert (np.asarray(Image.open(tmp_path / "mask.pgm")) == ours).mean() >= 0.99


def test_files_that_cannot_be_used_get_a_line(segment: Run, tiny_files: dict, tmp_path: Path) -> None:
    good, bad, mask = tmp_path / "good.ppm", tmp_path / "bad.ppm", tmp_path / "mask.pgm"
    Image.new("RGB", (40, 30)).save(good)
    bad.write_bytes(good.read_bytes()[:-1])
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(tiny_files["fp32"].read_bytes().replace(b"segformer.json", b"elsewhere.json"))
    for arguments, line in (
        ((bad, good, mask), "not a readable .tflite file"),
        ((tmp_path / "none.tflite", good, mask), "not a readable .tflite file"),
        ((foreign, good, mask), "not a file of segformer export"),
        ((tiny_files["fp32"], bad, mask), "ends early"),
        ((tiny_files["fp32"], tiny_files["fp32"], mask), "expected a binary PPM"),
        ((tiny_files["fp32"], good, tmp_path / "none" / "mask.pgm"), "cannot be written"),
    ):
        done = segment(*arguments)
        assert done.returncode == 1
        assert line in done.stderr.splitlines()[-1]
    assert not mask.exists()
