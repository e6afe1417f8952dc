"""`segformer report`: its page, what is missing on it, and what strangers' names may hold."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf import build_segformer
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from segformer_tf.labels import IGNORE_ID, Labels
from tests.helpers import refused
from training.analysis.report.after_training import report_after_training
from training.analysis.report.border_scores import BorderScores, near_borders, strip_width
from training.analysis.report.build import Request, build
from training.analysis.report.calibration import BINS, Calibration
from training.analysis.report.card import run_card
from training.analysis.report.page import Page, render
from training.analysis.report.pictures import chosen, difference_map
from training.analysis.report.run_files import read_run
from training.analysis.report.scan import Differences, Findings, predict, scan
from training.analysis.report.tables import borders, calibration, class_scores, confusion, differences, totals
from training.data.open import open_source
from training.evaluate import ImageScore, Scores, evaluate, open_predictor

HOSTILE = "<script>alert(1)</script>&\"'\x1b\u202e"
RNG = np.random.default_rng(7)


class Names(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")]


def random_masks(shape: tuple[int, int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask of large regions with some ignored pixels, and another one like it."""
    small = RNG.integers(0, classes, (4, 5)).astype(np.uint8)
    truth = np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.NEAREST)).copy()
    prediction = np.roll(truth, 2, 1)
    truth[RNG.random(shape) < 0.05] = IGNORE_ID
    return truth, prediction


def plain_near(mask: np.ndarray, reach: int) -> np.ndarray:
    """`near_borders`, pixel by pixel."""
    near = np.zeros(mask.shape, bool)
    for y, x in np.argwhere(mask != IGNORE_ID):
        window = mask[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        near[y, x] = len(np.unique(window[window != IGNORE_ID])) > 1
    return near


@pytest.mark.parametrize(("shape", "reach"), [((37, 53), 1), ((64, 29), 3), ((9, 40), 12)])
def test_borders_are_those_of_a_plain_search(shape: tuple[int, int], reach: int) -> None:
    truth, _ = random_masks(shape, 4)
    np.testing.assert_array_equal(near_borders(truth, reach), plain_near(truth, reach))


def test_boundary_and_interior_iou_by_sets() -> None:
    scores, images = BorderScores(4), [random_masks(shape, 4) for shape in ((101, 157), (160, 90))]
    for truth, prediction in images:
        scores.add(truth, prediction)
    for c in range(4):
        both = either = inside = around = 0
        for truth, prediction in images:
            reach, valid = strip_width(truth.shape), truth != IGNORE_ID
            near, theirs = plain_near(truth, reach), plain_near(prediction, reach)
            one, two = (truth == c) & near, (prediction == c) & theirs & valid
            both, either = both + (one & two).sum(), either + (one | two).sum()
            far = valid & ~near
            inside += (far & (truth == c) & (prediction == c)).sum()
            around += (far & ((truth == c) | (prediction == c))).sum()
        assert scores.boundary_iou[c] == both / either
        assert scores.interior_iou[c] == inside / around
    wrong = sum(((t != p) & (t != IGNORE_ID)).sum() for t, p in images)
    near_wrong = sum(((t != p) & plain_near(t, strip_width(t.shape))).sum() for t, p in images)
    assert scores.error_share == near_wrong / wrong
    assert scores.reach == (2, 2)


def test_masks_without_borders_have_no_boundary_iou() -> None:
    scores = BorderScores(2)
    scores.add(np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8))
    assert np.isnan(scores.boundary_iou).all()
    assert scores.interior_iou[0] == 1
    assert np.isnan(scores.error_share)


def test_calibration_error_by_hand() -> None:
    own = Calibration()
    own.add(np.array([[0.9, 0.9], [0.9, 0.9]], np.float32), np.array([[True, True], [True, False]]))
    own.add(np.array([0.5, 1.0], np.float32), np.array([True, True]))
    assert own.pixels.sum() == 6
    assert own.error == pytest.approx((abs(3 - 3.6) + abs(1 - 0.5) + 0) / 6)
    assert own.pixels[BINS - 1] == 1  # a confidence of 1 is in the last bin
    assert np.nanmax(own.accuracy) == 1
    many = RNG.random((1100, 1001), np.float32)  # more than are counted at once
    whole, rows = Calibration(), Calibration()
    whole.add(many, many > 0.5)
    for row in many:
        rows.add(row, row > 0.5)
    np.testing.assert_array_equal(whole.pixels, rows.pixels)
    np.testing.assert_array_equal(whole.right, rows.right)
    np.testing.assert_allclose(whole.confidence, rows.confidence)
    assert whole.pixels.sum() == many.size
    empty = Calibration()
    assert np.isnan(empty.error)
    assert np.isnan(empty.accuracy).all()


