"""Scores go to the class of the same name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from convert.export import export_tflite
from segformer_tf import Labels, SegFormer, build_segformer
from segformer_tf.cli import main
from segformer_tf.edge import installed_runtimes
from segformer_tf.errors import InputError
from tests.helpers import perturb
from training.data.match_names import match_names
from training.data.open import open_source
from training.evaluate import open_predictor


def matched(ours: list[str] | None, theirs: list[str]) -> tuple[list[int] | None, str]:
    match = match_names(Labels.named(ours) if ours else None, Labels.named(theirs), count=len(ours or theirs))
    return match.order if match.order is None else match.order.tolist(), match.note


def test_the_same_names_say_nothing() -> None:
    assert matched(["sky", "road"], ["sky", "road"]) == (None, "")


def test_another_order_is_followed() -> None:
    order, note = matched(["sky", "road", "car"], ["sky", "car", "road"])
    assert order == [0, 2, 1]
    assert "road is class 1 in the model and 2 in the data" in note
    assert matched(["class 0", "class 1"], ["class 1", "class 0"])[0] == [1, 0]  # numbers are names too
    order, note = matched(["Road", " sky"], ["sky", "road"])
    assert order == [1, 0]


def test_case_and_spaces_make_no_difference_and_give_a_note() -> None:
    order, note = matched(["Sky ", "traffic  light"], ["sky", "Traffic Light"])
    assert order is None
    assert "case or spaces" in note


@pytest.mark.parametrize(
    ("ours", "theirs", "whose"),
    [
        (None, ["sky", "road"], "its classes have no names"),
        (["class 0", "class 1"], ["sky", "road"], "its classes are numbered"),
        (["LABEL_0", "LABEL_1"], ["sky", "road"], "its classes are numbered"),
        (["sky", "road"], ["class 0", "class 1"], "the data's classes are numbered"),
    ],
)
def test_classes_without_names_give_a_note(ours: list[str] | None, theirs: list[str], whose: str) -> None:
    order, note = matched(ours, theirs)
    assert order is None
    assert note.startswith(whose)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (["sky", "road"], ["sky", "car"], "class 1 is 'road' in the model and 'car' in the data"),
        (["sky"], ["sky", "road"], "has 1 classes, the data 2"),
    ],
)
def test_other_names_are_refused_with_the_first_difference(ours: list[str], theirs: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        matched(ours, theirs)


@pytest.fixture(scope="module")
def turned(toy_folder: Path) -> tuple[SegFormer, SegFormer]:
    """A model of the toy classes, and the same one with its classes the other way round."""
    labels = open_source(str(toy_folder), "test").labels
    back = Labels(labels.names[::-1], labels.colors[::-1])
    plain, other = (build_segformer("tiny", num_classes=6, labels=each) for each in (labels, back))
    other.set_weights(perturb(plain).get_weights())
    for variable in (other.decoder.linear_pred.kernel, other.decoder.linear_pred.bias):
        variable.assign(np.asarray(variable.value)[..., ::-1])
    return plain, other


@pytest.mark.parametrize("suffix", [".keras", ".tflite"])
def test_a_model_in_another_order_scores_as_in_the_data_s(
    suffix: str, turned: tuple[SegFormer, SegFormer], toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scores, errors = [], []
    for name, model in zip(("plain", "turned"), turned, strict=True):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".keras":
            model.save(path)
        else:
            export_tflite(model, path, recipe="fp32", size=(128, 128), images=[], runtimes=installed_runtimes()[:1])
        main(["evaluate", str(path), "--data", str(toy_folder), "--json"])
        out = capsys.readouterr()
        scores.append(json.loads(out.out)["per_class"])
        errors.append(out.err)
    assert scores[0] == scores[1]
    assert max(scores[0].values()) > 0
    assert "another order" not in errors[0]
    (line,) = [line for line in errors[1].splitlines() if "another order" in line]
    assert line.startswith(f"{tmp_path / 'turned'}{suffix}: its classes come in another order")


def test_logits_that_are_no_numbers_are_refused(tiny: SegFormer, toy_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(toy_folder), "test")
    tiny.save(tmp_path / "tiny.keras")
    with open_predictor(tmp_path / "tiny.keras", runtime=None, labels=source.labels) as predict:
        image = source[0][0]
        predict(image)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(SegFormer, "logits", lambda self, pixels: np.full((1, 32, 32, 6), np.nan, np.float32))
            with pytest.raises(InputError, match=r"tiny\.keras gives logits that are no finite numbers"):
                predict(image)
