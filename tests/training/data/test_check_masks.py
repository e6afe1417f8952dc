"""The check before a training: its counts, its lines and its errors."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from segformer_tf import build_segformer
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from tests.training.folders import COLORS, EVERY, ROWS, palette, write_folder
from tests.training.small import SMALL
from training.data.check_masks import check_masks, check_split, sampled_pixels
from training.data.classes import open_classes
from training.data.folder.source import FolderSource
from training.data.open import open_source
from training.optim.losses import rare_class_weights
from training.tasks.segmentation import Segmentation
from training.train import resume, train


def check(root: Path, **options: bool) -> np.ndarray:
    tally = check_masks(open_source(str(root), "train"), open_source(str(root), "val"), **options)
    assert tally is not None
    return tally.sampled


def test_the_table_counts_pixels_and_images_of_each_class(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [{**ROWS[0], "name": "back[/ground]"}, {**ROWS[1], "name": "[red]"}, ROWS[2]]
    masks = [EVERY, np.zeros((2, 3), np.uint8), np.full((2, 2), 255, np.uint8)]
    root = write_folder(tmp_path / "data", masks, val=[np.array([[2, 2, 1, 0]], np.uint8)], rows=rows)
    np.testing.assert_array_equal(check(root), [9, 2, 1])
    lines = capsys.readouterr().out.splitlines()
    below = next(i for i, line in enumerate(lines) if "───" in line) + 1
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[below:] if line.strip()] == [
        ["back[/ground]", "56.25", "2", "25.00", "1"],
        ["[red]", "12.50", "1", "25.00", "1"],
        ["c2", "6.25", "1", "50.00", "1"],
        ["ignored", "25.00", "-"],
    ]
    check(root, quiet=True)
    assert not any(capsys.readouterr())


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (np.array([[0, 0, 0, 255]], np.uint8),
         r"train: no mask shows c1 \(id 1\), c2 \(id 2\), val alone shows c1, c2; its masks hold values 0 \(75 %\), "
         r'255 \(25 %\)\. 255 is ignored, as no class has that id: where it is c1, write "id": 255 for c1 in '
         r"dataset\.json, or give --allow-missing-classes$"),
        (np.array([[0, 1, 1, 1]], np.uint8),
         r"no mask shows c2 \(id 2\), val alone shows c2; .* values 1 \(75 %\), 0 \(25 %\)\. Give c2 the id"),
        (np.full((1, 4), 255, np.uint8),
         r"train: every pixel is ignored; its masks hold values 255 \(100 %\)\. 255 is ignored, as .*that class in"),
        (np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8),
         r"no mask shows c0 \(id 0\).* hold colors \(0, 255, 0\) \(50 %\), \(255, 0, 0\) \(50 %\)\."),
        (Image.merge("LA", [Image.fromarray(np.array([[0, 1, 2]], np.uint8)),
                            Image.fromarray(np.array([[0, 9, 9]], np.uint8))]),
         r"no mask shows c0 .* transparent \(33 %\)\. Transparent pixels are ignored, save the masks without alpha"),
    ],
)  # fmt: skip
def test_classes_that_nothing_shows_are_refused(train: object, message: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [train], val=[EVERY])
    with pytest.raises(InputError, match=message) as refused:
        check(root)
    assert len(str(refused.value).splitlines()) == 1


def test_a_wholly_ignored_validation_is_always_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY], val=[np.full_like(EVERY, 255)])
    with pytest.raises(InputError, match="val: every pixel is ignored"):
        check(root, allow_missing=True)


def test_missing_classes_can_be_allowed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_folder(tmp_path / "data", [np.array([[0, 1, 1]], np.uint8)])
    np.testing.assert_array_equal(check(root, allow_missing=True), [1, 2, 0])
    assert "no mask shows c2 (id 2); its masks hold values 1 (67 %)" in capsys.readouterr().out


@pytest.mark.parametrize("fresh", [True, False])
def test_class_weights_are_the_same_bits_without_a_second_pass(
    fresh: bool, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(str(toy_folder), "train")
    pixels = np.zeros(6)
    for i in range(len(source)):
        pixels += np.bincount(source[i][1].ravel(), minlength=256)[:6]
    expected = (np.log(1.02 + pixels / max(pixels.sum(), 1)) ** -0.4).tolist()
    assert rare_class_weights(sampled_pixels(source), 0.4) == expected
    task = Segmentation(replace(SMALL, data=str(toy_folder), class_weights=0.4, eval_size=(64, 64)))
    if fresh:
        task.open(None)
        monkeypatch.setattr("training.tasks.segmentation.sampled_pixels", None)  # would read the masks again
    else:
        task.source = source  # a run that goes on checks nothing
    assert task.loss().class_weights == expected


def test_a_large_split_is_sampled_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.check_masks._SAMPLED", 3)
    root = write_folder(tmp_path / "data", [np.full((1, i + 1), i % 3, np.uint8) for i in range(6)])
    np.testing.assert_array_equal(check(root), [1, 0, 9])  # of the masks 0, 2 and 5


def test_palettes_in_another_order_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    orders = ([0, 1, 2], [1, 2, 0], [2, 0, 1])
    masks = [palette(np.argsort(o).astype(np.uint8)[EVERY], [COLORS[k] for k in o]) for o in orders]
    root = write_folder(tmp_path / "data", masks, val=masks[:1])
    np.testing.assert_array_equal(check(root), 3 * np.array([3, 2, 1]))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "palette" in line]
    assert "in 2 masks, such as " in line
    assert "colors decide; palettes differ: value 0 is (0, 0, 0) in" in line
    check(write_folder(tmp_path / "same", masks[:1]))
    assert "palette" not in capsys.readouterr().out


def test_an_ignored_value_beyond_a_palette_is_accepted(tmp_path: Path) -> None:
    mask = palette(np.array([[0, 1, 2, 255]], np.uint8), [*COLORS[2::-1], *[[0, 0, 0]] * 253])
    check(write_folder(tmp_path / "data", [mask], ignore=[255]))


@pytest.mark.parametrize(
    ("palettes", "message"),
    [
        ([[[9, 9, 9], [8, 8, 8], [7, 7, 7]], [[8, 8, 8], [9, 9, 9], [7, 7, 7]]],
         "palettes differ: value 0 is .*; values decide, as some colors"),
        ([[[255, 0, 0], [0, 0, 0], [9, 9, 9]]], "in 2 masks, such as .* but not all are the manifest's: values decide"),
        ([[[9, 9, 9], [8, 8, 8], [7, 7, 7]]], None),
    ],
)  # fmt: skip
def test_palettes_that_are_not_the_manifests(
    palettes: list, message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    check(write_folder(tmp_path / "data", [palette(EVERY, colors) for colors in palettes]))
    lines = [line for line in capsys.readouterr().out.splitlines() if "palette" in line]
    assert len(lines) == (message is not None)
    if message:
        assert re.search(message, lines[0])


@pytest.mark.parametrize(
    "masks",
    [
        # the same palette, but one mask shows a color that is not the manifest's
        [palette(np.array([[0, 1, 1]], np.uint8), [COLORS[1], COLORS[0], [9, 9, 9]]),
         palette(np.array([[0, 1, 2]], np.uint8), [COLORS[1], COLORS[0], [9, 9, 9]])],
        # sorted palettes, and what is ignored has a color that the manifest does not name
        [palette(np.array([[0, 1, 2]], np.uint8), [COLORS[1], COLORS[0], [9, 9, 9]]),
         palette(np.array([[0, 1, 2]], np.uint8), [COLORS[0], COLORS[1], [9, 9, 9]])],
    ],
)  # fmt: skip
def test_palettes_that_would_be_read_in_two_ways_are_refused(masks: list, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", masks)
    with pytest.raises(InputError, match=r"\.png: its palette's colors mean other classes .* every color of the pal"):
        check(root)


def test_a_split_is_scored_as_it_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`evaluate` says how palettes are read, and refuses what a training would."""
    build_segformer("tiny", num_classes=3).save(tmp_path / "model.keras")

    def score(masks: list) -> str:
        root = write_folder(tmp_path / f"data{len(list(tmp_path.iterdir()))}", masks, image_size=(32, 32))
        main(["evaluate", str(tmp_path / "model.keras"), "--data", str(root), "--split", "val", "--size", "32", "32"])
        return capsys.readouterr().err

    large = np.tile(np.array([[0, 1]], np.uint8), (32, 16))
    assert "the colors are the manifest's and mean other classes" in score([palette(large, COLORS[1::-1])])
    assert "palette" not in score([palette(large, COLORS[:2])])
    with pytest.raises(SystemExit):
        score([np.full((32, 32), 255, np.uint8)])
    assert "val: every pixel is ignored" in capsys.readouterr().err
    mixed = [palette(np.minimum(large + k, 2), [COLORS[1], COLORS[0], [9, 9, 9]]) for k in (0, 1)]
    with pytest.raises(SystemExit):
        score(mixed)
    assert "and in" in capsys.readouterr().err


