"""12 bits in 16-bit files: detected or given, kept with run and model, and used wherever images are read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from convert.export import export_tflite
from segformer_tf import build_segformer
from segformer_tf.cli import main
from segformer_tf.edge import Segmenter, list_images, load_image, read_model_info
from segformer_tf.errors import InputError
from tests.edge.test_depth import color_png
from tests.helpers import perturb
from tests.training.small import SMALL
from training.config import PretrainConfig, TrainConfig
from training.data.classes import open_classes
from training.data.image_bits import DEPTHS, settle_bits
from training.runs.folder import Run
from training.tasks.classification import Classification
from training.tasks.segmentation import Segmentation


@pytest.fixture(scope="module")
def gray_folder(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy shapes as a camera of 12 bits writes them, and beside each image the 8 bits that it should be read as."""
    root = tmp_path_factory.mktemp("gray") / "gray"
    shutil.copytree(toy_folder, root)
    for path in root.glob("*/images/*.png"):
        with Image.open(path) as opened:
            deep = np.asarray(opened.convert("L")).astype(np.uint16) << 4
        deep[0, 0] = 4000
        Image.fromarray(deep).save(path)
    return root


@pytest.fixture
def folder(gray_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(gray_folder, tmp_path / "gray")


def say(folder: Path, bits: object) -> None:
    manifest = folder / "dataset.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "bits": bits}))


def opened(folder: Path, *, run: Run | None = None, **options: object) -> Segmentation:
    task = Segmentation(replace(SMALL, data=str(folder), **options))
    task.open(run)
    return task


def test_detected_bits_go_with_run_and_model(gray_folder: Path, capsys: pytest.CaptureFixture) -> None:
    task = opened(gray_folder)
    line = f"{gray_folder}: image files of more than 8 bits reach 4000, taken for 12 bits; if that is wrong"
    assert any(printed.startswith(line) for printed in capsys.readouterr().out.splitlines())
    assert task.config.bits == 12
    assert task.model().config.image_bits == 12
    for source in (task.source, task.validation):
        assert source[0][0].max() == 4000 >> 4
    images = task.source.images  # type: ignore[attr-defined]
    with Image.open(images[0]) as picture:
        np.testing.assert_array_equal(task.source[0][0][..., 1], np.asarray(picture) >> 4)


def test_option_and_manifest_come_before_detection(folder: Path, capsys: pytest.CaptureFixture) -> None:
    say(folder, 14)
    assert opened(folder).config.bits == 14
    task = opened(folder, bits=16)
    assert (task.config.bits, task.source.bits, task.validation.bits) == (16, 16, 16)
    assert "taken for" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"images/\d\.png: pixels reach 4000, more than the 11 bits \(--bits\)"):
        opened(folder, bits=11)
    say(folder, "12")
    with pytest.raises(InputError, match=r"dataset\.json: bits must be an integer from 8 to 16\. Received: '12'"):
        opened(folder)


@pytest.mark.parametrize("bits", [None, 14])
def test_a_run_that_goes_on_keeps_its_bits(bits: int | None, folder: Path, tmp_path: Path) -> None:
    say(folder, 12)
    task = opened(folder, run=Run(tmp_path / "run"), bits=bits)
    assert (task.config.bits, task.source.bits) == (bits, bits)
    assert TrainConfig(bits=bits).to_dict()["bits"] == bits


def test_eight_bits_need_no_line(toy_folder: Path, capsys: pytest.CaptureFixture) -> None:
    task = opened(toy_folder)
    assert task.config.bits is None
    assert "bits" not in capsys.readouterr().out


def test_weights_keep_their_bits_where_the_data_says_nothing(
    gray_folder: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    build_segformer("tiny", num_classes=6, image_bits=14).save(tmp_path / "weights.keras")
    assert opened(toy_folder, weights=tmp_path / "weights.keras").model().config.image_bits == 14
    assert opened(gray_folder, weights=tmp_path / "weights.keras").model().config.image_bits == 14  # these are darker
    assert "reach 4000, taken for 14 bits, as --weights have 14; if" in capsys.readouterr().out
    build_segformer("tiny", num_classes=6, image_bits=10).save(tmp_path / "weights.keras")
    assert opened(gray_folder, weights=tmp_path / "weights.keras").model().config.image_bits == 12


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (65535, 16)])
def test_the_largest_value_tells_the_depth(largest: int, bits: int, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint16)
    names = [f"{i:03}.png" for i in range(100)]
    for name in names:
        Image.fromarray(pixels).save(tmp_path / name)
    pixels[3, 4] = largest
    Image.fromarray(pixels).save(tmp_path / names[50])  # not the first or last
    source = SimpleNamespace(bits=None, images=[tmp_path / name for name in names])
    assert settle_bits(SMALL, [source], new=True) == source.bits == bits
    assert bits in DEPTHS


