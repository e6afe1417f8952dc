"""Broken and hostile exports: a line that names file and field, nothing written, nothing outside read."""

from __future__ import annotations

import copy
import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segformer_tf.errors import InputError
from tests.training.data.formats.exports import (
    ROOF,
    SIZE,
    archive,
    coco,
    cvat,
    flat,
    image,
    labelme,
    mask_file,
    pairs_text,
    polygon,
    run,
    write,
)
from training.data.formats import archive as archive_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "in" / name)
    return tmp_path / "in"


def refusal(source: Path, **options: Any) -> str:
    """The one line of an import that must fail, and leave nothing."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(InputError) as error:
        run(source, source.parent / "out", **options)
    assert sorted(source.parent.iterdir()) == before
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


DOTS = polygon("x", ROOF[:2])
GOOD = labelme([polygon("roof", ROOF)], "a.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": {}}, "a.json: 'shapes': expected a list. Received: 0 entries"),
        ({"shapes": [3]}, "a.json: shapes[0]: expected an object. Received: 3"),
        ({"shapes": [{"points": ROOF}]}, "a.json: shapes[0]: missing 'label'"),
        ({"shapes": [polygon(3, ROOF)]}, "a.json: shapes[0]: 'label': expected a text. Received: 3"),
        ({"shapes": [polygon("x", [[1, 2], [3]])]}, "shapes[0]: 'points': expected points [x, y]. Received: [3]"),
        ({"shapes": [polygon("x", [[1, 2], [3, None]])]}, "'points': expected a number. Received: None"),
        ({"shapes": [polygon("x", [[1, 2], [3, True]])]}, "'points': expected a number. Received: True"),
        ({"shapes": [polygon("x", [[1, 2], [3, 1e9]])]}, "'points': expected a number. Received: 1000000000.0"),
        ({"shapes": [polygon("x", [[1, float("nan")]] * 3)]}, "'points': expected a number. Received: nan"),
        ({"shapes": [{**DOTS, "points": [[1, 2]], "shape_type": "circle"}]}, "a circle has 2 points. Received: 1"),
        ({"shapes": [{**DOTS, "shape_type": "mask"}]}, "shapes[0]: missing 'mask'"),
        ({"shapes": [{**DOTS, "shape_type": "mask", "mask": "?"}]}, "a.json: 'mask' is not a PNG in base64"),
        ({"shapes": [{**DOTS, "shape_type": "mask", "mask": "AAAA"}]}, "a.json: bytes: not a readable mask"),
        ({"shapes": [polygon("x", [[1, 10**400]] * 3)]}, "'points': expected a number. Received: 1000"),
        ({"imageHeight": 10**400}, "a.json: 'imageHeight': expected a whole number. Received: 1000"),
        ({"shapes": [polygon("x\ny", ROOF)]}, "a.json and others: a class name is one line without control characters"),
        ({"shapes": [polygon("\x1b[2J", ROOF)]}, "one line without control characters. Received: '\\x1b[2J'"),
        ({"shapes": [polygon("\ud800", ROOF)]}, "one line without control characters. Received: '\\ud800'"),
        ({"shapes": [polygon(" ", ROOF)]}, "one line without control characters. Received: ' '"),
        ({"imagePath": None}, "a.json: 'imagePath': expected a text. Received: None"),
        ({"imagePath": "../../c.jpg"}, "a.json: no image 'c.jpg' below"),
        ({"imagePath": "/etc/passwd"}, "a.json: no image 'passwd' below"),
        ({"imagePath": ""}, "a.json: no image '' below"),
        ({"imagePath": "a\0.jpg/.."}, "a.json: no image '..' below"),
        ({"imagePath": "b.jpg"}, "b.json: its image"),
        ({"imageHeight": "24"}, "a.json: 'imageHeight': expected a whole number. Received: '24'"),
        ({"imageHeight": 10**18, "imageWidth": 10**18}, "is (24, 32) (height, width)"),
        ({"imageHeight": -24}, "a.json: is for (-24, 32), its image"),
    ],
)  # fmt: skip
def test_broken_labelme(change: dict, message: str, folder: Path) -> None:
    write(folder / "a.json", {**GOOD, **change})
    write(folder / "b.json", {**GOOD, "imagePath": "b.jpg"})
    assert message in refusal(folder)


def change_of(path: list, value: Any) -> Any:
    def change(data: Any) -> Any:
        place = data
        for key in path[:-1]:
            place = place[key]
        if value is KeyError:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        return data

    return change


SEGMENTATION = ["annotations", 0, "segmentation"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["annotations"], {}, "coco.json: 'annotations': expected a list"),
        (["annotations", 0], 1, "coco.json: annotations[0]: expected an object. Received: 1"),
        (["annotations", 0, "image_id"], KeyError, "annotations[0]: missing 'image_id'"),
        (["annotations", 0, "image_id"], 99, "annotations[0]: 'image_id' 99 is no image's"),
        (["annotations", 0, "category_id"], "4", "'category_id': expected a whole number. Received: '4'"),
        (["annotations", 0, "iscrowd"], "no", "annotations[0]: 'iscrowd' must be 0 or 1. Received: 'no'"),
        (SEGMENTATION, 3, "annotations[0]: 'segmentation': expected a list. Received: 3"),
        (SEGMENTATION, [3], "annotations[0]: 'segmentation'[0]: expected a list"),
        (SEGMENTATION, [[1, 2, 3, 4, 5, 6, 7]], "'segmentation'[0]: expected x and y in turn. Received: 7"),
        (SEGMENTATION, [["1"] * 6], "'segmentation'[0]: expected a number. Received: '1'"),
        (SEGMENTATION, {"counts": [1]}, "'segmentation': missing 'size'"),
        (SEGMENTATION, {"size": [24], "counts": [1]}, "'size' must be [height, width]. Received: 1"),
        (SEGMENTATION, {"size": [24, 32], "counts": [1, "2"]}, "'counts': expected a whole number"),
        (SEGMENTATION, {"size": [24, 32], "counts": [9]}, "24x32 = 768 pixels. Received: 9"),
        (SEGMENTATION, {"size": [24, 32], "counts": [1 << 62]}, "add up to 24x32"),
        (SEGMENTATION, {"size": [24, 32], "counts": "PPPPPP"}, "'counts'"),
        (SEGMENTATION, {"size": [24, 32], "counts": ""}, "24x32 = 768 pixels. Received: 0"),
        (SEGMENTATION, {"size": [1 << 40, 1 << 40], "counts": [1 << 62]}, "outside its picture"),
        (["categories", 0, "name"], 5, "categories[0]: 'name': expected a text. Received: 5"),
        (["categories", 1, "id"], 30, "categories[1]: 'id' 30 is that of another category"),
        (["images", 1, "id"], 7, "images[1]: 'id' 7 is that of another image"),
        (["images", 1, "file_name"], "a.jpg", "images[1]: its image"),
        (["images", 0, "height"], 48, "images[0]: is for (48, 32), its image"),
        (["images", 0, "height"], 24.0, "images[0]: 'height': expected a whole number. Received: 24.0"),
        (["images", 0, "file_name"], "../../../c.jpg", "images[0]: no image 'c.jpg' below"),
        (["images"], [], "is no image's"),
    ],
)  # fmt: skip
def test_broken_coco(path: list, value: Any, message: str, folder: Path) -> None:
    data = coco([{"category_id": 4, "segmentation": [flat(ROOF)]}])
    write(folder / "coco.json", change_of(path, value)(data))
    assert message in refusal(folder)
    assert "coco.json" in refusal(folder)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<polygon label="roof" points="1,2;3"/>', "<polygon> 0: 'points': expected points [x, y]"),
        ('<polygon label="roof" points="1,2;x,4;5,6"/>', "'points': expected a number. Received: 'x'"),
        ('<polygon label="roof" points="1,2;nan,4;5,6"/>', "'points': expected a number. Received: nan"),
        (f'<polygon points="{pairs_text(ROOF)}"/>', "image 0 ('a.jpg'): <polygon> 0: missing 'label'"),
        (f'<polygon label="roof" z_order="high" points="{pairs_text(ROOF)}"/>', "'z_order': expected a whole number"),
        ('<box label="roof" xtl="1" ytl="2" xbr="3"/>', "<box> 0: 'ybr': expected a number. Received: None"),
        ('<mask label="roof" rle="1,2" left="0" top="0" width="9" height="9"/>', "9x9 = 81 pixels. Received: 3"),
        ('<mask label="roof" rle="" left="0" top="0" width="9" height="9"/>', "'rle': expected a whole number"),
        ('<mask label="roof" rle="81" left="30" top="0" width="9" height="9"/>', "outside its picture of 24x32"),
        ("<polygon", "annotations.xml: not readable XML"),
    ],
)  # fmt: skip
def test_broken_cvat(body: str, message: str, folder: Path) -> None:
    write(folder / "annotations.xml", cvat(body))
    assert message in refusal(folder)
    assert "annotations.xml" in refusal(folder)


def test_entities_tracks_and_foreign_xml_are_refused(folder: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    outside = '<!DOCTYPE x SYSTEM "file:///etc/passwd">'
    for doctype in (bomb, outside):
        write(folder / "annotations.xml", cvat("").replace("<annotations>", f"{doctype}<annotations>"))
        assert "annotations.xml: has a DOCTYPE" in refusal(folder)
    write(folder / "annotations.xml", cvat("").replace("</annotations>", '<track id="0"/></annotations>'))
    assert "annotations.xml: CVAT for video; export the task as" in refusal(folder)
    write(folder / "annotations.xml", cvat("").replace("#ff0000", "red"))
    assert "annotations.xml: label 'roof': expected a color such as #33ddff. Received: 'red'" in refusal(folder)
    write(folder / "annotations.xml", cvat("", names=("../../a.jpg", "c.jpg")))
    assert "annotations.xml: image 1 ('c.jpg'): no image 'c.jpg' below" in refusal(folder)
    write(folder / "annotations.xml", "<annotation></annotation>")
    assert "expected <annotations>. Received: <annotation>" in refusal(folder, format="cvat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "no image with annotations"),
        ([3], "ls.json: task 0: expected an object"),
        ([{"id": 1, "image": "a.jpg", "annotation_id": 3}], "task 0: missing 'data'; is this JSON-MIN?"),
        ([{"data": {"image": "a.jpg"}, "annotations": 3}], "task 0: 'annotations': expected a list"),
        ([{"data": {"x": "y"}, "annotations": [{"result": []}]}], "task 0: 'data' names 0 images"),
        ([{"data": {"image": "c.jpg"}, "annotations": [{"result": []}]}], "task 0: no image 'c.jpg'"),
        ([{"data": {"image": "a.jpg"}, "annotations": [{"result": 3}]}], "annotations: 'result': expected a list"),
    ],
)  # fmt: skip
def test_broken_label_studio(change: list, message: str, folder: Path) -> None:
    write(folder / "ls.json", change)
    assert message in refusal(folder, format="label-studio")


def test_broken_results_of_label_studio(folder: Path) -> None:
    good = {"original_height": 24, "original_width": 32, "type": "polygonlabels"}
    outline = {"points": ROOF, "polygonlabels": ["roof"]}
    for change, message in (
        ({"value": 3}, "result[0]: 'value': expected an object"),
        ({"value": {**outline, "points": [1]}}, "result[0]: 'points': expected points [x, y]"),
        ({"value": {**outline, "polygonlabels": ["a", "b"]}}, "result[0]: 2 labels; a pixel has one class"),
        ({"value": outline, "image_rotation": 90}, "result[0]: 'image_rotation'"),
        ({"value": outline, "original_height": None}, "result[0]: 'original_height': expected a whole number"),
        ({"value": {"rle": [256], "brushlabels": ["a"]}}, "result[0]: 'rle': expected numbers 0..255"),
        ({"value": {"rle": [True], "brushlabels": ["a"]}}, "result[0]: 'rle': expected numbers 0..255"),
        ({"value": {"rle": [0, 0, 12, 0], "brushlabels": ["a"]}}, "ls.json: task 0: 'rle' ends too early"),
        ({"value": {"rle": [1] * 99, "brushlabels": ["a"]}}, "expected 4 per pixel, 3072"),
        ({"value": {"rle": [1], "format": "png", "brushlabels": ["a"]}}, "'format': expected rle"),
    ):
        tasks = [
            {"data": {"image": name}, "annotations": [{"result": [{**good, "value": outline, **change}]}]}
            for name in ("a.jpg", "b.jpg")
        ]
        write(folder / "ls.json", tasks)
        assert message in refusal(folder)


def test_another_format_than_given_is_named(folder: Path) -> None:
    write(folder / "coco.json", {"images": [], "annotations": [], "categories": []})
    line = f"{folder}: no image with annotations of labelme; it looks like coco: --format coco"
    assert refusal(folder, format="labelme") == line
    write(folder / "predictions.json", {"images": []})
    assert refusal(folder, format="labelme") == line


def test_what_is_not_certain_is_refused_with_its_candidates(folder: Path) -> None:
    line = refusal(folder)
    assert "no format is recognized among 2 files; --format labelme, coco, cvat" in line
    write(folder / "a.json", GOOD)
    write(folder / "annotations.xml", cvat(f'<polygon label="roof" points="{pairs_text(ROOF)}"/>'))
    assert "may be labelme or cvat; say which: --format labelme" in refusal(folder)
    for name in ("a.jpg", "notes.md"):
        (folder / name).touch()
        line = refusal(folder / name)
        assert f"{folder / name}: expected a folder, a .zip, or an annotation file, .json or .xml" in line
    report, _ = run(folder, folder.parent / "forced", format="cvat")
    assert report.format == "cvat"
    report, _ = run(folder / "annotations.xml", folder.parent / "by file")  # or by naming the file
    assert report.format == "cvat"
    assert "--labels names the classes of masks without names" in refusal(folder, format="cvat", names=["a"])
    for format in ("coco", "label-studio", "yolo", "roboflow", "voc", "cityscapes", "ade20k", "camvid", "pairs"):
        assert refusal(folder, format=format)


def test_an_export_of_boxes_alone_is_refused(folder: Path) -> None:
    write(folder / "coco.json", coco([{"category_id": 4, "bbox": [1, 2, 3, 4], "segmentation": []}]))
    assert "nothing covers a pixel that counts (1 a box or keypoints without an outline)" in refusal(folder)


def zipped(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, content)
    return path


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "..\\a.jpg", "C:/a.jpg", "C:\\a.jpg"])
def test_archives_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {name: b"x"})
    assert "which leads out of the archive" in refusal(path)


def test_archives_of_links_bombs_and_noise_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "link.zip", {"a.jpg": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    assert "link.zip: holds 'a.jpg', a link" in refusal(path)
    path.unlink()
    monkeypatch.setattr(archive_module, "_MOST_BYTES", 1000)
    path = zipped(tmp_path / "bomb.zip", {"a.json": b"0" * 10_000_000})
    assert "bomb.zip: unpacks to more than" in refusal(path)
    monkeypatch.undo()
    path.write_bytes(b"PK\3\4" + b"\0" * 99)
    assert "bomb.zip: cannot be unpacked (File is not a zip file)" in refusal(path)
    whole = bytearray(zipped(path, {"a.json": b"{}" * 500}).read_bytes())
    whole[40:44] = b"\xff" * 4  # the packed bytes
    path.write_bytes(whole)
    assert "bomb.zip: cannot be unpacked" in refusal(path)


def test_an_archive_of_windows_and_one_with_a_name_twice(folder: Path) -> None:
    write(folder / "a.json", GOOD)
    write(folder / "b.json", {**GOOD, "imagePath": "b.jpg"})
    path = folder.parent / "in.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for file in sorted(folder.iterdir()):
            info = zipfile.ZipInfo("x")
            info.filename = f"all\\{file.name}"  # as .NET wrote it
            opened.writestr(info, file.read_bytes())
    _, masks = run(path, folder.parent / "out")
    assert len(masks) == 2
    shutil.rmtree(folder.parent / "out")
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("all/a.json", b"{}")
    assert "in.zip: holds 'all/a.json' twice" in refusal(path)


def test_a_refusal_names_the_archive_and_not_where_it_was_unpacked(folder: Path) -> None:
    write(folder / "a.json", {**GOOD, "shapes": 3})
    path = archive(folder, folder.parent / "in.zip")
    assert refusal(path).startswith(f"{path}/a.json: 'shapes'")


def test_links_among_folders_end(folder: Path) -> None:
    (folder / "again").symlink_to(folder)
    write(folder / "a.json", GOOD)
    write(folder / "b.json", {**GOOD, "imagePath": "b.jpg"})
    _, masks = run(folder, folder.parent / "out")
    assert len(masks) == 2


def test_an_image_that_may_be_several_is_refused(folder: Path) -> None:
    for name in ("one", "two"):
        image(folder / name / "c.jpg")
    write(folder / "a.json", {**GOOD, "imagePath": "three/c.jpg"})
    line = refusal(folder)
    assert "a.json: image 'three/c.jpg' may be" in line
    assert line.endswith("; --images says in which folder to look")
    write(folder / "a.json", {**GOOD, "imagePath": "x/two/c.jpg"})
    write(folder / "b.json", {**GOOD, "imagePath": "one/c.jpg"})
    _, masks = run(folder, folder.parent / "out")
    assert len(masks) == 2


def test_pictures_that_are_none_are_refused(folder: Path) -> None:
    write(folder / "a.json", GOOD)
    write(folder / "a.jpg", "not a picture")
    assert "a.jpg: not a readable image" in refusal(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def places(data: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something lies in JSON, each list and its first two entries."""
    entries = data.items() if isinstance(data, dict) else enumerate(data[:2]) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


