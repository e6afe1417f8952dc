"""Every recipe on the ARM builds of both runtimes: no crash, and the logits of Keras and of the same file on x86."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convert.export import export_tflite
from convert.exported import compare, run_on
from convert.graph.metadata import write_with_files
from convert.quantize.recipes import RECIPES
from convert.sample_images import synthetic_images
from segformer_tf import build_segformer
from segformer_tf.edge.metadata import INFO_FILE, read_model_info
from segformer_tf.edge.runtime import RUNTIMES
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels
from tests.arm.boards import BOARDS, FOLDER
from tests.arm.table import Row
from tests.helpers import perturb

pytestmark = pytest.mark.arm

SIZES = {"tiny": (97, 161), "b0": (128, 128)}  # emulation is slow
FLOAT_ARITHMETIC = {"fp32", "fp16", "weight_int8"}


@dataclass(frozen=True)
class Case:
    """A file, by variant, recipe and the runtimes it is made for, on a runtime and a board."""

    variant: str
    recipe: str
    targets: tuple[str, ...]
    runtime: str
    board: str

    def __str__(self) -> str:
        return f"{self.variant}-{self.recipe}-for-{'+'.join(self.targets)}-on-{self.runtime}-{self.board}"


@dataclass(frozen=True)
class Made:
    """A file, an image of its size, Keras' logits for it, and the file's own on x86, by runtime."""

    file: Path
    image: Pixels
    keras: NDArray[np.float32]
    x86: dict[str, NDArray[np.float32]]


CASES = [
    Case(variant, name, targets, runtime, board)
    for variant in SIZES
    for name, recipe in RECIPES.items()
    for targets in dict.fromkeys(tuple(recipe.fitting(wanted)) for wanted in (list(RUNTIMES), ["tflite-runtime"]))
    for runtime in targets
    for board in BOARDS
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, tuple[str, ...]], Made]:
    folder = tmp_path_factory.mktemp("arm")
    model_of = cache(lambda variant: perturb(build_segformer(variant, num_classes=11)))

    @cache
    def make(variant: str, recipe: str, targets: tuple[str, ...]) -> Made:
        model, size = model_of(variant), SIZES[variant]
        pixels = synthetic_images(size, 4)
        images = [folder / f"{variant}_{number}.png" for number in range(len(pixels))]
        for path, image in zip(images, pixels, strict=True):
            Image.fromarray(image).save(path)
        out = folder / f"{variant}_{recipe}_{len(targets)}.tflite"
        export_tflite(model, out, recipe=recipe, size=size, images=images, runtimes=targets)
        x86 = {runtime: run_on(out, pixels[:1], runtime=runtime) for runtime in targets}
        return Made(out, pixels[0], model.logits(pixels[0][None]), x86)

    return make


@pytest.mark.parametrize("case", CASES, ids=str)
def test_arm_agrees(case: Case, made: Callable, arm_table: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    it = made(case.variant, case.recipe, case.targets)
    row = Row(case.variant, case.recipe, "+".join(case.targets), case.runtime, case.board)
    arm_table.append(row)
    monkeypatch.setattr("sys.executable", str(FOLDER / case.board / "python"))  # what runs a file's process
    start = time.perf_counter()
    try:
        on_arm = run_on(it.file, [it.image], runtime=case.runtime)
    except InputError as error:
        row.verdict = str(error)
        raise
    row.seconds = time.perf_counter() - start
    keras, x86 = (compare(on_arm, logits, name=case.board) for logits in (it.keras, it.x86[case.runtime]))
    row.error, row.error_to_x86, row.same_class = keras.error, x86.error, keras.agreement
    # A last bit that integers round otherwise grows to some percent on its way; a wrong kernel is off by half.
    allowed = RECIPES[case.recipe].tolerance
    right = keras.error <= allowed and x86.error <= (1e-5 if case.recipe in FLOAT_ARITHMETIC else allowed / 2)
    row.verdict = "right" if right else "wrong"
    assert right, row


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float16_is_used_where_the_processor_has_it(
    runtime: str, board: str, made: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runtimes heed the file's entry: the same file without it gives other bits on a Cortex-A76 only."""
    it = made("tiny", "fp16_compute", tuple(RUNTIMES))
    with zipfile.ZipFile(it.file) as archive:
        length = json.loads(archive.read(INFO_FILE))["model"]["bytes"]
    asking = it.file.read_bytes()[:length]
    silent = asking.replace(b"reduced_precision_support", b"reduced_precision_ignored")
    assert silent != asking
    write_with_files(silent, read_model_info(it.file), plain := tmp_path / "plain.tflite")
    monkeypatch.setattr("sys.executable", str(FOLDER / board / "python"))
    results = [run_on(file, [it.image], runtime=runtime) for file in (it.file, plain)]
    assert np.array_equal(*results) == (board == "cortex-a72")
    assert compare(results[0], results[1], name=board).error < RECIPES["fp16_compute"].tolerance
