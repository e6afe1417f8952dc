"""`segformer data check`: leaks, doubtful masks, suggestions, the sheet, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.cli import main
from tests.helpers import refused
from training.data.check_masks import check_masks
from training.data.open import open_source
from training.data.quality import twins
from training.data.quality.borders import fit
from training.data.quality.check import check_data
from training.data.quality.objects import regions, through_grid
from training.data.quality.twins import SAME, SIMILAR, find_twins, fingerprint
from training.data.steps import steps

NAMES = ("ground", "thing", "pole")
CLASSES = [{"id": i, "name": name, "color": [80 * i, 40, 200 - 80 * i]} for i, name in enumerate(NAMES)]


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """A picture of soft texture with two rectangles and a pole in it, and its mask."""
    rng = np.random.default_rng(seed)
    height, width = size
    texture = Image.fromarray(rng.integers(60, 200, (7, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    image, mask = np.asarray(texture).copy(), np.zeros(size, np.uint8)
    for _ in range(2):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        box = np.s_[top : top + height // 3, left : left + width // 4]
        image[box], mask[box] = image[box] // 2, 1
    column = rng.integers(4, width - 4)
    image[:, column : column + 2], mask[:, column : column + 2] = 255, 2
    return image, mask


def write(root: Path, split: str, name: str, image: np.ndarray, mask: np.ndarray, quality: int = 95) -> None:
    for kind in ("images", "masks"):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / split / "images" / f"{name}.jpg", quality=quality)
    Image.fromarray(mask).save(root / split / "masks" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six scenes of train and three of val, all different."""
    for seed in range(9):
        write(tmp_path / "data", "train" if seed < 6 else "val", f"s{seed}", *scene(seed))
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"classes": CLASSES}))
    return tmp_path / "data"


def found(root: Path, topic: str) -> list[str]:
    return [finding.text for finding in check_data(str(root)).report.findings if finding.topic == topic]


def test_a_data_set_without_faults_passes(root: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    main(["data", "check", str(root), "--out", str(tmp_path / "sheet.png")])
    out = capsys.readouterr().out
    assert "FAULT" not in out
    assert "96x128 (6)" in out
    assert "suggestion for train: --crop 96 128" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1440
        assert len({*np.asarray(sheet).reshape(-1, 3)[::7].view("u1,u1,u1").ravel().tolist()}) > 100
    assert "exists already" in refused(capsys, "data", "check", root, "--out", tmp_path / "sheet.png")
    assert "--out must end in .png" in refused(capsys, "data", "check", root, "--out", tmp_path / "sheet.svg")


def jpeg(image: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


LEAKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "copied": lambda image: image,
    "saved again": jpeg,
    "mirrored": lambda image: image[:, ::-1],
    "cropped": lambda image: image[5:-4, 6:-7],
    "half": lambda image: np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BILINEAR)),
    "brighter": lambda image: np.minimum(image * 1.25, 255).astype(np.uint8),
}


@pytest.mark.parametrize("how", LEAKS)
def test_a_leak_is_a_fault(how: str, root: Path, capsys: pytest.CaptureFixture) -> None:
    image, _ = scene(2)
    leaked = LEAKS[how](image)
    write(root, "val", "leaked", leaked, np.resize(np.array([0, 1, 2], np.uint8), leaked.shape[:2]))
    line = refused(capsys, "data", "check", root)
    assert line.startswith(f"segformer: {root}: 1 fault, the first: val and train share 1 picture: val/leaked.jpg ")
    assert "train/s2.jpg" in line
    assert line.endswith("scores on val are too high")


def test_files_of_two_splits_are_named_before_a_training(root: Path, capsys: pytest.CaptureFixture) -> None:
    def note() -> str:
        check_masks(open_source(str(root), "train"), open_source(str(root), "val"))
        return "".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("leak"))

    assert not note()
    for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
        (root / "val" / kind / f"x{suffix}").write_bytes((root / "train" / kind / f"s1{suffix}").read_bytes())
    assert note().startswith(f"leak: {root}/val/images/x.jpg is the same file as {root}/train/images/s1.jpg (1 such)")


def test_unrelated_pictures_are_far_apart() -> None:
    prints = np.stack([fingerprint(scene(seed)[0]) for seed in range(40)])
    assert find_twins(prints[:20], prints[20:]) == []
    (pair,) = find_twins(prints[:20], np.concatenate([prints[20:], prints[7:8]]))
    assert (pair.here, pair.there, pair.bits) == (7, 20, 0)


