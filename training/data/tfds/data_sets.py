"""What each TFDS data set's raw mask values mean, with its class names, splits and license.

Sources: for Cityscapes the labels of cityscapesScripts, for COCO-Stuff its labels.txt, whose ids are one more than the
values in masks, for ADE20K objectInfo150.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segformer_tf.label_sets import LABEL_SETS
from segformer_tf.labels import IGNORE_ID, Labels
from training.data.masks import class_table


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Facts about a TFDS data set that its features do not hold.

    Attributes:
        labels: names and colors of classes 0..C-1.
        ids: raw mask value of each class, in order.
        ignored: raw values that do not count, in addition to 255.
        splits: TFDS's name of each split with labels, by ours: train, val, test.
        license: in a few words.
    """

    labels: Labels
    ids: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    splits: dict[str, str]
    license: str

    def table(self) -> NDArray[np.int16]:
        """(256,) int16, see `class_table`."""
        return class_table({value: i for i, value in enumerate(self.ids)}, (*self.ignored, IGNORE_ID))


_TRAIN_VAL = {"train": "train", "val": "validation"}

# Things with a COCO id but no pixels: street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door,
# blender, hair brush.
_COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

DATA_SETS = {
    "ade20k": DataSet(
        labels=LABEL_SETS["ade20k"],
        ids=tuple(range(1, 151)),
        ignored=(0,),  # "other"; elsewhere ignored by reduce_zero_label
        splits=_TRAIN_VAL,
        license="annotations BSD-3, images for non-commercial research and education",
    ),
    "cityscapes": DataSet(
        labels=LABEL_SETS["cityscapes"],
        ids=_CITYSCAPES_IDS,
        ignored=tuple(i for i in range(34) if i not in _CITYSCAPES_IDS),
        splits=_TRAIN_VAL,  # its test split has blank masks: the benchmark's server keeps them
        license="non-commercial, after registration",
    ),
    "coco_stuff": DataSet(
        labels=LABEL_SETS["coco_stuff"],
        ids=tuple(i for i in range(182) if i not in _COCO_UNUSED),
        ignored=_COCO_UNUSED,
        splits=_TRAIN_VAL,
        license="annotations CC BY 4.0, images under the terms of Flickr",
    ),
    "voc2012": DataSet(
        labels=LABEL_SETS["voc"],
        ids=tuple(range(21)),
        splits=_TRAIN_VAL,
        license="images under the terms of Flickr",
    ),
    "camvid": DataSet(
        labels=LABEL_SETS["camvid"],
        ids=tuple(range(11)),
        ignored=(11,),
        splits={**_TRAIN_VAL, "test": "test"},
        license="personal and research use only",
    ),
    "oxford_iiit_pet": DataSet(
        labels=LABEL_SETS["oxford_iiit_pet"],
        ids=(1, 2, 3),
        splits={"train": "train", "test": "test"},
        license="CC BY-SA 4.0",
    ),
}
