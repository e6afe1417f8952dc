"""labelme, COCO, CVAT, Label Studio and YOLO: what they draw, pixel by pixel, and what is refused."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from segformer_tf.errors import InputError
from tests.training.data.formats.exports import (
    DOOR,
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
    pairs_text,
    polygon,
    run,
    truth,
    write,
)
from training.data.formats.brush import decode_values

PARTS = [[1.2, 19.1], [5.8, 19.4], [3.3, 23.2]], [[27.2, 1.3], [31.4, 1.9], [30.3, 6.2]]
STAMP = np.random.default_rng(1).random((5, 7)) < 0.5


def two_images(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        image(folder / name)
    return folder


def encode_brush(values: np.ndarray, word: int = 8, sizes: tuple[int, ...] = (2, 4, 8, 11)) -> list[int]:
    """Label Studio's brush, bit by bit: runs as runs, what is alone as it is."""
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    i = 0
    while i < len(values):
        same = i
        while same < len(values) and values[same] == values[i] and same - i < 2 ** sizes[-1]:
            same += 1
        run_length = same - i
        end = same if run_length > 2 else min(i + 3, len(values))
        which = next(k for k, size in enumerate(sizes) if end - i <= 2**size)
        bits += f"{int(run_length > 2)}{which:02b}{end - i - 1:0{sizes[which]}b}"
        bits += f"{values[i]:0{word}b}" if run_length > 2 else "".join(f"{v:0{word}b}" for v in values[i:end])
        i = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def test_labelme(tmp_path: Path) -> None:
    source = two_images(tmp_path / "in")
    png = BytesIO()
    Image.fromarray(STAMP).save(png, "PNG")
    stamp = base64.b64encode(png.getvalue()).decode()
    shapes = [
        polygon("wall", WALL),
        polygon("roof", ROOF),
        {"label": "sun", "points": [[26.2, 4.3], [28.93, 5.17]], "shape_type": "circle"},
        {"label": "door", "points": [[9, 21], [3, 13]], "shape_type": "rectangle"},
        {"label": "bush", "points": [[20, 17], [26, 21]], "shape_type": "mask", "mask": stamp},
        polygon("__ignore__", DOOR),
        {"label": "wall", "points": [[1, 1]], "shape_type": "point"},
        {"label": "wall", "points": [[1, 1], [5, 5], [9, 1]], "shape_type": "linestrip"},
        polygon("roof", ROOF[:2]),
    ]  # fmt: skip
    write(source / "a.json", labelme(shapes, "..\\elsewhere\\a.jpg", imageData="not looked at"))
    write(source / "b.json", labelme([polygon("_background_", DOOR)], "b.jpg"))
    report, masks = run(source, tmp_path / "out")
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    sun = (columns + 0.5 - 26.2) ** 2 + (rows + 0.5 - 4.3) ** 2 <= 2.73**2 + 0.87**2
    bush = np.zeros(SIZE, bool)
    bush[17:22, 20:27] = STAMP
    door = np.zeros(SIZE, bool)
    door[13:21, 3:9] = True
    expected = truth(("wall", WALL), ("roof", ROOF), ("sun", sun), ("door", door), ("bush", bush), ("ignored", DOOR))
    np.testing.assert_array_equal(by_stem(masks)["a"], expected)
    assert (by_stem(masks)["b"] == "background").all()
    assert report.format == "labelme"
    assert report.written.names == ("background", "bush", "door", "roof", "sun", "wall")
    left_out = [note for note in report.notes if note.startswith("left out")]
    assert [note.split(";")[0] for note in left_out] == [
        "left out: 1 x point: covers no pixels",
        "left out: 1 x linestrip: covers no pixels",
        "left out: 1 x polygon of fewer than 3 points",
    ]
    assert left_out[0].endswith("a.json: shapes[6]")