def test_twins_are_those_of_the_plain_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    base = rng.choice(np.array([-1, 1], np.int8), (5, 256))
    many = np.repeat(base[None], 60, 0)
    for i, each in enumerate(many):  # i bits and more differ, in every view
        each[:, rng.permutation(256)[: 2 * i]] *= -1
    here, there = many[::7], many[3:]
    bits = np.array(
        [[min(min((a[0] != b[v]).sum(), (a[v] != b[0]).sum()) for v in range(5)) for b in there] for a in here]
    )
    pairs = find_twins(here, there)
    assert [pair.bits for pair in pairs] == sorted(b for b in bits.min(0).tolist() if b <= SIMILAR)
    assert all(bits[pair.here, pair.there] == pair.bits for pair in pairs)
    assert any(SAME < pair.bits <= SIMILAR for pair in pairs)
    monkeypatch.setattr(twins, "_CHUNK", 2)
    assert [pair.bits for pair in find_twins(here, there)] == [pair.bits for pair in pairs]


def test_pictures_of_one_color_are_no_twins(root: Path) -> None:
    black = np.zeros((96, 128, 3), np.uint8)
    write(root, "train", "black", black, scene(0)[1])
    write(root, "val", "nearly", black + 1, scene(0)[1])
    write(root, "val", "black", black, scene(0)[1])
    assert not found(root, "leak")


def test_one_picture_with_two_masks_is_a_contradiction(root: Path) -> None:
    image, mask = scene(1)
    write(root, "train", "again", image, mask)
    assert found(root, "copies") == ["train: 1 picture stored several times: train/again.jpg = train/s1.jpg"]
    write(root, "train", "again", image, np.roll(mask, 3, 0))
    assert found(root, "contradiction") == [
        "train: 1 picture with several masks that differ: train/again.jpg = train/s1.jpg"
    ]


@pytest.mark.parametrize("size", [(96, 128), (131, 77), (256, 256)])
def test_a_mask_that_lies_elsewhere_is_doubted(size: tuple[int, int]) -> None:
    right, wrong = [], []
    for seed in range(8):
        image, mask = scene(seed, size)
        shift = round(0.03 * size[0]), -round(0.03 * size[1])
        right.append(fit(image, mask).doubt)
        wrong.append(fit(image, np.roll(mask, shift, (0, 1))).doubt)
    assert right == [None] * 8
    assert {kind for kind, _ in wrong} == {"fit better elsewhere"}
    assert all("% up" in details and "to the right" in details for _, details in wrong)  # back to where it was


def test_mirrored_and_foreign_masks_are_doubted() -> None:
    mirrored = [fit(scene(seed)[0], scene(seed)[1][:, ::-1]).doubt for seed in range(8)]
    assert mirrored.count(("fit better mirrored or upside down", "")) >= 6
    foreign = [fit(scene(seed)[0], scene(seed + 50)[1]).doubt for seed in range(8)]
    assert sum(doubt is not None for doubt in foreign) >= 4
    assert fit(scene(0)[0], np.zeros((96, 128), np.uint8)) is None