TASKS = [
    {
        "id": 1,
        "data": {"image": f"{name}.jpg"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {
                        "original_height": SIZE[0],
                        "original_width": SIZE[1],
                        "image_rotation": 0,
                        "type": "polygonlabels",
                        "value": {"points": ROOF, "polygonlabels": ["roof"]},
                    }
                ],
            }
        ],
    }
    for name in "ab"
]
WHOLE = {
    "labelme": labelme([polygon("roof", ROOF), {**polygon("sun", ROOF[:2]), "shape_type": "circle"}], "a.jpg"),
    "coco": coco(
        [
            {"category_id": 4, "segmentation": [flat(ROOF)]},
            {"category_id": 30, "segmentation": {"size": list(SIZE), "counts": [0, 9, 759]}},
        ]
    ),
    "label-studio": TASKS,
}
PLACES = [(name, place) for name, data in WHOLE.items() for place in places(data)]


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        for name in ("a.jpg", "b.jpg"):
            image(Path(made) / "in" / name)
        yield Path(made)


@given(place=st.sampled_from(PLACES), value=JSON)
def test_anything_anywhere_is_refused_in_a_line_or_read(place: tuple, value: Any, shared_folder: Path) -> None:
    name, path = place
    data = change_of(list(path), value)(copy.deepcopy(WHOLE[name]))
    write(shared_folder / "in" / "x.json", json.dumps(data))
    if name == "labelme":
        write(shared_folder / "in" / "y.json", {**GOOD, "imagePath": "b.jpg"})
    with tempfile.TemporaryDirectory() as made:
        try:
            run(shared_folder / "in", Path(made) / "out", format=name)
        except InputError as error:
            if len(str(error).splitlines()) != 1 or list(Path(made).iterdir()):
                pytest.fail(str(error))
        finally:
            (shared_folder / "in" / "y.json").unlink(missing_ok=True)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".json", ".xml", ".yaml", ".zip", ".csv"]))
def test_bytes_of_any_kind_are_refused_in_a_line(data: bytes, suffix: str, shared_folder: Path) -> None:
    path = shared_folder / f"bytes{suffix}"
    path.write_bytes(data)
    for format in (None, "labelme", "coco", "cvat", "label-studio", "yolo"):
        with pytest.raises(InputError) as error:
            run(path, shared_folder / "out", format=format, images=shared_folder / "in")
        assert len(str(error.value).splitlines()) == 1


def test_a_mask_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "in" / "images" / f"{name}.jpg")
        mask_file(tmp_path / "in" / "masks" / f"{name}.png", np.zeros(SIZE, np.uint8) + (name == "a"))
    whole = (tmp_path / "in" / "masks" / "b.png").read_bytes()
    (tmp_path / "in" / "masks" / "b.png").write_bytes(whole[: len(whole) // 2])
    assert "masks/b.png: not a readable" in refusal(tmp_path / "in", names=["a", "b"])
    (tmp_path / "in" / "masks" / "b.png").write_bytes(whole)
    with pytest.raises(InputError, match="mask value 1 is neither a class nor ignored in --labels"):
        run(tmp_path / "in", tmp_path / "out", names=["a"])
