"""Verb `data import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from segformer_tf.errors import counted
from segformer_tf.label_sets import find_labels
from segformer_tf.terminal import plain_console
from training.data.folder.manifest import Exif
from training.data.formats.folder_writer import Link, Unlabeled
from training.data.formats.importer import ImportOptions, Report, import_export
from training.data.formats.pairs import Naming
from training.data.formats.recognize import FormatName


def import_labels(
    source: Path,
    /,
    *,
    out: Path,
    format: FormatName | None = None,
    images: Path | None = None,
    split: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
    group: str | None = None,
    link: Link = "hard",
    unlabeled: Unlabeled = "background",
    exif: Exif | None = None,
    labels: str | None = None,
    mask_suffix: str = "",
    mask_prefix: str = "",
) -> None:
    """Convert an export of a labeling tool to a folder to train on.

    The format is recognized: labelme, COCO, CVAT, Label Studio, YOLO (ultralytics), Roboflow's masks, PASCAL VOC,
    Cityscapes, ADE20K, CamVid, or folders of images and masks. Nothing is written if anything does not fit. For
    instance, an archive as it was downloaded from CVAT, a folder of labelme's JSON files, and COCO with the images
    elsewhere:

        segformer data import task.zip --out data

        segformer data import labeled/ --out data --group '(.*)_'

        segformer data import instances.json --images photos/ --out data --split 0.7 0.2 0.1

    Images beside masks named a_gt.png, with one class name a line in names.txt, the first for value 0:

        segformer data import pictures/ --mask-suffix _gt --labels names.txt --out data

    Then: segformer train --data data

    Parameters
    ----------
    source
        Folder, annotation file (.json, .xml) or .zip.
    out
        Folder to write: dataset.json and train, val and test with images and masks. It must not exist.
    format
        Read it as this format instead of recognizing it. voc includes CVAT's "Segmentation mask 1.1".
    images
        Folder of the images, if they are not in SOURCE.
    split
        Shares of train, val and test, or of train and val, or whole numbers such as 8 1 1. Default: the splits that the
        export states, else 0.8 0.1 0.1.
    seed
        Decides which image is in which split.
    group
        Regular expression. Images of one group stay in one split, such as the frames of a video: those of equal text in
        its parentheses (without any, of equal matched text). It is searched in the path of an image below SOURCE,
        without suffix.
    link
        How images come into the new folder. hard: a second name of the same file, a copy where the disk cannot.
    unlabeled
        What pixels in no shape are: a class "background", or ignored.
    exif
        What annotations lie over where EXIF turns a photograph and sizes do not tell: the upright picture (apply) or
        the pixels as stored (ignore).
    labels
        Class names for masks that have none, in the order of their values: ade20k, cityscapes, coco_stuff, voc, camvid,
        oxford_iiit_pet, or a text file of one name a line.
    mask_suffix
        What the name of a mask has behind that of its image.
    mask_prefix
        What it has before it.
    """
    options = ImportOptions(
        format=format,
        images=images,
        split=split,
        seed=seed,
        group=group,
        link=link,
        unlabeled=unlabeled,
        exif=exif,
        naming=Naming(mask_prefix, mask_suffix),
        names=find_labels(labels).names if labels else None,
    )
    report = import_export(source, out, options)
    _print_report(report, source, out)


def _print_report(report: Report, source: Path, out: Path) -> None:
    written, table = report.written, Table("class")
    for split, count in written.images.items():
        table.add_column(f"{split}, % of {counted(count, 'image')}", justify="right")
    shares = [100 * pixels / pixels.sum() for pixels in written.pixels.values()]
    rows: list[str | Text] = [*written.names, Text("ignored", style="italic")]
    for label, name in enumerate(rows):
        own = [share[label] for share in shares]
        if label < len(written.names) or any(own):
            table.add_row(name, *(f"{share:.2f}" if share else "-" for share in own))
    console = plain_console()
    console.print(f"{source}: {report.format}")
    console.print(table)
    for line in report.notes:
        print(line)
    for line in report.warnings:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{out} is ready; next: segformer train --data {out}")