def test_coco(tmp_path: Path) -> None:
    two_images(tmp_path / "in" / "images")
    hole = covered(ROOF) & ~covered(DOOR)
    encoded = coco_masks.encode(np.asfortranarray(hole.astype(np.uint8)))
    packed = {"size": list(SIZE), "counts": encoded["counts"].decode()}
    column_wise = WALL_MASK.T.ravel().astype(int)
    change = np.flatnonzero(np.diff(column_wise)) + 1
    counts = np.diff([0, *change, len(column_wise)]).tolist()
    assert not column_wise[0]
    annotations = [
        {"category_id": 30, "segmentation": {"size": list(SIZE), "counts": counts}},
        {"category_id": 4, "segmentation": packed},
        {"category_id": 4, "segmentation": [flat(part) for part in PARTS]},
        {"category_id": 30, "segmentation": [], "bbox": [1, 2, 3, 4]},
        {"category_id": 30, "keypoints": [1, 2, 2]},
        {"category_id": 5, "segmentation": [flat(DOOR)]},
        {"category_id": 30, "iscrowd": 1, "segmentation": {"size": list(SIZE), "counts": [0, 96, 672]}},
    ]  # fmt: skip
    write(tmp_path / "in" / "annotations" / "instances_default.json", coco(annotations))
    report, masks = run(tmp_path / "in", tmp_path / "out")
    crowd = np.zeros(SIZE, bool)
    crowd[:, :4] = True
    expected = truth(
        ("ignored", crowd), ("wall", WALL_MASK), ("roof", hole),
        ("roof", PARTS[0]), ("roof", PARTS[1]),
    )  # fmt: skip
    np.testing.assert_array_equal(by_stem(masks)["a"], expected)
    assert report.written.names == ("background", "roof", "wall")  # by id
    notes = " ".join(report.notes)
    assert "2 x a box or keypoints without an outline" in notes
    assert "1 x unknown category_id" in notes
    assert "1 x iscrowd: its pixels are ignored" in notes


WALL_MASK = covered(WALL)


def test_coco_files_state_splits(tmp_path: Path) -> None:
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        image(tmp_path / "in" / f"{split}2017" / name)
        annotations = [{"category_id": 4, "segmentation": [flat(ROOF)]}]
        write(tmp_path / "in" / "annotations" / f"instances_{split}2017.json", coco(annotations, [name]))
    write(tmp_path / "in" / "annotations" / "captions_train2017.json", {"images": [], "annotations": []})
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert set(masks) == {"train/a", "val/b"}
    assert "the splits are those of the export" in report.notes
    assert "skipped: 1 JSON file not named instances…" in report.notes


def test_roboflows_coco_has_the_same_names_in_every_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        image(tmp_path / "in" / split / "a.jpg")
        annotations = [{"category_id": 4, "segmentation": [flat(ROOF if split == "train" else WALL)]}]
        data = coco(annotations, ["a.jpg"])
        data["categories"] = [
            {"id": 0, "name": "houses-x1f", "supercategory": "none"},
            {"id": 4, "name": "roof", "supercategory": "houses-x1f"},
        ]
        write(tmp_path / "in" / split / "_annotations.coco.json", data)
    report, masks = run(archive(tmp_path / "in", tmp_path / "in.zip"), tmp_path / "out", split=None)
    np.testing.assert_array_equal(masks["train/a"], truth(("roof", ROOF)))
    np.testing.assert_array_equal(masks["val/a"], truth(("roof", WALL)))
    assert report.written.names == ("background", "roof")  # and not the project's name