def test_what_cannot_be_read_so_is_refused(folder: Path, capsys: pytest.CaptureFixture) -> None:
    first = folder / "train" / "images" / "0.png"
    first.write_bytes(color_png((np.arange(128 * 128).reshape(128, 128) % 4001).astype(np.uint16)))
    task = opened(folder, bits=12)
    with pytest.raises(InputError, match=r"0\.png: 16 bits a channel in colour, .* so not 12 \(--bits\)"):
        task.source[0]
    task = opened(folder)  # is not guessed so
    assert (task.config.bits, task.source[0][0].max()) == (16, 4000 >> 8)
    assert "bits taken for 16 bits; if" in capsys.readouterr().out
    Image.fromarray(np.full((128, 128), 70_000, np.int32)).save(folder / "train" / "images" / "1.tif")
    (folder / "train" / "images" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.tif: pixels are 70000\.\.70000; expected 8 or 16 bits"):
        opened(folder).source[1]
    with pytest.raises(InputError, match="--bits is for folders"):
        opened("tfds:toy_shapes", bits=12)  # type: ignore[arg-type]


def test_classes_of_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for split in ("train", "val"):
        for name, value in (("dark", 100), ("light", 900)):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.full((32, 32), value, np.uint16)).save(tmp_path / split / name / "0.png")
    task = Classification(PretrainConfig(data=str(tmp_path), variant="tiny", crop=(32, 32)))
    task.open(None)
    assert "reach 900, taken for 10 bits" in capsys.readouterr().out
    assert (task.config.bits, task.model().config.image_bits) == (10, 10)
    assert [int(task.source[i][0].max()) for i in (0, 1)] == [100 >> 2, 900 >> 2]
    assert open_classes(str(tmp_path), "train")[0].bits is None


def test_the_device_reads_images_as_training_did(
    gray_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = perturb(build_segformer("tiny", num_classes=6, image_bits=12))
    out, images = tmp_path / "model.tflite", list_images([gray_folder / "test" / "images"])
    export_tflite(model, out, recipe="fp32", size=(64, 64), images=images, runtimes=["litert"])
    info = read_model_info(out)
    assert info.bits == 12
    assert info.input_contract["bits"] == 12
    segmenter = Segmenter(out, runtime="litert")
    assert segmenter.bits == 12
    result = segmenter(images[0])
    np.testing.assert_array_equal(result.image, load_image(images[0], bits=12))
    np.testing.assert_array_equal(result.mask, segmenter(result.image).mask)
    assert (result.mask != Segmenter(out, runtime="litert")(load_image(images[0])).mask).any()
    main(["predict", str(out), str(images[0]), "--out", str(tmp_path / "seen")])
    with Image.open(tmp_path / "seen" / f"{images[0].stem}_mask.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), result.mask)
    main(["info", str(out)])
    assert "12 of files of more than 8" in capsys.readouterr().out


def test_evaluation_reads_as_model_and_manifest_say(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def score(bits: int | None) -> tuple[float, str]:
        perturb(build_segformer("tiny", num_classes=6, image_bits=bits)).save(tmp_path / "model.keras")
        main(["evaluate", str(tmp_path / "model.keras"), "--data", str(folder), "--split", "test", "--json"])
        printed = capsys.readouterr()
        return json.loads(printed.out)["pixel_accuracy"], printed.err

    dark, line = score(None)
    assert "their values reach 4" in line
    assert 'write "bits" into dataset.json' in line
    say(folder, 12)
    right, line = score(12)
    assert "bits" not in line
    by_manifest, line = score(None)  # of a model that was trained on 8 bits
    assert "the data has 12 bits by its manifest, the model says none" in line
    fewer, line = score(14)
    assert "said to have 12 bits, the model takes 14" in line
    assert right == by_manifest
    assert len({dark, right, fewer}) == 3