def turned_mask(root: Path) -> np.ndarray:
    return FolderSource(root, "train")[0][1]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_turned_photographs_lie_as_the_manifest_says(orientation: int, tmp_path: Path) -> None:
    square = np.arange(9, dtype=np.uint8).reshape(3, 3) % 3
    root = write_folder(tmp_path / "silent", [square], orientation=orientation)
    with pytest.raises(InputError, match=r'0\.jpg: EXIF turns this photograph \(.*\), .*"exif": "apply" where masks'):
        check(root)
    with pytest.raises(InputError, match=r"EXIF turns this photograph"):
        turned_mask(root)
    root = write_folder(tmp_path / "apply", [square], orientation=orientation, exif="apply")
    np.testing.assert_array_equal(turned_mask(root), square)
    root = write_folder(tmp_path / "ignore", [square], orientation=orientation, exif="ignore")
    with Image.open(root / "train" / "images" / "0.jpg") as photograph:
        drawn = Image.fromarray(square)
        drawn.getexif()[0x0112] = photograph.getexif()[0x0112]
        np.testing.assert_array_equal(turned_mask(root), np.asarray(ImageOps.exif_transpose(drawn)))


def test_sizes_tell_how_masks_were_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    upright = np.ascontiguousarray(EVERY.T)
    np.testing.assert_array_equal(
        turned_mask(write_folder(tmp_path / "upright", [upright], image_size=(2, 3), orientation=6)), upright
    )
    check(tmp_path / "upright")
    out = capsys.readouterr().out
    assert "EXIF turns 2 photographs, such as" in out
    assert "masks lie over the upright picture, as viewers show it, as their sizes tell" in out
    root = write_folder(tmp_path / "stored", [EVERY], orientation=6)
    for read in (check, turned_mask):
        with pytest.raises(
            InputError, match=r'mask is \(2, 3\), its image \(3, 2\).*; EXIF turns it, .*"exif": "ignore"'
        ):
            read(root)
    root = write_folder(tmp_path / "explicit", [EVERY], orientation=6, exif="ignore")
    np.testing.assert_array_equal(turned_mask(root), np.rot90(EVERY, -1))
    check(root)
    assert 'masks lie over the pixels as stored, as "exif": "ignore" says' in capsys.readouterr().out
    root = write_folder(tmp_path / "wrong", [upright], image_size=(2, 3), orientation=6, exif="ignore")
    with pytest.raises(InputError, match=r'mask is \(3, 2\), its image \(2, 3\).*write "exif": "apply"'):
        check(root)


