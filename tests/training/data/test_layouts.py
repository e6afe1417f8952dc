"""Folders of other layouts are recognized in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segformer_tf.errors import InputError
from tests.training.folders import EVERY, write_folder
from training.config import TrainConfig
from training.data.open import open_source
from training.tasks.segmentation import Segmentation

FOREIGN = {
    "PASCAL VOC": ["VOCdevkit/VOC2012/JPEGImages/a.jpg", "VOCdevkit/VOC2012/SegmentationClass/a.png"],
    "ADE20K": ["ADE/images/training/a.jpg", "ADE/annotations/training/a.png"],
    "Cityscapes": ["leftImg8bit/train/aachen/a_leftImg8bit.png", "gtFine/train/aachen/a_gtFine_labelIds.png"],
    "Roboflow's masks": ["train/_classes.csv", "train/a.jpg", "train/a_mask.png", "valid/_classes.csv"],
    "Roboflow's COCO": ["train/_annotations.coco.json", "train/a.jpg"],
    "COCO": ["annotations/instances_train2017.json", "train2017/a.jpg"],
    "YOLO": ["images/train/a.jpg", "labels/train/a.txt"],
    "ours under another name": ["train/images/a.jpg", "train/labels/a.png"],
    "mmsegmentation": ["img_dir/train/a.jpg", "ann_dir/train/a.png"],
    "SegNet's CamVid": ["train/a.png", "trainannot/a.png"],
    "images/train": ["images/train/a.jpg", "masks/train/a.png"],
    "CVAT": ["annotations.xml", "images/a.jpg"],
    "CamVid": ["class_dict.csv", "train/a.png", "train_labels/a_L.png"],
    "an export of a labeling tool": ["a.json", "a.jpg"],
}


def touch(root: Path, files: list[str]) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("manifest", [True, False])
def test_foreign_layouts_are_recognized(name: str, manifest: bool, tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, FOREIGN[name])
    if manifest:  # written by hand, in hope
        example = write_folder(tmp_path / "example", [EVERY])
        (root / "dataset.json").write_bytes((example / "dataset.json").read_bytes())
    with pytest.raises(InputError, match=rf"it looks like {name}.*expected here are dataset\.json and") as refused:
        open_source(str(root), "train")
    assert len(str(refused.value).splitlines()) == 1
    assert f"to convert it: segformer data import {root} --out data)" in str(refused.value)


def test_a_split_given_as_data_set_is_recognized(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    with pytest.raises(InputError, match=rf"this is one split of {root}; give --data {root}\)"):
        open_source(str(root / "train"), "train")


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (["images/a.jpg", "maks/a.png"], "images is here, {root}/masks is not, but maks; expected both"),
        (["imges/a.jpg", "masks/a.png"], "masks is here, {root}/images is not, but imges; expected both"),
        (["train/images/a.jpg"], "train/images is here, {root}/train/masks is not; expected both"),
        (["images/notes.txt", "masks/a.png"], "images holds no image: .jpg"),
        (["images/a.jpg", "masks/.hidden"], "masks: empty; expected a mask ("),
    ],
)
def test_the_missing_half_of_ours_is_named(files: list[str], line: str, tmp_path: Path) -> None:
    touch(tmp_path, files)
    with pytest.raises(InputError) as refused:
        Segmentation(TrainConfig(data=str(tmp_path))).open(None)
    assert f"{tmp_path}/{line.format(root=tmp_path)}" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("task.zip", ""), ("task.xml", ""), ("coco.json", '{"images": []}'), ("ls.json", "[]"), ("big.json", " " * 2**21)],
)
def test_an_export_given_as_data_set_is_named(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    command = f"; to convert an export: segformer data import {tmp_path / name} --out data"
    with pytest.raises(InputError, match=command):
        open_source(str(tmp_path / name), "train")


def test_validation_that_the_manifest_cuts_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY] * 3)
    manifest = json.loads((root / "dataset.json").read_text())
    shutil.rmtree(root / "val", ignore_errors=True)
    (root / "dataset.json").write_text(json.dumps({**manifest, "validation": {"share": 0.3, "seed": 0}}))
    line = "splits here: train, and val, which the manifest cuts from it; to score on that: --split val"
    with pytest.raises(InputError, match=line):
        open_source(str(root), "test")


def test_what_is_unknown_is_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, ["photos/a.jpg", "notes.txt"])
    with pytest.raises(InputError, match=r"dataset\.json: no manifest\. Expected"):
        open_source(str(tmp_path), "train")
    (write_folder(tmp_path / "lacking", [EVERY]) / "dataset.json").unlink()  # its folders are right
    with pytest.raises(InputError, match=r"dataset\.json: no manifest\. Expected"):
        open_source(str(tmp_path / "lacking"), "train")
    write_folder(tmp_path / "data", [EVERY])
    with pytest.raises(InputError, match=r"expected folders images/ and masks/; splits here: train, val$"):
        open_source(str(tmp_path / "data"), "test")