def test_cvat(tmp_path: Path) -> None:
    two_images(tmp_path / "in" / "images")
    counts = np.diff(np.flatnonzero(np.diff([0, *STAMP.ravel().astype(int), 2])).tolist(), prepend=0).tolist()
    body = (
        f'<polygon label="wall" z_order="1" points="{pairs_text(WALL)}"/>'
        f'<polygon label="roof" z_order="0" points="{pairs_text(ROOF)}"><attribute name="x">1</attribute></polygon>'
        '<box label="roof" z_order="0" xtl="1.0" ytl="20.0" xbr="9.0" ybr="23.0"/>'
        '<ellipse label="wall" z_order="0" cx="27.3" cy="4.2" rx="3.1" ry="2.2"/>'
        f'<mask label="roof" z_order="2" left="20" top="17" width="7" height="5" rle="{", ".join(map(str, counts))}"/>'
        f'<polyline label="wall" points="{pairs_text(WALL)}"/><points label="wall" points="1,2"/><tag label="roof"/>'
        f'<polygon label="door" points="{pairs_text(DOOR)}"/>'
    )
    write(tmp_path / "in" / "annotations.xml", cvat(body))
    report, masks = run(archive(tmp_path / "in", tmp_path / "task.zip"), tmp_path / "out")
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    box, stamp = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    box[20:23, 1:9] = True
    stamp[17:22, 20:27] = STAMP
    ellipse = ((columns + 0.5 - 27.3) / 3.1) ** 2 + ((rows + 0.5 - 4.2) / 2.2) ** 2 <= 1
    expected = truth(("roof", ROOF), ("roof", box), ("wall", ellipse), ("wall", WALL), ("roof", stamp))
    np.testing.assert_array_equal(by_stem(masks)["a"], expected)
    rows_ = json.loads((tmp_path / "out" / "dataset.json").read_text())["classes"]
    assert [(row["name"], row["color"]) for row in rows_] == [
        ("background", [0, 0, 0]), ("roof", [255, 0, 0]), ("wall", [0, 255, 127]),
    ]  # fmt: skip
    notes = " ".join(report.notes)
    for kind in (
        "polyline: covers no pixels",
        "points: covers no pixels",
        "tag: covers no pixels",
        "unknown label 'door'",
    ):
        assert f"1 x {kind}" in notes


def test_cvat_subsets_are_splits(tmp_path: Path) -> None:
    two_images(tmp_path / "in" / "images")
    text = cvat(f'<polygon label="wall" points="{pairs_text(WALL)}"/>')
    text = text.replace('name="a.jpg"', 'name="a.jpg" subset="Train"').replace(
        'name="b.jpg"', 'name="b.jpg" subset="Validation"'
    )
    write(tmp_path / "in" / "annotations.xml", text)
    report, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    assert set(masks) == {"train/a", "val/b"}
    assert "no mask of train shows roof" in report.warnings[0]


def label_studio(result: list[dict], name: str = "/data/upload/3/1f2e3d4c-a.jpg", **keys: object) -> dict:
    rows = [{"original_height": SIZE[0], "original_width": SIZE[1], "image_rotation": 0, **row} for row in result]
    return {"id": 1, "data": {"image": name}, "annotations": [{"was_cancelled": False, "result": rows}], **keys}


def test_label_studio(tmp_path: Path) -> None:
    two_images(tmp_path / "in")
    alpha = np.where(covered(WALL), 255, 0).astype(np.uint8)
    alpha[0, 0], alpha[0, 1] = 127, 128  # half covered
    rgba = np.random.default_rng(0).integers(0, 4, (*SIZE, 4), np.uint8)
    rgba[..., 3] = alpha
    percent = (np.array(ROOF) / SIZE[::-1] * 100).tolist()
    strokes = {"format": "rle", "rle": encode_brush(rgba.ravel()), "brushlabels": ["wall"]}
    box = {"x": 1, "y": 2, "width": 9, "height": 9, "rectanglelabels": ["roof"]}
    other = "/data/local-files/?d=set/b.jpg"
    tasks = [
        label_studio([
            {"type": "brushlabels", "value": strokes},
            {"type": "polygonlabels", "value": {"points": percent, "closed": True, "polygonlabels": ["roof"]}},
            {"type": "rectanglelabels", "value": box},
            {"type": "polygon", "value": {"points": percent}},
        ]),
        label_studio([{"type": "labels", "value": {"points": percent, "labels": ["roof"]}}], other),
        {"id": 3, "data": {"image": "c.jpg"}, "annotations": []},
    ]  # fmt: skip
    write(tmp_path / "in" / "project.json", tasks)
    report, masks = run(tmp_path / "in", tmp_path / "out")
    wall = covered(WALL)
    wall[0, 1] = True
    np.testing.assert_array_equal(by_stem(masks)["a"], truth(("wall", wall), ("roof", ROOF)))
    np.testing.assert_array_equal(by_stem(masks)["b"], truth(("roof", ROOF)))
    notes = " ".join(report.notes)
    for reason in ("rectanglelabels: no outline", "no label", "task without an annotation: its image is left out"):
        assert f"1 x {reason}" in notes


