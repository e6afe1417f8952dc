"""Formats of mask files: VOC, CVAT's masks, Roboflow, Cityscapes, ADE20K, CamVid, pairs; and whole imports."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

from segformer_tf.cli import main
from segformer_tf.errors import InputError
from segformer_tf.label_sets import LABEL_SETS
from segformer_tf.labels import bit_reversed_color
from tests.helpers import refused
from tests.training.data.formats.exports import (
    ROOF,
    SIZE,
    WALL,
    archive,
    by_stem,
    coco,
    covered,
    cvat,
    flat,
    image,
    labelme,
    mask_file,
    pairs_text,
    polygon,
    run,
    truth,
    write,
)
from training.data.check_masks import check_split
from training.data.folder.source import FolderSource
from training.data.formats.pairs import Naming
from training.data.formats.placement import unique_names

VALUES = np.where(covered(ROOF), 1, np.where(covered(WALL), 2, 0)).astype(np.uint8)
NAMES = truth(("wall", WALL), ("roof", ROOF))
VOC_PALETTE = [bit_reversed_color(i) for i in range(256)]


def in_colors(values: np.ndarray, *colors: tuple[int, int, int]) -> np.ndarray:
    return np.array(colors, np.uint8)[values]


def test_voc(tmp_path: Path) -> None:
    root, border = tmp_path / "VOCdevkit" / "VOC2012", VALUES * 7
    border[0] = 255
    for name in ("2007_000032", "2007_000033", "2007_000999"):
        image(root / "JPEGImages" / f"{name}.jpg")
    for name in ("2007_000032", "2007_000033"):
        mask_file(root / "SegmentationClass" / f"{name}.png", border, VOC_PALETTE)
        mask_file(root / "SegmentationObject" / f"{name}.png", border, VOC_PALETTE)
    for split, names in {"train": "2007_000032", "val": "2007_000033", "trainval": "2007_000032\n2007_000033"}.items():
        write(root / "ImageSets" / "Segmentation" / f"{split}.txt", names + "\n")
    report, masks = run(tmp_path / "VOCdevkit", tmp_path / "out", split=None)
    assert report.format == "voc"
    assert set(masks) == {"train/2007_000032", "val/2007_000033"}
    names = LABEL_SETS["voc"].names
    expected = np.array([names[0], names[7], names[14]])[VALUES].astype("<U20")
    expected[0] = "ignored"
    np.testing.assert_array_equal(masks["train/2007_000032"], expected)
    blanks = "2007 000032"
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        shutil.copy(root / folder / f"2007_000032.{suffix}", root / folder / f"{blanks}.{suffix}")
    write(root / "ImageSets" / "Segmentation" / "val.txt", f'"{blanks}"\n')  # as CVAT quotes them
    _, masks = run(root, tmp_path / "blanks", split=None, names=names)
    assert set(masks) == {"train/2007_000032", f"val/{blanks}"}
    for file in root.glob(f"*/{blanks}.*"):
        file.unlink()
    write(root / "ImageSets" / "Segmentation" / "val.txt", "2007_000032\n")
    with pytest.raises(InputError, match=r"val.txt: '2007_000032' is in another split as well"):
        run(root, tmp_path / "twice", split=None)
    write(root / "ImageSets" / "Segmentation" / "val.txt", "2007_000033\n2007_000034\n")
    with pytest.raises(InputError, match=r"val.txt: no mask of '2007_000034' \(1 of 2\)"):
        run(root, tmp_path / "twice", split=None)


def test_cvats_masks_in_color_palette_and_gray(tmp_path: Path) -> None:
    colors = ((0, 0, 0), (184, 61, 245), (250, 50, 83))
    for name in ("a", "b", "c"):
        image(tmp_path / "in" / "JPEGImages" / f"{name}.jpg")
    folder = tmp_path / "in" / "SegmentationClass"
    mask_file(folder / "a.png", in_colors(VALUES, *colors))
    mask_file(folder / "b.png", 2 - VALUES, colors[::-1])  # a palette in another order
    mask_file(folder / "c.png", VALUES)
    write(tmp_path / "in" / "ImageSets" / "Segmentation" / "default.txt", "a\nb\nc\n")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:184,61,245::\nwall:250,50,83::\n"
    write(tmp_path / "in" / "labelmap.txt", lines)
    report, masks = run(archive(tmp_path / "in", tmp_path / "masks.zip"), tmp_path / "out")
    assert report.format == "voc"
    other = write(tmp_path / "in" / "other" / "labelmap.txt", lines.replace("61", "62"))
    with pytest.raises(InputError, match=r"labelmap.txt: says something else than .*labelmap.txt"):
        run(tmp_path / "in", tmp_path / "two")
    other.unlink()
    for name in ("a", "b", "c"):
        np.testing.assert_array_equal(by_stem(masks)[name], NAMES)
    write(tmp_path / "in" / "labelmap.txt", "background:0,0,0::\nroof:184,61,245::\n")
    with pytest.raises(InputError, match=r"a.png: mask color \(250, 50, 83\) is neither .*labelmap.txt"):
        run(tmp_path / "in", tmp_path / "lacking")
    for line, message in (
        ("roof:1,2", "expected red, green and blue"),
        ("roof:1,2,x", "expected a whole number. Received: 'x'"),
        ("roof:1,2,256", r"three numbers 0\.\.255"),
        ("roof", "expected name:red,green,blue::"),
        ("roof:0,0,0", "has the color of another label"),
    ):
        write(tmp_path / "in" / "labelmap.txt", f"background:0,0,0::\n{line}\n")
        with pytest.raises(InputError, match=rf"labelmap.txt: .*{message}"):
            run(tmp_path / "in", tmp_path / "broken")


def test_masks_of_unknown_classes_are_not_taken_for_vocs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "in" / "JPEGImages" / f"{name}.jpg")
        mask_file(tmp_path / "in" / "SegmentationClass" / f"{name}.png", VALUES, VOC_PALETTE)
    with pytest.raises(InputError, match=r"which classes\?.*labelmap.txt or class_names.txt.*--labels voc"):
        run(tmp_path / "in", tmp_path / "out")
    report, masks = run(tmp_path / "in", tmp_path / "vocs", names=LABEL_SETS["voc"].names)
    assert by_stem(masks)["a"][VALUES == 1][0] == "aeroplane"
    assert len(report.written.names) == 21
    write(tmp_path / "in" / "class_names.txt", "__ignore__\n_background_\nroof\nwall\n")  # as labelme2voc.py does
    _, masks = run(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(by_stem(masks)["a"], NAMES)


def test_roboflow(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        image(tmp_path / "in" / split / "a_png.rf.1f.jpg")
        mask_file(tmp_path / "in" / split / "a_png.rf.1f_mask.png", VALUES)
        write(tmp_path / "in" / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, roof\n2, wall\n")
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert report.format == "roboflow"
    np.testing.assert_array_equal(masks["val/a_png.rf.1f"], NAMES)
    for table, message in (
        ("Pixel Value, Class\n0, background\n1, roof\n2, door\n", "other classes than in"),
        ("Pixel Value, Class\n0\n", "row 2: expected a pixel value and a class. Received: 0"),
        ("Pixel Value, Class\nx, roof\n", "row 2: expected a whole number. Received: 'x'"),
        ("Pixel Value, Class\n0, roof\n0, wall\n", "row 3: pixel values are distinct"),
    ):
        write(tmp_path / "in" / "valid" / "_classes.csv", table)
        with pytest.raises(InputError, match=rf"valid/_classes.csv: {message}"):
            run(tmp_path / "in", tmp_path / "broken", split=None)
    for split in ("train", "valid"):
        write(tmp_path / "in" / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, roof\n")
    with pytest.raises(InputError, match=r"_mask.png: mask value 2 is neither a class nor ignored in .*_classes.csv"):
        run(tmp_path / "in", tmp_path / "broken", split=None)


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(kind: str, tmp_path: Path) -> None:
    values = {"labelIds": (7, 26, 3), "labelTrainIds": (0, 13, 255)}[kind]
    for split in ("train", "val", "test"):
        stem = f"{split}/aachen/aachen_000000_000019"
        image(tmp_path / "in" / "leftImg8bit" / f"{stem}_leftImg8bit.png")
        mask_file(tmp_path / "in" / "gtFine" / f"{stem}_gtFine_{kind}.png", np.array(values, np.uint8)[VALUES])
        mask_file(tmp_path / "in" / "gtFine" / f"{stem}_gtFine_instanceIds.png", VALUES)
        for image_file in (tmp_path / "in" / "leftImg8bit" / split).rglob("*.png"):
            image_file.rename(image_file.with_name(image_file.name.replace("aachen_", f"{split}_", 1)))
        for file in (tmp_path / "in" / "gtFine" / split).rglob("*.png"):
            file.rename(file.with_name(file.name.replace("aachen_", f"{split}_", 1)))
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert report.format == "cityscapes"
    assert {key.split("/")[0] for key in masks} == {"train", "val"}
    expected = np.array(["road", "car", "ignored"])[VALUES]
    for mask in masks.values():
        np.testing.assert_array_equal(mask, expected)
    assert "left out: 1 image of the test split, whose masks are blank" in report.notes


def test_ade20k(tmp_path: Path) -> None:
    for split, word in (("training", "train"), ("validation", "val")):
        image(tmp_path / "in" / "images" / split / f"ADE_{word}_00000001.jpg")
        mask_file(tmp_path / "in" / "annotations" / split / f"ADE_{word}_00000001.png", VALUES * 75)
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert report.format == "ade20k"
    names = LABEL_SETS["ade20k"].names
    expected = np.array(["ignored", names[74], names[149]])[VALUES]
    np.testing.assert_array_equal(masks["train/ADE_train_00000001"], expected)
    assert len(report.written.names) == 150
    assert "no mask of train shows wall" in report.warnings[0]
    assert "--seed" not in report.warnings[0]  # no mask of val does, either
    own = tmp_path / "own"  # the folders of ADE20K, the classes of another
    for split in ("training", "validation"):
        image(own / "images" / split / f"{split}.jpg")
        mask_file(own / "annotations" / split / f"{split}.png", VALUES)
    report, _ = run(own, tmp_path / "own out", split=None)
    assert report.format == "pairs"
    assert report.written.names == ("class 0", "class 1", "class 2")


def test_camvid_in_colors(tmp_path: Path) -> None:
    colors = ((0, 0, 0), (128, 128, 128), (128, 0, 0))
    for split in ("train", "val", "test"):
        image(tmp_path / "in" / split / f"{split}.png")
        mask_file(tmp_path / "in" / f"{split}_labels" / f"{split}_L.png", in_colors(VALUES, *colors))
    write(tmp_path / "in" / "class_dict.csv", "name,r,g,b\nroof,128,128,128\nwall,128,0,0\nVoid,0,0,0\n")
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert report.format == "camvid"
    assert set(masks) == {"train/train", "val/val", "test/test"}
    np.testing.assert_array_equal(masks["test/test"], np.array(["ignored", "roof", "wall"])[VALUES])
    for row, message in (
        ("roof,128,128", "row 2: expected name,r,g,b"),
        ("roof,128,128,1e3", "row 2: expected a whole number"),
        ("roof,0,0,0\nwall,0,0,0", "row 3: .* is the color of another class"),
        ("roof,128,128,128", "mask color"),
    ):
        write(tmp_path / "in" / "class_dict.csv", f"name,r,g,b\n{row}\n")
        with pytest.raises(InputError, match=message):
            run(tmp_path / "in", tmp_path / "broken", split=None)
    (tmp_path / "in" / "class_dict.csv").unlink()
    write(tmp_path / "in" / "label_colors.txt", "128 128 128\troof\n128 0 0\twall\n0 0 0\tVoid\n")
    _, masks = run(tmp_path / "in", tmp_path / "by text", split=None)
    np.testing.assert_array_equal(masks["test/test"], np.array(["ignored", "roof", "wall"])[VALUES])


def test_segnets_camvid(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / "in" / split / f"0001TP_{split}.png")
        mask_file(tmp_path / "in" / f"{split}annot" / f"0001TP_{split}.png", np.array([0, 10, 11], np.uint8)[VALUES])
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert report.format == "camvid"
    np.testing.assert_array_equal(masks["val/0001TP_val"], np.array(["Sky", "Bicyclist", "ignored"])[VALUES])


@pytest.mark.parametrize(
    ("images", "masks", "options"),
    [
        ("images/{}.jpg", "masks/{}.png", {}),
        ("{}.jpg", "{}_gt.png", {"naming": Naming(suffix="_gt")}),
        ("{}.png", "mask_{}.png", {"naming": Naming("mask_")}),
        ("images/{}.jpg", "masks/m-{}-x.png", {"naming": Naming("m-", "-x")}),
        ("images/train/{}.jpg", "labels/train/{}.png", {}),
        ("train/images/{}.jpg", "train/masks/{}.tif", {}),
        ("img_dir/train/{}.jpg", "ann_dir/train/{}.png", {}),
        ("drive 1/image/{}.jpg", "drive 1/gt/{}.png", {}),
    ],
)
def test_pairs(images: str, masks: str, options: dict, tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "in" / images.format(name))
        mask_file(tmp_path / "in" / masks.format(name), VALUES)
    names = ["background", "roof", "wall"]
    report, found = run(tmp_path / "in", tmp_path / "out", names=names, **options)
    assert report.format == "pairs"
    assert set(by_stem(found)) == {"a", "b"}
    np.testing.assert_array_equal(by_stem(found)["a"], NAMES)


def test_pairs_of_masks_in_another_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "photos" / f"{name}.jpg")
        mask_file(tmp_path / "in" / "masks" / f"{name}.png", VALUES)
    _, masks = run(tmp_path / "in", tmp_path / "out", images=tmp_path / "photos")
    assert (by_stem(masks)["a"][covered(ROOF)] == "class 1").all()


def test_classes_of_pairs_without_names(tmp_path: Path) -> None:
    def classes(values: np.ndarray, out: str) -> tuple[tuple[str, ...], np.ndarray]:
        for name in ("a", "b"):
            image(tmp_path / "in" / "images" / f"{name}.jpg")
            mask_file(tmp_path / "in" / "masks" / f"{name}.png", values)
        report, masks = run(tmp_path / "in", tmp_path / out)
        return report.written.names, by_stem(masks)["a"]

    names, mask = classes(np.where(VALUES == 1, 255, 0).astype(np.uint8), "two")
    assert names == ("background", "object")
    np.testing.assert_array_equal(mask == "object", VALUES == 1)
    names, mask = classes(np.array([3, 7, 255], np.uint8)[VALUES], "ignoring")
    assert names == ("class 3", "class 7")
    np.testing.assert_array_equal(mask == "ignored", VALUES == 2)
    names, mask = classes(in_colors(VALUES, (1, 2, 3), (0, 0, 9), (200, 1, 1)), "colors")
    assert names == ("#000009", "#010203", "#c80101")
    np.testing.assert_array_equal(mask == "#c80101", VALUES == 2)
    with pytest.raises(InputError, match=r"looks smoothed: .*name them: values by --labels FILE"):
        classes(np.tile(np.clip(30 * np.arange(-10, 22), 0, 255).astype(np.uint8), (SIZE[0], 1)), "smoothed")


def test_palettes_in_several_orders_are_refused_where_values_decide(tmp_path: Path) -> None:
    colors = ((0, 0, 0), (9, 0, 0), (0, 9, 0))
    for name, values, palette in (("a", VALUES, colors), ("b", 2 - VALUES, colors[::-1])):
        image(tmp_path / "in" / "images" / f"{name}.jpg")
        mask_file(tmp_path / "in" / "masks" / f"{name}.png", values, palette)
    for names in (None, ["background", "roof", "wall"]):
        with pytest.raises(InputError, match=r"palettes differ: value \d is .*a.png and .*b.png; .*--labels"):
            run(tmp_path / "in", tmp_path / "out", names=names)


def test_files_without_a_partner_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("a", "b"):
        image(root / "images" / f"{name}.jpg")
        mask_file(root / "masks" / f"{name}.png", VALUES)
    extra = image(root / "images" / "c.jpg")
    with pytest.raises(InputError, match=r"c.jpg: image without mask \(1 of 3\)"):
        run(root, tmp_path / "out")
    extra.rename(root / "images" / "b.png")
    with pytest.raises(InputError, match=r"images/b.png: the same name as .*images/b.jpg; which one is it\?"):
        run(root, tmp_path / "out")
    (root / "images" / "b.png").unlink()
    (root / "images" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"masks/a.png: mask without image \(1 of 2\)"):
        run(root, tmp_path / "out")
    image(root / "images" / "a.jpg", (10, 10))
    with pytest.raises(InputError, match=r"masks/a.png: is for \(24, 32\), its image .*a.jpg is \(10, 10\)"):
        run(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def cvat_export(root: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        image(root / "images" / name)
    body = f'<polygon label="wall" points="{pairs_text(WALL)}"/><polygon label="roof" points="{pairs_text(ROOF)}"/>'
    text = cvat(body, ("a.jpg", "b.jpg", "c.jpg")).replace("></image>", f">{body}</image>")
    write(root / "annotations.xml", text)
    return root


def test_what_is_written_is_what_training_reads(tmp_path: Path) -> None:
    report, _ = run(cvat_export(tmp_path / "in"), tmp_path / "out", split=None)
    assert report.written.images == {"train": 1, "val": 1, "test": 1}
    for split in ("train", "val", "test"):
        source = FolderSource(tmp_path / "out", split)
        assert source.labels.names == ("background", "roof", "wall")
        assert source.labels.colors == ((0, 0, 0), (255, 0, 0), (0, 255, 127))
        picture, mask = source[0]
        np.testing.assert_array_equal(np.array(source.labels.names)[mask], NAMES)
        assert picture.shape == (*SIZE, 3)
        assert not check_split(source)
        counts = [int((name == NAMES).sum()) for name in source.labels.names]
        assert report.written.pixels[split].tolist() == [*counts, 0]


def test_images_are_linked_or_copied(tmp_path: Path) -> None:
    root = cvat_export(tmp_path / "in")
    original = (root / "images" / "a.jpg").stat().st_ino
    for link, same, symbolic in (("hard", True, False), ("symlink", True, True), ("copy", False, False)):
        run(root, tmp_path / link, link=link, split=None)
        (file,) = (tmp_path / link).glob("*/images/a.jpg")
        assert (file.stat().st_ino == original) == same
        assert file.is_symlink() == symbolic
    zipped = archive(root, tmp_path / "in.zip")
    run(zipped, tmp_path / "zipped", split=None)
    (file,) = (tmp_path / "zipped").glob("*/images/a.jpg")
    assert file.read_bytes() == (root / "images" / "a.jpg").read_bytes()
    with pytest.raises(InputError, match="--link symlink: the images of a"):
        run(zipped, tmp_path / "other", link="symlink")


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    run(cvat_export(tmp_path / "in"), tmp_path / "out", split=None)
    assert len(list((tmp_path / "out").glob("*/images/*.jpg"))) == 3


def test_pixels_in_no_shape_may_be_ignored(tmp_path: Path) -> None:
    report, masks = run(cvat_export(tmp_path / "in"), tmp_path / "out", unlabeled="ignore")
    assert report.written.names == ("roof", "wall")
    np.testing.assert_array_equal(by_stem(masks)["a"], truth(("wall", WALL), ("roof", ROOF), rest="ignored"))
    full = [[-1, -1], [40, -1], [40, 40], [-1, 40]]
    for name in ("a", "b"):  # every pixel is in a shape: no background
        image(tmp_path / "full" / f"{name}.jpg")
        write(tmp_path / "full" / f"{name}.json", labelme([polygon("sky", full), polygon("wall", WALL)], f"{name}.jpg"))
    report, _ = run(tmp_path / "full", tmp_path / "full out")
    assert report.written.names == ("sky", "wall")
    assert FolderSource(tmp_path / "full out", "train").labels.names == ("sky", "wall")


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif(orientation: int, tmp_path: Path) -> None:
    """Annotations are drawn over the upright picture or over the pixels as stored; sizes tell, or the user."""
    upright = SIZE if orientation == 3 else SIZE[::-1]

    def export(name: str, size: tuple[int, int]) -> Path:
        for stem in ("a", "b"):
            image(tmp_path / name / f"{stem}.jpg", SIZE, orientation)
        annotations = [{"category_id": 4, "segmentation": [flat(ROOF)]}]
        write(tmp_path / name / "instances.json", coco(annotations, size=size))
        return tmp_path / name

    for way, size in (("apply", upright), ("ignore", SIZE)):
        report, _ = run(export(way, size), tmp_path / f"{way} out", exif=way if orientation == 3 else None)
        assert json.loads((tmp_path / f"{way} out" / "dataset.json").read_text())["exif"] == way
        _, mask = FolderSource(tmp_path / f"{way} out", "train")[0]
        expected = covered(ROOF, upright if way == "apply" else SIZE)
        if way == "ignore":
            expected = np.rot90(expected, 2 if orientation == 3 else 3)
        np.testing.assert_array_equal(mask == 1, expected)
        assert any("EXIF turns some photographs" in note for note in report.notes)
    if orientation == 3:
        with pytest.raises(InputError, match=r"a.jpg: EXIF turns this photograph, .* give --exif apply"):
            run(tmp_path / "apply", tmp_path / "unknown")
    else:
        with pytest.raises(InputError, match=r"--exif ignore: the size in .*images\[0\] says apply"):
            run(tmp_path / "apply", tmp_path / "unknown", exif="ignore")


def test_labelmes_shapes_lie_over_the_upright_picture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "in" / f"{name}.jpg", SIZE, 3)
        write(tmp_path / "in" / f"{name}.json", labelme([polygon("roof", ROOF)], f"{name}.jpg"))
    run(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["exif"] == "apply"
    write(tmp_path / "in" / "a.json", labelme([polygon("roof", ROOF)], "a.jpg", version="3.2.1"))
    with pytest.raises(InputError, match="its size does not tell how it was labeled"):
        run(tmp_path / "in", tmp_path / "old")


def test_what_was_imported_needs_no_import(tmp_path: Path) -> None:
    run(cvat_export(tmp_path / "in"), tmp_path / "out")
    with pytest.raises(InputError, match=r"out/dataset.json: needs no import; segformer train --data .*/out$"):
        run(tmp_path / "out", tmp_path / "again")


def test_images_of_one_name_keep_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        image(tmp_path / "in" / folder / "a.jpg")
        write(tmp_path / "in" / folder / "a.json", labelme([polygon("roof", ROOF)], "a.jpg"))
    image(tmp_path / "in" / "two" / "b.jpg")
    write(tmp_path / "in" / "two" / "b.json", labelme([polygon("roof", WALL)], "b.jpg"))
    _, masks = run(tmp_path / "in", tmp_path / "out", split=(0.67, 0.33), group="(one|two)/")
    assert set(masks) == {"train/a", "train/b", "val/a"}


def test_names_never_meet() -> None:
    relative = ["a/b", "c/b", "a_b", "a_b_jpg", "x/É", "y/E\u0301", "x_é"]
    images = [Path(f"{name}.jpg") for name in relative]
    names = unique_names(["train"] * len(images), relative, images)
    assert len({normalize("NFC", name).casefold() for name in names}) == len(names)
    assert unique_names(["train", "val"], ["a/b", "c/b"], images[:2]) == ["b", "b"]


def test_letters_that_macos_took_apart_are_the_same(tmp_path: Path) -> None:
    for name in ("à", "b"):
        image(tmp_path / "in" / "images" / f"{normalize('NFD', name)}.jpg")
        mask_file(tmp_path / "in" / "masks" / f"{name}.png", VALUES)
        image(tmp_path / "shapes" / f"{normalize('NFD', name)}.jpg")
        write(tmp_path / "shapes" / f"{name}.json", labelme([polygon("roof", ROOF)], f"{name}.jpg"))
    for source in ("in", "shapes"):
        assert len(run(tmp_path / source, tmp_path / f"out {source}")[1]) == 2


def test_images_that_no_annotation_names_are_counted(tmp_path: Path) -> None:
    root = cvat_export(tmp_path / "in")
    image(root / "images" / "other.jpg")
    report, masks = run(root, tmp_path / "out")
    assert len(masks) == 3
    assert any(note.startswith("left out: 1 image that no annotation names") for note in report.notes)


def test_groups_and_stated_splits(tmp_path: Path) -> None:
    names = [f"drive{i // 3}_{i}" for i in range(9)]
    for i, name in enumerate(names):
        image(tmp_path / "in" / ("train" if i < 7 else "valid") / f"{name}.jpg")
        place = tmp_path / "in" / ("train" if i < 7 else "valid") / f"{name}.json"
        write(place, labelme([polygon("roof", ROOF)], f"{name}.jpg"))
    report, masks = run(tmp_path / "in", tmp_path / "stated", split=None, group=r"(drive\d)")
    assert report.written.images == {"train": 7, "val": 2}
    assert "in several of its splits: 1 group, such as 'drive2'" in report.warnings[0]
    report, masks = run(tmp_path / "in", tmp_path / "anew", split=(0.4, 0.3, 0.3), group=r"(drive\d)")
    of = {key.split("/")[1].split("_")[0]: key.split("/")[0] for key in masks}
    assert sorted(of.values()) == ["test", "train", "val"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = archive(cvat_export(tmp_path / "in"), tmp_path / "task.zip")
    main(["data", "import", str(root), "--out", str(tmp_path / "data"), "--split", "0.5", "0.5", "--seed", "3"])
    printed = capsys.readouterr().out
    assert f"{root}: cvat" in printed
    assert "cut into splits by --seed 3" in printed
    assert f"next: segformer train --data {tmp_path / 'data'}" in printed
    line = refused(capsys, "data", "import", root, "--out", tmp_path / "data")
    assert line == f"segformer: {tmp_path / 'data'}: exists already; give another --out, or remove it"
    assert "no such file or folder" in refused(capsys, "data", "import", tmp_path / "x", "--out", tmp_path / "y")
    assert "--split: expected shares" in refused(
        capsys, "data", "import", root, "--out", tmp_path / "y", "--split", 0.7, 0.2
    )
    assert not (tmp_path / "y").exists()
