"""Recognizes other layouts of data sets, for a helpful error where a folder has not ours."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from segformer_tf.image import IMAGE_SUFFIXES, images_in

_OURS = "expected here are dataset.json and {train,val,test}/{images,masks}"
_MANIFEST = "dataset.json"

# Name, and patterns of what the folder holds.
_LAYOUTS = (
    ("PASCAL VOC", ("JPEGImages", "SegmentationClass")),
    ("masks of CVAT", ("labelmap.txt", "SegmentationClass")),
    ("ADE20K", ("images/training", "annotations/training")),
    ("Cityscapes", ("leftImg8bit", "gtFine")),
    ("Cityscapes", ("*_leftImg8bit.png", "*_gtFine_*.png")),
    ("Roboflow's masks", ("train/_classes.csv",)),
    ("Roboflow's masks", ("train/*_mask.png",)),
    ("Roboflow's COCO", ("train/_annotations.coco.json",)),
    ("COCO", ("annotations/*.json",)),
    ("CVAT", ("annotations.xml",)),
    ("YOLO", ("data.yaml",)),
    ("YOLO", ("images/train", "labels/train/*.txt")),
    ("YOLO", ("train/images", "train/labels/*.txt")),
    ("CamVid", ("class_dict.csv",)),
    ("ours under another name", ("train/images", "train/labels/*.png")),
    ("mmsegmentation", ("img_dir", "ann_dir")),
    ("SegNet's CamVid", ("train", "trainannot")),
    ("images/train, with the split inside", ("images/train",)),
    ("an export of a labeling tool", ("*.json",)),
)
_MOST_FOLDERS = 200  # to look into


def layout_hint(root: Path) -> str:
    """What a folder looks like and what to do, for the end of an error; "" where the layout is unknown."""
    if (root.parent / _MANIFEST).is_file():
        return f" (this is one split of {root.parent}; give --data {root.parent})"
    inner = (path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)))  # archives hold VOCdevkit/VOC2012
    folders = chain([root], (path for path in inner if path.is_dir() and path.name[0] != "."))
    with suppress(OSError):  # a folder without permission
        for folder in islice(folders, _MOST_FOLDERS):
            for name, holds in _LAYOUTS:
                matches = [
                    next((path for path in folder.glob(pattern) if path.name != _MANIFEST), None) for pattern in holds
                ]
                if all(matches):
                    inside = "" if folder == root else f"{folder.relative_to(root)} in it: "
                    what = f"{inside}it looks like {name}: {', '.join(holds)}"
                    return f" ({what}; {_OURS}; to convert it: segformer data import {root} --out data)"
        return _half_ours(root)
    return ""


def _half_ours(root: Path) -> str:
    """What is missing where only one of ``images`` and ``masks`` is there, or no image is in it."""
    for folder in (root, *(root / split for split in ("train", "val", "valid", "test"))):
        images, masks = folder / "images", folder / "masks"
        for here, lacking in ((images, masks), (masks, images)):
            if here.is_dir() and not lacking.is_dir():
                others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path != here)
                beside = f", but {', '.join(others[:4])}" if others else ""
                return f" ({here} is here, {lacking} is not{beside}; expected both)"
        if images.is_dir() and not images_in(images):
            return f" ({images} holds no image: {', '.join(IMAGE_SUFFIXES)})"
    return ""