def test_photographs_that_nothing_turns_need_no_word(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    check(write_folder(tmp_path / "data", [np.arange(9, dtype=np.uint8).reshape(3, 3) % 3]))
    assert "EXIF" not in capsys.readouterr().out


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_that_goes_on_is_not_checked_again(toy_folder: Path, tmp_path: Path) -> None:
    """`--allow-missing-classes` is needed once."""
    data = Path(shutil.copytree(toy_folder, tmp_path / "data"))
    for path in (data / "train" / "masks").iterdir():
        raw = np.array(Image.open(path))
        Image.fromarray(np.where(raw == 50, 0, raw).astype(np.uint8)).save(path)
    config = replace(SMALL, data=str(data), out=tmp_path / "run", steps=1, epoch_steps=1, warmup_steps=0)
    with pytest.raises(InputError, match=r"no mask shows ring \(id 50\), val alone shows ring"):
        train(config)
    assert not (tmp_path / "run").exists()
    train(replace(config, allow_missing_classes=True))
    resume(tmp_path / "run")


def test_files_that_are_no_images_are_counted_and_those_of_phones_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = write_folder(tmp_path / "data", [EVERY, EVERY])
    with Image.open(root / "train" / "images" / "0.jpg") as image:
        pillow_heif.from_pillow(image).save(root / "train" / "images" / "0.heic")
    (root / "train" / "images" / "0.jpg").rename(root / "train" / "images" / "0.txt")
    train, val = (open_source(str(root), split) for split in ("train", "val"))
    check_masks(train, val)
    line = f"{root}/train/images: 1 file skipped: .txt 1"
    assert line in capsys.readouterr().out.splitlines()
    assert check_split(train) == [line]
    assert check_split(val) == []
    assert [path.name for path in train.images] == ["0.heic", "1.jpg"]
    assert train[0][0].shape == (2, 3, 3)


def test_files_in_folders_of_classes_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "0.png")
        (tmp_path / "train" / name / "notes.txt").touch()
    (source,) = open_classes(str(tmp_path), "train")
    assert source.skipped == f"{tmp_path}/train: 2 files skipped: .txt 2"