@pytest.mark.parametrize(("word", "top"), [(8, 256), (3, 8), (1, 2)])
def test_brush_strokes_are_the_encoders(word: int, top: int) -> None:
    rng = np.random.default_rng(word)
    values = np.repeat(rng.integers(0, top, 300), rng.integers(1, 90, 300)).astype(np.uint8)
    np.testing.assert_array_equal(decode_values(bytes(encode_brush(values, word)), len(values)), values)
    noise = rng.integers(0, top, 5000).astype(np.uint8)
    bits = f"{5000:032b}{word - 1:05b}" + 4 * f"{12:04b}" + f"000{4999:013b}" + "".join(f"{v:0{word}b}" for v in noise)
    data = int(bits + "0" * (-len(bits) % 8), 2).to_bytes((len(bits) + 7) // 8, "big")
    np.testing.assert_array_equal(decode_values(data, 5000), noise)
    with pytest.raises(InputError, match="ends too early"):
        decode_values(data[:-2], 5000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:9], "ends too early"),
        (lambda data: b"", "ends too early"),
        (lambda data: b"\xff" * len(data), "holds 4294967295 values; expected 4 per pixel, 96"),
        (lambda data: data[:4] + b"\xff" + data[5:], "values of 32 bits"),
        (lambda data: data[:7] + b"\xff" * 40, "more than 96 values"),
    ],
)
def test_broken_brush_strokes_are_refused(damage: object, message: str) -> None:
    data = bytes(encode_brush(np.arange(96).astype(np.uint8)))
    with pytest.raises(InputError, match=message):
        decode_values(damage(data), 96)  # type: ignore[operator]


def yolo_line(label: int, points: list) -> str:
    shares = np.array(points) / SIZE[::-1]
    return " ".join([str(label), *(f"{v:.9f}" for v in shares.ravel())])


YAML = "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames: {0: roof, 1: wall}\n"


def write_yolo(root: Path, yaml: str = YAML) -> Path:
    for split in ("train", "val"):
        image(root / "images" / split / f"{split}.jpg")
    write(
        root / "labels" / "train" / "train.txt",
        f"{yolo_line(1, WALL)}\n{yolo_line(0, ROOF)}\n\n0 0.5 0.5 0.2 0.2\n2 0 0 1 0 1 1",
    )
    if yaml:
        write(root / "data.yaml", yaml)
    return root


def test_yolo(tmp_path: Path) -> None:
    report, masks = run(write_yolo(tmp_path / "in"), tmp_path / "out", split=None)
    np.testing.assert_array_equal(masks["train/train"], truth(("wall", WALL), ("roof", ROOF)))
    assert (masks["val/val"] == "background").all()
    assert report.written.names == ("background", "roof", "wall")
    notes = " ".join(report.notes)
    assert "1 image without a text file: background alone" in notes
    assert "1 x a box without an outline" in notes
    assert "1 x unknown class 2" in notes