def test_differences_count_who_is_right() -> None:
    found = Differences()
    truth = np.array([[0, 1, 2, IGNORE_ID, 1]], np.uint8)
    one, two = np.array([[0, 1, 0, 0, 2]], np.uint8), np.array([[1, 1, 1, 1, 1]], np.uint8)
    found.add(5, truth, one, two)
    assert (found.pixels, found.differ, found.first, found.second) == (4, 3, 1, 1)
    assert found.most(3) == [(5, 0.75)]
    colors = difference_map(np.full((1, 5, 3), 100, np.uint8), truth, one, two)[0].tolist()
    assert colors == [[0, 114, 178], [114, 114, 114], [0, 0, 0], [0, 0, 0], [230, 159, 0]]
    rows = {row[0]: row[1] for row in differences(("a", "b"), found).rows}
    assert list(rows.values()) == ["1", "1", "1", "1"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 8, 9, 40])
def test_no_image_is_shown_twice(count: int) -> None:
    images = tuple(ImageScore(i, f"{i}", np.zeros(2), float(RNG.random())) for i in range(count))
    images += (ImageScore(count, "ignored", np.zeros(2), float("nan")),)
    groups = chosen(Scores(Labels.numbered(2), count, np.eye(2, dtype=np.int64), images))
    shown = [image for group in groups.values() for image in group]
    assert len({image.index for image in shown}) == len(shown) == (count if count < 3 else 3 * min(count // 3, 3))
    if count >= 3:
        order = sorted(image.mean_iou for image in images[:count])
        assert groups["The worst images"][0].mean_iou == order[0]
        assert groups["The best images"][0].mean_iou == order[-1]


def test_the_mask_of_a_page_is_that_of_evaluate(trained: Path, tiny_files: dict, toy_folder: Path) -> None:
    source = open_source(str(toy_folder), "val")
    with open_predictor(tiny_files["int8"], runtime=None, labels=source.labels) as predictor:
        (found,), _ = scan([predictor], source, indices=range(3))
        np.testing.assert_array_equal(found.scores.matrix, evaluate(predictor, source, indices=range(3)).matrix)
    with open_predictor(trained, runtime=None, labels=source.labels) as predictor:
        for image, _ in (source[0], source[2]):
            cut = image[:61, :97]
            np.testing.assert_array_equal(predict(predictor, cut).mask, predictor(cut))
        (found,), none = scan([predictor], source, indices=range(2))
        assert none is None
        assert [image.name for image in found.scores.per_image] == ["0.png", "1.png"]
        assert found.calibration.pixels.sum() == found.scores.matrix.sum()
        (one, two), same = scan([predictor, predictor], source, indices=range(1))
        assert same is not None
        assert same.differ == 0
        np.testing.assert_array_equal(one.scores.matrix, two.scores.matrix)


def test_a_run_has_every_part(trained: Path, tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    main(["report", str(run), "--against", str(tiny_files["int8"]), "--split", "test"])
    assert "missing" not in capsys.readouterr().err
    page = (run / "report.html").read_text("utf-8")
    for part in (
        "card",
        "scores",
        "curves",
        "confusion",
        "images",
        "calibration",
        "borders",
        "differences",
        "times",
        "data",
    ):
        assert f'<h2 id="{part}">' in page, part
        assert f'href="#{part}"' in page, part
    names = Names(page)
    assert "script" not in names.tags
    assert all(re.match(r"#\w+$|data:", address) for address in names.addresses)
    assert names.tags.count("img") > 10
    assert "int8" in page
    main(["report", str(run)])  # again, over the first
    assert "The two models" not in (run / "report.html").read_text("utf-8")


def test_what_is_missing_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "history.csv").unlink()
    (run / "environment.json").write_text("{}")
    shutil.rmtree(run / "weights")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": str(tmp_path / "gone")}))
    main(["report", str(run)])
    said = capsys.readouterr().err
    page = unescape((run / "report.html").read_text("utf-8"))
    for line in ("history.csv is not there", "environment.json cannot be read", "gone", "no .tflite to time"):
        assert line in said, line
        assert line in page, line
    (run / "history.csv").write_text("epoch,loss\n0,zero\n")
    (run / "config.json").write_text(json.dumps(config))
    page = unescape(render(build(Request(model=run, checked=2))))
    assert "history.csv cannot be read" in page
    assert "without weights/best.keras" in page
    assert "12 images would be read" in page
    (run / "config.json").write_text("[")
    assert "--data DATA does" in render(build(Request(model=run)))


def test_what_is_no_run_is_refused(tmp_path: Path, tiny_files: dict, capsys: pytest.CaptureFixture) -> None:
    assert "holds none of config.json" in refused(capsys, "report", tmp_path)
    assert "no such model file" in refused(capsys, "report", tmp_path / "no.keras")
    file = tiny_files["fp32"]
    assert "expected --data DATA" in refused(capsys, "report", file)
    assert "expected --out FILE.html" in refused(capsys, "report", file, "--data", tmp_path)
    words = ("report", file, "--data", tmp_path, "--out")
    assert "--out must end in .html" in refused(capsys, *words, tmp_path / "a.pdf")
    (tmp_path / "a.html").touch()
    assert "exists already" in refused(capsys, *words, tmp_path / "a.html")
    assert "--images must be positive" in refused(capsys, *words, tmp_path / "b.html", "--images", 0)
    (tmp_path / "config.json").write_text('{"task": "classification"}')
    with pytest.raises(InputError, match="a pretrained encoder has no masks"):
        read_run(tmp_path)


def test_what_was_asked_for_and_is_not_there_is_no_report(
    trained: Path, tiny_files: dict, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, page = tmp_path / "run", tmp_path / "page.html"
    shutil.copytree(trained, run)
    (run / "report.html").write_text("of before")
    assert "gone: no such folder" in refused(capsys, "report", run, "--data", tmp_path / "gone")
    assert "splits here" in refused(capsys, "report", run, "--split", "tset")
    assert (run / "report.html").read_text() == "of before"
    file = tiny_files["fp32"]
    assert "a .tflite sees its own size" in refused(
        capsys, "report", file, "--data", toy_folder, "--out", page, "--size", 64, 64
    )
    (tmp_path / "cut.keras").write_bytes((trained / "weights" / "best.keras").read_bytes()[:3000])
    assert "cut.keras" in refused(capsys, "report", tmp_path / "cut.keras", "--data", toy_folder, "--out", page)
    assert not page.exists()


def test_a_card_has_no_path_and_takes_what_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"data": "/home/me/data", "weights": "/home/me/runs/first"}')
    (tmp_path / "history.csv").write_text("epoch,val_mean_iou\n0,nan\n1,0.25\n2,0.125\n")
    (tmp_path / "environment.json").write_text("{")
    run = read_run(tmp_path)
    card = dict(run_card(run))
    assert card["options"] == "weights first"
    assert "0.2500 after epoch 2; at last 0.1250" in card["best validation"]
    assert "/" not in str(card.values()) + str(run.missing)
    (tmp_path / "config.json").write_text('{"weights": "hf://nvidia/mit-b0"}')
    assert dict(run_card(read_run(tmp_path)))["options"] == "weights hf://nvidia/mit-b0"


def test_a_model_of_other_classes_leaves_the_first_ones_report(
    trained: Path, tiny_files: dict, toy_folder: Path, tmp_path: Path
) -> None:
    build_segformer("tiny", num_classes=9).save(tmp_path / "nine.keras")
    page = build(Request(model=tiny_files["fp32"], data=str(toy_folder), against=tmp_path / "nine.keras", images=2))
    ((part, reason),) = page.missing
    assert part == "Comparison with nine.keras"
    assert "has 9 classes, the data 6" in reason
    assert page.classes
    assert page.differences is None
    assert page.scored.startswith("2 of 3 images")
    page = build(Request(model=tiny_files["fp32"], data=str(toy_folder), against=trained))
    assert ("images", "stretched to 97x161") in page.cards[trained.name]  # as the file, not as it was validated


def test_a_file_with_data_needs_no_run(tiny_files: dict, toy_folder: Path, tmp_path: Path) -> None:
    page = build(Request(model=tiny_files["fp32"], data=str(toy_folder)))
    assert not page.missing
    assert page.latency
    assert "split test" in page.scored
    assert not page.curves


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = (HOSTILE, "{{ 7*7 }}", "\udcff")
    truth, prediction = (np.array([[0, 1, 2, 2]], np.uint8), np.array([[0, 1, 1, 2]], np.uint8))
    labels = Labels.named(names)
    matrix = np.diag([5, 4, 3]) + 1
    scores = Scores(labels, 1, matrix, (ImageScore(0, HOSTILE, np.ones(3), 0.5),))
    page = Page(title=HOSTILE, date="now", version="1", models=[HOSTILE], missing=[(HOSTILE, HOSTILE)])
    page.classes = class_scores([scores])
    confusion(page, scores)
    own = BorderScores(3)
    own.add(truth, prediction)
    found = [Findings(scores, Calibration(), own, [1.0])]
    page.totals, page.calibration = totals(page.models, found), calibration(page.models, found)
    borders(page, found)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"data": HOSTILE, "variant": [HOSTILE], "loss": {HOSTILE: 1}}))
    page.cards[HOSTILE] = run_card(read_run(run))
    text = render(page)
    assert "script" not in Names(text).tags
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{ 7*7 }}" in text
    assert text.encode("utf-8")
    assert unescape(text).count("<script>alert(1)</script>&\"'\\x1b\\u202e") >= 6


def test_a_report_never_breaks_a_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report_after_training(tmp_path)
    said = capsys.readouterr()
    assert "no report" in said.err
    assert f"segformer report {tmp_path}" in said.err
    assert not said.out
    assert not (tmp_path / "report.html").exists()
