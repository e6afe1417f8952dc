"""A model scored and timed at several sizes; and Table 1c's two networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.positional import NETWORKS, PlainFFN, build, positions_at
from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.config import variant_config
from segformer_tf.errors import InputError
from tests.helpers import refused
from training.analysis.resolution import cli
from training.analysis.resolution.measure import Row, read_sizes
from training.analysis.resolution.picture import charts
from training.data.open import Source, open_source
from training.evaluate import evaluate, open_predictor
from training.protocols import EvalProtocol


def test_sizes() -> None:
    assert read_sizes(["576x768", "97X161", "576x768", "161x97"]) == [(97, 161), (161, 97), (576, 768)]
    for text in ("576", "576x", "x768", "-5x60", "5.0x6", "²x64"):
        with pytest.raises(InputError, match=r"such as 288x384. Received: "):
            read_sizes([text])
    with pytest.raises(InputError, match="--sizes height must be at least 29"):
        read_sizes(["20x64"])


def test_every_size_is_scored_and_timed(
    tiny: SegFormer, tiny_files: dict[str, Path], toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny.save(tmp_path / "tiny.keras")
    models = [str(tmp_path / "tiny.keras"), str(tiny_files["int8"])]
    options = ["--data", str(toy_folder), "--images", "2", "--repeats", "3", "--threads", "1"]
    picture = tmp_path / "sizes.png"
    main(["resolution", *models, *options, "--sizes", "64x97", "33x64", "--picture", str(picture), "--json"])
    captured = capsys.readouterr()
    assert captured.out.startswith("{")
    rows = json.loads(captured.out)["rows"]
    assert [(row["height"], row["width"]) for row in rows] == [(33, 64), (64, 97), (97, 161)]
    assert "sees 97x161, no other size" in captured.err
    source = open_source(str(toy_folder), "test")
    for row in rows[:2]:
        size = row["height"], row["width"]
        with open_predictor(Path(models[0]), runtime=None, labels=source.labels, protocol=EvalProtocol(size=size)) as p:
            assert row["mean_iou"] == evaluate(p, source, indices=[0, 2]).mean_iou
    assert all(row["milliseconds"] > 0 for row in rows)
    assert rows[0]["megabytes"] <= rows[1]["megabytes"]
    assert 10 < rows[2]["megabytes"] < rows[0]["megabytes"]  # no TensorFlow in it
    with Image.open(picture) as drawn:
        assert drawn.width == 750


def test_a_model_does_not_leave_its_bits_to_the_next(
    tiny_files: dict[str, Path], toy_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    seen = []

    def score(model: Path, name: str, sizes: object, source: Source, *_: object) -> list:
        seen.append(source.bits)
        if seen[1:]:
            raise InputError("two")
        source.bits = 12
        return []

    monkeypatch.setattr(cli, "_score_model", score)
    files = (tiny_files["fp32"], tiny_files["int8"])
    assert "two" in refused(capsys, "resolution", *files, "--data", toy_folder)
    assert seen == [None, None]


def test_the_chart_has_a_line_for_each_model() -> None:
    rows = [Row("a", 100, 200, 0.5, 10, 300), Row("a", 200, 400, 0.6, 40, 400), Row("b", 200, 400, 0.7, 30, 100)]
    axes = charts(rows).axes
    assert [line.get_xydata().tolist() for line in axes[1].lines] == [[[0.02, 10], [0.08, 40]], [[0.08, 30]]]


def test_bad_options_are_one_line(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def line(*arguments: object) -> str:
        return refused(capsys, "resolution", *arguments, "--data", toy_folder)

    assert "no model given" in line()
    assert "expected --sizes for a.keras, such as" in line("a.keras")
    assert "--repeats must be positive" in line("a.keras", "--repeats", 0)
    assert "must end in .png" in line("a.keras", "--sizes", "33x64", "--picture", "a.jpg")
    (tmp_path / "a.png").touch()
    assert "exists already" in line("a.keras", "--sizes", "33x64", "--picture", tmp_path / "a.png")


def test_the_networks_of_table_1c_differ_in_one_block(tiny: SegFormer) -> None:
    config = variant_config("tiny", num_classes=6)
    mix, positions = (build(name, config, (96, 64)) for name in NETWORKS)
    images = np.random.default_rng(0).normal(size=(1, 65, 97, 3)).astype(np.float32)
    mix.set_weights(tiny.get_weights())
    np.testing.assert_allclose(mix(images), tiny(images), rtol=1e-5, atol=1e-5)
    assert positions(images).shape == (1, 17, 25, 6)
    ours, theirs = ({w.path for w in model.weights} for model in (mix, positions))
    assert {path.rsplit("/", 2)[-2] for path in ours - theirs} == {"dwconv"}
    assert {path.rsplit("/", 1)[-1] for path in theirs - ours} == {"position"}
    tables = [w for w in positions.weights if w.path.endswith("position")]
    assert [tuple(w.shape[1:3]) for w in tables] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    before = positions(images).numpy()
    tables[3].assign(np.random.default_rng(1).normal(size=tables[3].shape))
    assert np.abs(positions(images).numpy() - before).max() > 1e-3


def test_positions_are_interpolated() -> None:
    table = np.random.default_rng(0).normal(size=(1, 3, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(positions_at(table, (3, 5)), table)
    from tests.training.test_protocols import resize64

    expected = resize64(table[0].astype(np.float64), (7, 4))
    np.testing.assert_allclose(positions_at(table, (7, 4))[0], expected, atol=1e-5)
    assert PlainFFN(4, hidden_dim=8)(np.zeros((1, 3, 5, 4), np.float32)).shape == (1, 3, 5, 4)