def test_yolo_as_roboflow_writes_it_and_as_label_studio_does(tmp_path: Path) -> None:
    for split, points in (("train", ROOF), ("valid", WALL)):
        image(tmp_path / "in" / split / "images" / f"{split}.jpg")
        write(tmp_path / "in" / split / "labels" / f"{split}.txt", yolo_line(0, points))
    write(tmp_path / "in" / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['roof']\n")
    _, masks = run(tmp_path / "in", tmp_path / "roboflow", split=None)
    np.testing.assert_array_equal(masks["val/valid"], truth(("roof", WALL)))
    root = write_yolo(tmp_path / "studio", yaml="")
    write(root / "classes.txt", "roof\nwall\n")
    report, masks = run(root, tmp_path / "label-studio", split=None)
    assert report.format == "yolo"
    np.testing.assert_array_equal(masks["train/train"], truth(("wall", WALL), ("roof", ROOF)))


def test_yolos_ids_stay_where_two_names_mean_the_background(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "in" / "images" / f"{name}.jpg")
        write(tmp_path / "in" / "labels" / f"{name}.txt", f"{yolo_line(2, ROOF)}\n{yolo_line(3, WALL)}")
    write(tmp_path / "in" / "labels" / "c.txt", yolo_line(2, ROOF))
    write(tmp_path / "in" / "data.yaml", "names: [_background_, background, roof, wall]\n")
    report, masks = run(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(by_stem(masks)["a"], truth(("roof", ROOF), ("wall", WALL)))
    assert any(note.startswith("left out: 1 text files whose images are not there") for note in report.notes)


def test_an_empty_line_among_names_moves_no_numbers(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "in" / "images" / f"{name}.jpg")
        write(tmp_path / "in" / "labels" / f"{name}.txt", yolo_line(1, ROOF))
    write(tmp_path / "in" / "classes.txt", "wall\nroof\n\n")
    _, masks = run(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(by_stem(masks)["a"], truth(("roof", ROOF)))
    write(tmp_path / "in" / "classes.txt", "wall\n\nroof\n")
    with pytest.raises(InputError, match=r"classes.txt: line 2: expected a class name"):
        run(tmp_path / "in", tmp_path / "twice")


def test_coco_splits_of_the_same_names_in_folders_of_images(tmp_path: Path) -> None:
    for split, shape in (("train2017", ROOF), ("val2017", WALL)):
        image(tmp_path / "in" / "images" / split / "a.jpg")
        content = coco([{"category_id": 4, "segmentation": [flat(shape)]}], names=("a.jpg",))
        write(tmp_path / "in" / "annotations" / f"instances_{split}.json", content)
    _, masks = run(tmp_path / "in", tmp_path / "out", split=None)
    np.testing.assert_array_equal(masks["train/a"], truth(("roof", ROOF)))
    np.testing.assert_array_equal(masks["val/a"], truth(("roof", WALL)))


def test_cvats_images_of_one_name_in_folders(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/a.jpg"):
        image(tmp_path / "in" / "images" / name)
    body = f'<polygon label="roof" points="{pairs_text(ROOF)}"/>'
    write(tmp_path / "in" / "annotations.xml", cvat(body, ("a.jpg", "sub/a.jpg")))
    _, masks = run(tmp_path / "in", tmp_path / "out", split=(0.5, 0.5), group=None)
    assert set(masks) == {"train/a", "val/a"}
    images = {path.parts[-3]: path.stat().st_ino for path in (tmp_path / "out").glob("*/images/a.jpg")}
    labeled = next(key.split("/")[0] for key, mask in masks.items() if (mask == "roof").any())
    assert images[labeled] == (tmp_path / "in" / "images" / "a.jpg").stat().st_ino


def test_yolo_lists_of_images(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "in", "train: train.txt\nval: [images/val]\nnames: [roof, wall]\n")
    write(root / "train.txt", "./images/train/train.jpg\n")
    _, masks = run(root, tmp_path / "out", split=None)
    assert set(masks) == {"train/train", "val/val"}


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("- a", "expected an object"),
        ("names: [roof", "data.yaml: not YAML"),
        ("names: !!python/object/apply:os.system ['true']", "data.yaml: not YAML"),
        ("names: {1: roof}", r"'names': expected keys 0\.\.0"),
        ("names: [roof, Roof]", "a name twice"),
        ("names: [[roof]]", "'names': expected a text"),
        ("names: [roof]\nkpt_shape: [17, 3]", "keypoints"),
        ("names: [roof]\ntrain: nowhere", "'train': no image in 'nowhere'"),
        ("names: [roof]\ntrain: 3", "'train': expected a text"),
        ("names: [roof]\ntrain: images\nval: images/val", "in another split as well"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [[*b, *b]]", r"an alias \(\*name\) in line 2"),
        ("names: [roof]\nnames: [wall]", "key 'names' stands there twice"),
    ],
)
def test_broken_yaml_is_refused(yaml: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(write_yolo(tmp_path / "in", yaml), tmp_path / "out", split=None)


def test_broken_yolo_lines_are_refused(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "in")
    for line, message in (
        ("0 1 2 3", "line 1: expected a class and at least 3 points"),
        ("0 0.1 0.2 0.3 0.4 0.5", "at least 3 points"),
        ("0 10 20 30 40 50 60", r"line 1: points are shares of the picture, 0\.\.1\. Received: 10"),
        ("roof 0 0 1 0 1 1", "line 1: class: expected a whole number. Received: 'roof'"),
        ("0 0 0 1 0 1 nan", "line 1: expected a number"),
    ):
        write(root / "labels" / "train" / "train.txt", line)
        with pytest.raises(InputError, match=f"train.txt: {message}" if message.startswith("line") else message):
            run(root, tmp_path / "out", split=None)
        assert not (tmp_path / "out").exists()
