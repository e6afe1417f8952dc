"""Recognizes other layouts of data sets, for a helpful error where a folder has not ours."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

_OURS = "expected here are dataset.json and {train,val,test}/{images,masks}"
_ONE_SPLIT = "one split alone"
_CITYSCAPES = "Cityscapes itself comes as --data tfds:cityscapes"
_IN_PAIRS = "a mask there is x_mask.png beside x.jpg"
_DRAW = "outlines must be drawn as masks first"

# Name, patterns of what the folder holds, and what to do.
_LAYOUTS = (
    ("PASCAL VOC", ("JPEGImages", "SegmentationClass"), "VOC 2012 itself comes as --data tfds:voc2012"),
    ("ADE20K", ("images/training", "annotations/training"), "ADE20K itself comes as --data tfds:ade20k"),
    ("Cityscapes", ("leftImg8bit", "gtFine"), _CITYSCAPES),
    ("Cityscapes", ("*_leftImg8bit.png", "*_gtFine_*.png"), _CITYSCAPES),
    ("Roboflow's masks", ("train/_classes.csv",), _IN_PAIRS),
    ("Roboflow's masks", ("train/*_mask.png",), _IN_PAIRS),
    ("Roboflow's COCO", ("train/_annotations.coco.json",), _DRAW),
    ("COCO", ("annotations/*.json",), f"{_DRAW}; --data tfds:coco_stuff has masks"),
    ("YOLO", ("data.yaml",), _DRAW),
    ("YOLO", ("images/train", "labels/train/*.txt"), _DRAW),
    ("YOLO", ("train/images", "train/labels/*.txt"), _DRAW),
    ("ours under another name", ("train/images", "train/labels/*.png"), "rename labels to masks in every split"),
    ("mmsegmentation", ("img_dir", "ann_dir"), "move img_dir/train to train/images and ann_dir/train to train/masks"),
    ("SegNet's CamVid", ("train", "trainannot"), "move train to train/images and trainannot to train/masks"),
    (
        "images/train, with the split inside",
        ("images/train",),
        "move images/train to train/images, and likewise the masks",
    ),
    (_ONE_SPLIT, ("images", "masks"), "move a part of both folders to train, another to val"),
)
_MOST_FOLDERS = 200  # to look into


def layout_hint(root: Path) -> str:
    """What a folder looks like and what to do, for the end of an error; "" where the layout is unknown."""
    if (root.parent / "dataset.json").is_file():
        return f" (this is one split of {root.parent}; give --data {root.parent})"
    inner = (path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)))  # archives hold VOCdevkit/VOC2012
    folders = chain([root], (path for path in inner if path.is_dir() and path.name[0] != "."))
    with suppress(OSError):  # a folder without permission
        for folder in islice(folders, _MOST_FOLDERS):
            for name, holds, hint in _LAYOUTS:
                if name == _ONE_SPLIT and folder != root:  # ours, but for dataset.json
                    continue
                if all(next(folder.glob(pattern), None) for pattern in holds):
                    inside = "" if folder == root else f"{folder.relative_to(root)} in it: "
                    return f" ({inside}it looks like {name}: {', '.join(holds)}; {_OURS}; {hint})"
    return ""
