from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.label_sets import find_labels
from segformer_tf.labels import IGNORE_ID
from training.data.folder.source import FolderSource
from training.data.masks import class_table, read_mask
from training.data.open import open_source
from training.data.tfds.source import TfdsSource
from training.data.tfds.toy import NAMES, SPLITS, draw_sample


def test_folder_maps_raw_ids_to_classes(toy_folder: Path) -> None:
    source = open_source(str(toy_folder), "train")
    image, mask = source[2]
    expected_image, expected_mask = draw_sample(np.random.default_rng([0, 2]))
    np.testing.assert_array_equal(image, expected_image)
    np.testing.assert_array_equal(mask, expected_mask)  # ids 0, 10, 20.. became 0, 1, 2.., 200 became 255
    assert (mask == IGNORE_ID).any()
    assert (len(source), source.labels.names, source.labels.colors[1]) == (6, NAMES, (40, 0, 215))


def test_palette_masks_give_indices_not_colors(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 255]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([7, 7, 7] * 256)  # every color the same: only indices can tell classes apart
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png").values, indices)


@pytest.fixture
def broken(toy_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy folder, to be broken."""
    return Path(shutil.copytree(toy_folder, tmp_path / "data"))


def test_folders_that_do_not_fit_give_one_line(broken: Path) -> None:
    train = broken / "train"
    (train / "masks" / "0.png").rename(train / "masks" / "lone.png")
    with pytest.raises(InputError, match=r"image without mask: 0 \(1 of them\)"):
        FolderSource(broken, "train")
    (train / "images" / "0.png").unlink()
    with pytest.raises(InputError, match=r"mask without image: lone"):
        FolderSource(broken, "train")
    (train / "masks" / "lone.png").unlink()
    source = FolderSource(broken, "train")
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(train / "masks" / "1.png")
    with pytest.raises(InputError, match=r"1\.png: mask value 77 is neither a class nor ignored"):
        source[0]
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(train / "masks" / "2.png")
    with pytest.raises(InputError, match=r"2\.png: mask is \(64, 128\), its image \(128, 128\)"):
        source[1]
    Image.fromarray(np.zeros((128, 128), np.uint16)).save(train / "masks" / "3.png")
    with pytest.raises(InputError, match=r"3\.png: a mask is an 8-bit index, palette or RGB PNG .* Received: mode I"):
        source[2]
    for content in (b"", b"no png", (train / "masks" / "5.png").read_bytes()[:99]):
        (train / "masks" / "4.png").write_bytes(content)
        with pytest.raises(InputError, match=r"4\.png: not a readable mask"):
            source[3]
    for kind in ("images", "masks"):
        for path in (train / kind).iterdir():
            path.unlink()
    with pytest.raises(InputError, match="no image"):
        FolderSource(broken, "train")


def test_color_masks_are_read_by_the_manifests_colors(broken: Path) -> None:
    plain = [open_source(str(broken), "train")[i] for i in range(6)]
    manifest = json.loads((broken / "dataset.json").read_text())
    (broken / "dataset.json").write_text(json.dumps({**manifest, "ignore": [[1, 2, 3]]}))
    table = np.zeros((256, 3), np.uint8)
    table[: len(NAMES)] = [c["color"] for c in manifest["classes"]]
    table[IGNORE_ID] = 1, 2, 3
    for i, (_, mask) in enumerate(plain):
        mode = "RGB" if i % 2 else "RGBA"
        Image.fromarray(table[mask]).convert(mode).save(broken / "train" / "masks" / f"{i}.png")
    source = FolderSource(broken, "train")
    for i, (_, mask) in enumerate(plain):
        np.testing.assert_array_equal(source[i][1], mask)
    table[0] = 9, 9, 9
    Image.fromarray(table[plain[0][1]]).save(broken / "train" / "masks" / "0.png")
    with pytest.raises(InputError, match=r"0\.png: mask color \(9, 9, 9\) is neither a class nor ignored"):
        source[0]
    manifest["classes"][0]["color"] = manifest["classes"][1]["color"]
    (broken / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="the manifest gives one color to two classes"):
        FolderSource(broken, "train")[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, '"classes" must be a list of objects'),
        ({"classes": [{"id": 0, "name": "a"}]}, "missing key 'color'"),
        ({"classes": [{"id": 300, "name": "a", "color": [0, 0, 0]}]}, r"ids must be distinct, 0\.\.255"),
        ({"ignore": [0]}, "not both a class and ignored"),
        ({"ignore": [[1, 2]]}, "a color must be three numbers"),
        ({"classes": []}, "expected 1 to 255 class names"),
    ],
)
def test_bad_manifests_give_one_line(broken: Path, change: dict, message: str) -> None:
    path = broken / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        FolderSource(broken, "train")


def test_toy_shapes_is_a_tfds_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPLITS, "train", 3)
    monkeypatch.setitem(SPLITS, "val", 2)
    monkeypatch.setitem(SPLITS, "test", 2)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    source = open_source("tfds:toy_shapes", "train")
    assert (len(source), source.labels.names) == (3, NAMES)
    drawn = {draw_sample(np.random.default_rng([0, i]))[0].tobytes() for i in range(3)}
    assert {source[i][0].tobytes() for i in range(3)} == drawn
    assert source[0][1].shape == (128, 128)
    with pytest.raises(InputError, match="no split 'extra'; splits: "):
        open_source("tfds:toy_shapes", "extra")


def test_transparent_pixels_of_a_tfds_mask_are_ignored() -> None:
    source = object.__new__(TfdsSource)
    source.name, source._image_key, source._target_key = "shapes", "image", "mask"
    source._table = class_table({0: 0, 1: 1})
    record = {}
    for key, picture in {
        "image": Image.fromarray(np.zeros((1, 3, 3), np.uint8)),
        "mask": Image.merge("LA", [Image.fromarray(np.array([rows], np.uint8)) for rows in ([0, 1, 7], [255, 255, 0])]),
    }.items():
        picture.save(file := BytesIO(), "PNG")
        record[key] = file.getvalue()
    source._records = [record]
    np.testing.assert_array_equal(source[0][1], [[0, 1, IGNORE_ID]])


def test_predicting_one_class_everywhere_scores_below_015() -> None:
    from segformer_tf.metrics import confusion_matrix, mean_iou

    masks = np.stack([draw_sample(np.random.default_rng([2, i]))[1] for i in range(30)])
    for c in range(len(NAMES)):
        matrix = confusion_matrix(masks, np.full_like(masks, c), num_classes=len(NAMES))
        assert mean_iou(matrix) < 0.15


def test_real_camvid(camvid: Path) -> None:
    source = open_source(str(camvid), "test")
    assert len(source) == 233
    assert source.labels.names[:3] == ("Sky", "Building", "Pole")
    image, mask = source[100]
    assert (image.shape, mask.shape) == ((360, 480, 3), (360, 480))
    assert set(np.unique(mask)) <= {*range(11), IGNORE_ID}


def test_ade20k_masks_count_from_one(ade20k: Path, tmp_path: Path) -> None:
    """0 is "other", which others call reduce_zero_label: an ignored id here."""
    for kind in ("images", "masks"):
        shutil.copytree(ade20k / kind, tmp_path / "val" / kind)
    labels = find_labels("ade20k")
    classes = [{"id": i + 1, "name": name, "color": [0, 0, i]} for i, name in enumerate(labels.names)]
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": classes, "ignore": [0]}))
    source = FolderSource(tmp_path, "val")
    for i in range(len(source)):
        raw = read_mask(source.masks[i]).values
        mask = source[i][1]
        assert raw.max() <= 150
        np.testing.assert_array_equal(mask, np.where(raw == 0, IGNORE_ID, raw.astype(int) - 1))
        assert len(np.unique(mask)) > 3
