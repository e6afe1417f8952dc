from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.cli import main
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from segformer_tf.metrics import confusion_matrix, mean_iou
from segformer_tf.overlay import errors
from tests.helpers import refused
from training.evaluate import Scores, evaluate
from training.worst import draw_worst, worst_images

LABELS = Labels.named(["left", "right"])


class Stripes:
    """Images in which the right class begins at some column; a `guess` takes it to begin at the middle."""

    name, license, bits, labels = "stripes", "", None, LABELS

    def __init__(self, starts: list[int], size: tuple[int, int] = (20, 40)) -> None:
        self.starts, self.size = starts, size
        self.images = [Path(f"photo{i}.jpg") for i in range(len(starts))]
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.reads.append(index)
        truth = np.zeros(self.size, np.uint8)
        truth[:, self.starts[index] :] = 1
        truth[0] = 255
        return np.full((*self.size, 3), 100, np.uint8), truth if self.starts[index] else truth * 0 + 255


def guess(image: np.ndarray) -> np.ndarray:
    prediction = np.zeros(image.shape[:2], np.uint8)
    prediction[:, image.shape[1] // 2 :] = 1
    return prediction


def test_the_worst_are_drawn_the_worst_first(tmp_path: Path) -> None:
    source = Stripes([20, 35, 0, 25, 10, 21])  # the third is wholly ignored
    scores = evaluate(guess, source, indices=range(6))
    expected = [mean_iou(confusion_matrix(source[i][1], guess(source[i][0]), num_classes=2)) for i in range(6)]
    np.testing.assert_array_equal([image.mean_iou for image in scores.per_image], expected)
    assert scores.to_dict()["per_image"][2] == {"image": "photo2.jpg", "mean_iou": None, "per_class": {}}
    assert [image.index for image in worst_images(scores, 9)] == [1, 4, 3, 5, 0]
    matrices = [confusion_matrix(source[i][1], guess(source[i][0]), num_classes=2) for i in range(6)]
    assert scores.mean_iou == mean_iou(sum(matrices))
    source.reads.clear()
    line = draw_worst(guess, source, scores, count=3, out=tmp_path / "sheet")
    assert source.reads == [1, 4, 3]
    assert f"the 3 worst of 6 images, of mean IoU {expected[1]:.4f} to {expected[3]:.4f}" in line
    names = ["1_photo1.png", "2_photo4.png", "3_photo3.png", "sheet.png"]
    assert sorted(path.name for path in (tmp_path / "sheet").iterdir()) == names
    with Image.open(tmp_path / "sheet" / names[0]) as row, Image.open(tmp_path / "sheet" / "sheet.png") as sheet:
        pixels = np.asarray(row.convert("RGB"))
        assert row.width >= 4 * 40
        assert sheet.width == 1600
    tiles = [pixels[24:44, 40 * i : 40 * i + 40] for i in range(4)]
    np.testing.assert_array_equal(tiles[0], 100)
    red = (tiles[3] == (230, 25, 25)).all(-1)
    wrong = guess(source[1][0]) != source[1][1]
    np.testing.assert_array_equal(red, wrong & (source[1][1] != 255))
    assert (tiles[1] != tiles[2]).any(-1)[1:].sum() == red.sum()  # truth and prediction differ there alone


def test_errors_are_red_and_ignored_pixels_black() -> None:
    truth, prediction = np.array([[0, 1, 255]], np.uint8), np.array([[1, 1, 0]], np.uint8)
    picture = errors(np.full((1, 3, 3), 100, np.uint8), truth, prediction)
    np.testing.assert_array_equal(picture[0], [[230, 25, 25], [114, 114, 114], [0, 0, 0]])


def test_images_that_do_not_count_are_not_drawn(tmp_path: Path) -> None:
    source = Stripes([0, 0])
    line = draw_worst(guess, source, evaluate(guess, source, indices=range(2)), count=2, out=tmp_path)
    assert "nothing is drawn" in line
    assert not list(tmp_path.iterdir())


def test_a_large_image_is_drawn_smaller(tmp_path: Path) -> None:
    source = Stripes([700], (30, 1300))
    draw_worst(guess, source, evaluate(guess, source, indices=range(1)), count=1, out=tmp_path)
    with Image.open(tmp_path / "1_photo0.png") as row:
        assert row.width == 4 * 1024


def test_memory_does_not_grow_with_the_split() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        evaluate(guess, Stripes([20] * count, (200, 300)), indices=range(count))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(60) < peak(6) + 100_000  # a mask is 60,000 bytes


def test_samples_without_files_are_numbered() -> None:
    source = Stripes([20, 30])
    source.images = []
    scores: Scores = evaluate(guess, source, indices=range(2))
    assert [image.name for image in scores.per_image] == ["stripes sample 0", "stripes sample 1"]


def test_options_that_make_no_sense_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["evaluate", tmp_path / "no.tflite", "--data", tmp_path]
    assert "--worst and --out go together" in refused(capsys, *command, "--worst", 3)
    assert "--worst and --out go together" in refused(capsys, *command, "--out", tmp_path / "new")
    assert "--worst must be positive. Received: 0" in refused(capsys, *command, "--worst", 0, "--out", tmp_path / "a")
    assert "exists already" in refused(capsys, *command, "--worst", 1, "--out", tmp_path)
    with pytest.raises(InputError):
        evaluate(lambda image: guess(image)[1:], Stripes([3]), indices=range(1))


def test_a_folder_that_cannot_be_made_is_refused_before_the_scores(
    tiny_files: dict, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.evaluate", lambda *_, **__: pytest.fail("scored"))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(
            [
                str(word)
                for word in (
                    "evaluate",
                    tiny_files["fp32"],
                    "--data",
                    toy_folder,
                    "--worst",
                    1,
                    "--out",
                    tmp_path / "file" / "x",
                )
            ]
        )
    assert "the folder cannot be made" in capsys.readouterr().err