def test_a_mask_resized_by_interpolation_is_seen(root: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.repeat(np.repeat(rng.choice(np.array([0, 2], np.uint8), (6, 8)), 7, 0), 7, 1)
    small = Image.fromarray(mask)
    smooth = np.asarray(small.resize((128, 96), Image.Resampling.BILINEAR))
    assert steps(smooth).smoothed
    assert not steps(np.asarray(small.resize((128, 96), Image.Resampling.NEAREST))).smoothed
    assert not any(steps(scene(seed)[1]).smoothed for seed in range(8))
    drawn = np.tile(np.repeat(np.array([1, 3, 2, 3], np.uint8), (9, 2, 9, 2)), (96, 4))  # as Oxford's pets have borders
    assert not steps(drawn).smoothed
    write(root, "train", "smooth", scene(3)[0], smooth)
    (text,) = found(root, "smoothed")
    assert text.startswith("1 mask with smoothed borders, such as train/smooth.jpg")


def test_regions_and_the_grid_by_hand() -> None:
    mask = np.zeros((13, 22), np.uint8)
    mask[0:8, 0:8] = 1  # two cells by two
    mask[8, 8] = 1  # touches it at a corner
    mask[12, 20] = 2
    mask[0, 21] = 255
    areas = regions(mask, 4)
    assert {i: own.tolist() for i, own in areas.items()} == {0: [13 * 22 - 64 - 3], 1: [65], 2: [1]}
    both, either = through_grid(mask, 4)
    assert both[2] == 0  # a pixel is lost
    assert either[2] == 1
    assert both[1] / either[1] > 0.8
    assert (both[3], either[3]) == (0, 0)
    assert either.sum() >= 13 * 22 - 1


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_the_grid_keeps_more_of_wider_stripes(side: int) -> None:
    mask = (np.arange(64) // side % 2).astype(np.uint8)[None].repeat(33, 0)
    both, either = through_grid(mask, 2)
    share = both / either
    assert (share > 0.95).all() if side >= 4 else (share < 0.8).all()


def test_every_fault_is_listed_and_the_rest_is_read(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "train" / "images" / "s1.jpg").write_bytes(b"no picture")
    Image.fromarray(np.full((96, 128), 77, np.uint8)).save(root / "val" / "masks" / "s7.png")
    with pytest.raises(SystemExit):
        main(["data", "check", str(root), "--json"])
    report = json.loads(capsys.readouterr().out)
    faults = [finding["text"] for finding in report["findings"] if finding["fault"]]
    assert len(faults) == 2
    assert "s1.jpg: not a readable image" in faults[0]
    assert "s7.png: mask value 77 is neither a class nor ignored" in faults[1]
    assert report["splits"]["train"] == {"images": 6, "sizes": [{"height": 96, "width": 128, "images": 5}]}
    assert report["classes"][1]["images"] == {"train": 5, "val": 2}


def test_a_class_that_train_lacks_is_a_fault(root: Path, capsys: pytest.CaptureFixture) -> None:
    classes = [*CLASSES, {"id": 9, "name": "kite", "color": [1, 2, 3]}]
    (root / "dataset.json").write_text(json.dumps({"classes": classes}))
    assert "no mask shows kite (id 9)" in refused(capsys, "data", "check", root)
    assert found(root, "missing") == ["no mask of val shows kite"]


def test_suggestions_have_their_reasons(root: Path) -> None:
    (thin,) = [row for row in check_data(str(root)).report.classes if row.name == "pole"]
    assert thin.iou_at_quarter is not None
    assert thin.iou_at_quarter < 0.8
    options = {each.options: each.reason for each in check_data(str(root)).report.suggestions}
    assert "keeps an IoU of" in options["--eval-size 160 192"]
    assert "--size 160 192" in options
    for i in range(4):  # now val has another usual size than its first image, and nothing thin
        image, mask = scene(60 + i, (160, 64))
        write(root, "val", f"t{i}", image, mask)
    for path in root.glob("*/masks/*.png"):
        mask = np.asarray(Image.open(path)) % 2
        mask[0, 0] = 2  # a rare class
        Image.fromarray(mask).save(path)
    options = {each.options: each.reason for each in check_data(str(root)).report.suggestions}
    assert "ground" in options["--class-weights 0.4"]
    assert "pole has 0.0081 % of train's pixels" in options["--class-weights 0.4"]


def test_a_folder_without_a_manifest_is_looked_at_and_left_alone(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "dataset.json").unlink()
    main(["data", "check", str(root)])
    out = capsys.readouterr().out
    assert "no manifest, so this is assumed:" in out
    assert "class 2" in out
    assert not (root / "dataset.json").exists()
    for path in list((root / "val").rglob("*.*")):
        path.rename(root / "train" / path.relative_to(root / "val"))
    for kind in ("images", "masks"):
        (root / "val" / kind).rmdir()
    assert list(check_data(str(root)).report.splits) == ["train", "val"]  # as it would be cut


def test_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import tensorflow_datasets as tfds

    from training.data.tfds.toy import SPLITS

    for split in SPLITS:
        monkeypatch.setitem(SPLITS, split, 3)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    open_source("tfds:toy_shapes", "train")  # TFDS prints while it prepares
    capsys.readouterr()
    main(["data", "check", "tfds:toy_shapes", "--splits", "train", "test", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert {split: own["images"] for split, own in report["splits"].items()} == {"train": 3, "test": 3}
    assert not [finding for finding in report["findings"] if finding["fault"]]
