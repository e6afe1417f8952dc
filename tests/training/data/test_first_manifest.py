"""A folder without a manifest: what is assumed, written and remembered."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from tests.training.folders import palette
from tests.training.small import SMALL
from training.config import TrainConfig
from training.data import first_manifest as module
from training.data.classes import open_classes
from training.data.first_manifest import first_manifest
from training.data.folder.assume import assume
from training.data.folder.cut import Cut, choose_cut
from training.data.open import open_source
from training.tasks.segmentation import Segmentation
from training.train import train

RNG = np.random.default_rng(0)


def blocks(values: Sequence[Any], side: int = 4) -> np.ndarray:
    """A mask of squares side by side, one of each value or color."""
    return np.repeat(np.repeat(np.array([values], np.uint8), side, 0), side, 1)


def pair(folder: Path, masks: Sequence[Any]) -> Path:
    """``folder/{images,masks}`` with noise for images."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i, mask in enumerate(masks):
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture.save(folder / "masks" / f"{i}.png")
        noise = RNG.integers(0, 256, (picture.height, picture.width, 3), np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{i}.png")
    return folder


def write_first(root: Path) -> None:
    first = first_manifest(str(root))
    assert first
    first.keep()


def classes(root: Path) -> list[tuple[Any, ...]]:
    assumption = assume(root)
    assert assumption is not None
    return [(row["id"], row["name"], row["color"]) for row in assumption.data["classes"]]


@pytest.mark.parametrize(
    ("values", "ids", "ignored"),
    [
        ([0, 255], [0, 255], []),  # a thing and the rest
        ([0, 1, 2, 255], [0, 1, 2], [255]),
        ([0, 1, 255], [0, 1], [255]),
        ([0, 85, 170, 255], [0, 85, 170, 255], []),  # spread over the range
        ([0, 127, 255], [0, 127, 255], []),
        ([0, 10, 20, 60, 255], [0, 10, 20, 60], [255]),
        ([3, 7], [3, 7], []),
    ],
)
def test_classes_are_the_values_of_masks(values: list[int], ids: list[int], ignored: list[int], tmp_path: Path) -> None:
    root = pair(tmp_path / "data", [blocks(values)] * 2)
    assumption = assume(root)
    assert assumption is not None
    assert ([row["id"] for row in assumption.data["classes"]], assumption.data["ignore"]) == (ids, ignored)
    write_first(root)
    expected = [ids.index(value) if value in ids else IGNORE_ID for value in values]
    np.testing.assert_array_equal(open_source(str(root), "train")[0][1][0, ::4], expected)


def test_two_values_are_background_and_object(tmp_path: Path) -> None:
    assert [row[1] for row in classes(pair(tmp_path / "data", [blocks([0, 255])] * 2))] == ["background", "object"]


def test_palettes_give_the_colors(tmp_path: Path) -> None:
    colors = [[0, 0, 0], [9, 8, 7], [200, 0, 0]]
    root = pair(tmp_path / "data", [palette(blocks([0, 1, 2]), colors), palette(blocks([2, 0]), colors)])
    assert [row[2] for row in classes(root)] == colors
    write_first(root)
    shown = [open_source(str(root), split)[0][1][0, ::4].tolist() for split in ("train", "val")]
    assert sorted(shown) == [[0, 1, 2], [2, 0]]


def test_palettes_that_tell_nothing_leave_the_values_alone(tmp_path: Path) -> None:
    # value 1 has the color that class 0 gets by default: by its color it would become class 0
    root = pair(tmp_path / "data", [palette(blocks([0, 1, 2]), [[5, 5, 5], [128, 0, 0], [5, 5, 5]])] * 2)
    write_first(root)
    np.testing.assert_array_equal(open_source(str(root), "train")[0][1][0, ::4], [0, 1, 2])


def test_colors_are_classes(tmp_path: Path) -> None:
    colors = [[0, 0, 0], [10, 200, 30], [255, 255, 0]]
    root = pair(tmp_path / "data", [blocks(colors)] * 2)
    assert [row[2] for row in classes(root)] == colors
    write_first(root)
    np.testing.assert_array_equal(open_source(str(root), "train")[0][1][0, ::4], [0, 1, 2])


def test_gray_saved_as_color_is_shown_in_colors(tmp_path: Path) -> None:
    root = pair(tmp_path / "data", [blocks([[v, v, v] for v in (0, 1, 2, 255)])] * 2)
    assert [row[2] for row in classes(root)][1] == [[0, 128, 0], [1, 1, 1]]
    write_first(root)
    np.testing.assert_array_equal(open_source(str(root), "train")[0][1][0, ::4], [0, 1, 2, IGNORE_ID])


def smoothed() -> np.ndarray:
    big = Image.fromarray(blocks([0, 255, 0], 30))
    return np.asarray(big.resize((37, 13), Image.Resampling.BICUBIC).rotate(7, Image.Resampling.BILINEAR))


def halved(how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """Five classes, of which interpolation makes no other value."""
    classes = np.random.default_rng(1).integers(0, 5, (8, 10), np.uint8)
    big = Image.fromarray(np.repeat(np.repeat(classes, 14, 0), 14, 1))
    return np.asarray(big.resize((big.width // 2 + 1, big.height // 2 + 1), how))


def test_masks_resized_by_nearest_neighbor_are_taken(tmp_path: Path) -> None:
    assert len(classes(pair(tmp_path / "data", [halved(Image.Resampling.NEAREST)] * 2))) == 5


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([smoothed()], r"0\.png: looks smoothed: \d+ values .* along borders alone"),
        ([np.repeat(smoothed()[..., None], 3, 2)], r"looks smoothed: \d+ colors"),
        ([halved(), halved(), blocks(range(5))], r"0\.png: looks smoothed: between two values .* in 2 of 3 masks"),
        ([RNG.integers(0, 256, (90, 90, 3), np.uint8)], r"\d+ colors, as a photograph has"),
        ([blocks(range(end)) for end in (4, 9, 12)], r"the values 1, 2, 3 … to an end of its own, 3 to 11, "),
        ([blocks([0, 1]), blocks([[0, 0, 0], [1, 1, 1]])], r"two kinds: .*1\.png holds colors, .*0\.png values"),
        ([blocks([7])], "masks of 2 to 255 classes. They hold 1: 7"),
        ([palette(blocks([0, 1]), [[0, 0, 0], [i, 9, 0]]) for i in (1, 2)], r"palettes differ: value 1 is \(1, 9, 0\)"),
        ([Image.fromarray(np.zeros((4, 4, 4), np.uint8))], "every pixel of its masks is transparent"),
    ],
)
def test_masks_that_are_no_classes_are_refused(masks: list, message: str, tmp_path: Path) -> None:
    root = pair(tmp_path / "data", masks)
    with pytest.raises(InputError, match=message):
        first_manifest(str(root))
    assert not (root / "dataset.json").exists()


def test_names_are_compared_with_their_letters_composed(tmp_path: Path) -> None:
    root = pair(tmp_path / "data", [blocks([0, 1, 2])] * 3)
    folder = next(root.rglob("masks")).parent
    (folder / "images" / "0.png").rename(folder / "images" / "e\u0301.png")
    (folder / "masks" / "0.png").rename(folder / "masks" / "\u00e9.png")
    assert assume(root)
    (folder / "masks" / "1.PNG").write_bytes((folder / "masks" / "1.png").read_bytes())
    with pytest.raises(InputError, match=r"masks of one name: 1.PNG, 1.png; remove one"):
        assume(root)


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    root = pair(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), [blocks([0, 1, 2])] * 3)
    write_first(root)
    assert len(open_source(str(root), "train").labels.names) == 3


def test_thin_classes_are_not_taken_for_smoothing(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), np.uint8)
    for value in (1, 2, 3, 4):  # wires on a background: nothing solid lies above them
        mask[4 * value] = value
    assert len(classes(pair(tmp_path / "data", [mask] * 2))) == 5


def test_a_cut_depends_on_each_name_alone() -> None:
    stems = [f"{i:04}" for i in range(400)]
    whole, half = Cut(0.2, 3).validation(stems), Cut(0.2, 3).validation(stems[::2])
    assert half == whole & set(stems[::2])
    assert 50 < len(whole) < 110
    assert whole != Cut(0.2, 4).validation(stems)
    assert len(Cut(1e-9).validation(stems)) == 1
    assert len(Cut(1 - 1e-9).validation(stems)) == 399
    for seed in range(10):  # macOS takes letters apart
        assert ("é" in Cut(0.5, seed).validation(["é", *stems])) == (
            "e\u0301" in Cut(0.5, seed).validation(["e\u0301", *stems])
        )


def test_a_chosen_cut_leaves_every_class_in_train() -> None:
    stems = [f"{i}" for i in range(20)]
    shown = [frozenset({0, 1} if i != 13 else {0, 2}) for i in range(20)]
    cut = choose_cut(stems, shown, 0.1)
    assert "13" not in cut.validation(stems)
    assert len(cut.validation(stems)) == 2
    assert "13" in [s for seed in range(100) for s in Cut(0.1, seed).validation(stems)]  # others would not


def test_what_is_assumed_is_remembered(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = pair(tmp_path / "data", [blocks([0, 1, 2])] * 30)
    write_first(root)
    printed = capsys.readouterr().out
    assert "no dataset.json, so this is assumed:" in printed
    assert f"what was assumed is written to {root / 'dataset.json'}" in printed
    assert "3 classes, by the values of 30 masks: class 0, class 1, class 2" in printed
    assert "3 of the 30 images of train are kept for validation" in printed
    train_split, validation = (open_source(str(root), split) for split in ("train", "val"))
    assert (len(train_split), len(validation)) == (27, 3)
    assert not set(train_split.images) & set(validation.images)
    assert {path.name for path in open_source(str(root), "valid").images} == {p.name for p in validation.images}
    before = (root / "dataset.json").read_bytes()
    assert first_manifest(str(root)) is None  # there is one now
    Image.new("RGB", (4, 4)).save(root / "images" / "new.png")
    Image.new("L", (4, 4)).save(root / "masks" / "new.png")
    assert set(validation.images) <= set(open_source(str(root), "val").images)
    assert (root / "dataset.json").read_bytes() == before


def test_splits_of_their_own_are_left_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, values in (("train", [0, 1]), ("valid", [0, 2]), ("test", [0, 3])):
        pair(root / split, [blocks(values)] * 2)
    write_first(root)
    assert "validation" not in json.loads((root / "dataset.json").read_text())
    assert [len(open_source(str(root), split)) for split in ("train", "val", "valid", "test")] == [2] * 4
    assert len(open_source(str(root), "train").labels.names) == 4  # classes of all splits


def test_a_cut_beside_a_folder_of_validation_is_refused(tmp_path: Path) -> None:
    root = pair(tmp_path / "data", [blocks([0, 1])] * 4)
    write_first(root)
    pair(root / "valid", [blocks([0, 1])])
    with pytest.raises(InputError, match='"validation" of the manifest cuts train, but valid/ is here, too'):
        open_source(str(root), "train")


def test_without_validation_the_cut_is_named(tmp_path: Path) -> None:
    root = pair(tmp_path / "data", [blocks([0, 1])] * 4)
    write_first(root)
    manifest = json.loads((root / "dataset.json").read_text())
    del manifest["validation"]
    (root / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r'splits here: train; "validation": {"share": 0\.1, "seed": 0} in the manifest'
    ):
        open_source(str(root), "val")
    assert len(open_source(str(root), "train")) == 4


def test_a_split_given_as_a_folder_gets_no_manifest(toy_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(toy_folder, tmp_path / "data"))
    assert first_manifest(str(root / "train")) is None
    assert not (root / "train" / "dataset.json").exists()


@pytest.fixture
def flat(toy_folder: Path, tmp_path: Path) -> Path:
    """The toy shapes of train as one pair of folders, without a manifest."""
    for kind in ("images", "masks"):
        shutil.copytree(toy_folder / "train" / kind, tmp_path / "data" / kind)
    return tmp_path / "data"


def options(flat: Path) -> TrainConfig:
    return replace(SMALL, data=str(flat), out=flat.parent / "run", steps=2)


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_folder_that_cannot_be_written_has_its_manifest_in_the_run(
    flat: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(path: Path, data: dict) -> None:
        raise InputError(f"{path}: cannot be written (Read-only file system)")

    monkeypatch.setattr(module, "write_new", refuse)
    run = train(options(flat))
    assert f"the assumed dataset.json is kept in the run folder, as {flat} cannot be written" in capsys.readouterr().out
    assert not (flat / "dataset.json").exists()
    again = Segmentation(options(flat))  # as a run that is resumed
    again.open(run)
    assert "assumed" not in capsys.readouterr().out
    assert [len(again.source), len(again.validation)] == [5, 1]
    assert again.validation.images == open_source(str(run.manifest), "val").images
    assert {path.parent.parent for path in again.source.images} == {flat.resolve()}
    with pytest.raises(InputError, match="no manifest"):
        open_source(str(flat), "val")


def test_a_first_run_and_the_next_read_the_same(flat: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = Segmentation(options(flat)), Segmentation(options(flat))
    first.open(None)
    assert "written to" in capsys.readouterr().out
    second.open(None)
    assert "assumed" not in capsys.readouterr().out
    assert (first.records, second.records) == ({}, {})
    assert first.validation.images == second.validation.images


def test_a_pair_that_does_not_fit_leaves_no_manifest(flat: Path, capsys: pytest.CaptureFixture) -> None:
    image = max((flat / "images").iterdir())
    with Image.open(image) as opened:
        good = opened.copy()
    Image.new("RGB", (3, 5)).save(image)
    with pytest.raises(InputError, match=image.stem):
        Segmentation(options(flat)).open(None)
    assert not (flat / "dataset.json").exists()
    good.save(image)
    Segmentation(options(flat)).open(None)
    assert (flat / "dataset.json").is_file()


def test_classes_that_train_lacks_are_refused_with_a_manifest_to_mend(toy_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(toy_folder, tmp_path / "data"))
    (root / "dataset.json").unlink()
    with Image.open(mask := min((root / "val" / "masks").iterdir())) as opened:
        changed = np.asarray(opened).copy()
    changed[0, 0] = 99
    Image.fromarray(changed).save(mask)
    with pytest.raises(InputError, match=r"no mask shows class 99 .* in dataset\.json"):
        Segmentation(options(root)).open(None)
    assert (root / "dataset.json").is_file()


def test_valid_is_taken_for_val_in_folders_of_classes(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / name / "a.png")
    assert [len(split) for split in open_classes(str(tmp_path), "train", "val")] == [2, 2]
