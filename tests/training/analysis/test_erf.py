"""Effective receptive fields: the gradient, its middle, the squares, the verb, and what the shipped model shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from segformer_tf import SegFormer, build_segformer
from segformer_tf.cli import main
from segformer_tf.errors import InputError
from segformer_tf.image import fit_image, images_in, load_image
from tests.helpers import noise, perturb, refused, within
from training.analysis.erf.field import (
    Field,
    FieldMean,
    center_gradients,
    centered_size,
    effective_receptive_field,
    signs,
)
from training.analysis.erf.picture import draw_fields
from training.analysis.network import open_network, stage_outputs

SHIPPED = Path(__file__).parents[3] / "models" / "camvid_b0.keras"
SEED = tf.constant([3, 0], tf.int32)


@pytest.fixture(autouse=True)
def _without_a_graph() -> Iterator[None]:
    """A graph of each network and size takes longer than its few images."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def tiny_file(tiny: SegFormer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("erf") / "tiny.keras"
    tiny.save(path)
    return path


def first_stage(model: SegFormer, pixels: object) -> dict:
    """In place of `stage_outputs`, for tests for which any outputs will do."""
    features = model.encoder.stages[0](model.get_layer("normalization")(pixels))
    return {"stage 4": features, "decoder": features[:, 1:, 1:]}


def test_gradients_are_those_of_finite_differences() -> None:
    model = perturb(build_segformer("tiny", num_classes=3, dtype="float64"))

    def outputs(x: object) -> dict:
        features = model.encoder(x)
        return {**features, "decoder": model.decoder.hidden(features)}

    image, step = noise(1, 37, 85, 3).astype(np.float64), 1e-3  # grids of even and of odd sides
    gradients = center_gradients(outputs, tf.constant(image), SEED)
    places = [tuple(place) for place in np.random.default_rng(1).integers(0, (37, 85, 3), (8, 3))]
    places += [(18, 42, 1), (17, 44, 2)]
    moved = np.repeat(image, 2 * len(places), axis=0)
    for i, place in enumerate(places):
        moved[2 * i][place] += step
        moved[2 * i + 1][place] -= step
    for name, output in outputs(tf.constant(moved)).items():
        output = np.asarray(output, np.float64)
        height, width = output.shape[1:3]
        rows, columns = sorted({(height - 1) // 2, height // 2}), sorted({(width - 1) // 2, width // 2})
        middle = output[:, rows][:, :, columns]
        sums = (middle * signs(SEED, middle.shape[1:], tf.float64).numpy()).sum((1, 2, 3))
        differences = (sums[::2] - sums[1::2]) / (2 * step)
        ours = [gradients[name].numpy()[place] for place in places]
        # the decoder resizes in float32
        np.testing.assert_allclose(
            ours, differences, rtol=1e-5, atol=(1e-2 if name == "decoder" else 1e-6) * max(np.abs(differences))
        )
        assert max(np.abs(differences)) > 0


@pytest.mark.parametrize(("size", "side"), [((32, 24), 8), ((36, 20), 4), ((36, 24), 8)])
def test_an_even_grid_is_measured_on_both_sides_of_its_middle(size: tuple[int, int], side: int) -> None:
    fields = effective_receptive_field(lambda x: {"pool": tf.nn.avg_pool2d(x, 4, 4, "VALID")}, [noise(*size, 3)] * 2)
    density = fields["pool"].density
    rows, columns = ((n // 4 % 2 == 0) * 4 + 4 for n in size)
    assert np.allclose(density[density > 0], 1 / (rows * columns))
    assert np.array_equal(density, density[::-1, ::-1])
    assert fields["pool"].side(1.0) == side


def test_at_64n_plus_1_each_middle_cell_lies_over_the_middle_pixel() -> None:
    model = build_segformer("tiny", num_classes=3)
    for variable in model.encoder.weights:  # what is left are the convolutions of the patches, which look at squares
        if "/attn/proj/" in variable.path or "/mlp/fc2/" in variable.path:
            variable.assign(np.zeros(variable.shape))

    def outputs(x: object) -> dict:
        features = model.encoder(x)
        return {**features, "decoder": model.decoder.hidden(features)}

    fields = effective_receptive_field(outputs, [noise(129, 193, 3)])
    for name, reach in {"c1": 3, "c2": 7, "c3": 15, "c4": 31, "decoder": 31}.items():
        rows, columns = np.nonzero(fields[name].density > 1e-6 * fields[name].density.max())
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (
            64 - reach,
            64 + reach,
            96 - reach,
            96 + reach,
        )
    rows, _ = np.nonzero(effective_receptive_field(outputs, [noise(128, 64, 3)])["c4"].density)
    assert (rows.min(), rows.max()) == (32 - 31, 64 + 31)  # from two cells, in the mean half a stride above the middle
    assert centered_size((576, 768)) == (577, 769)
    assert centered_size((512, 513)) == (513, 513)
    assert centered_size((30, 66)) == (65, 129)


def test_a_plain_sum_of_channels_would_show_nothing_of_fresh_weights() -> None:
    encoder, image = build_segformer("tiny", num_classes=3).encoder, tf.constant(noise(1, 65, 65, 3))
    with tf.GradientTape() as tape:
        tape.watch(image)
        total = tf.reduce_sum(encoder(image)["c4"][0, 1, 1])
    signed = center_gradients(encoder, image, SEED)["c4"]
    assert np.abs(tape.gradient(total, image)).max() < 1e-4 * np.abs(signed).max()


def test_squares_and_shares_of_known_densities() -> None:
    even = Field(np.full((9, 15), 1 / 135))
    assert even.share(3) == pytest.approx(9 / 135)
    assert even.share(4) == even.share(3)  # only whole pixels
    assert even.share(15) == pytest.approx(1)
    assert even.side(0.5) == 9  # 81 of 135; 7 holds 49
    assert even.side(1.0) == 15
    point = np.zeros((8, 12))
    point[3, 6] = 1
    assert Field(point).side(0.5) == 2
    point[3, 6], point[0, 6] = 0.6, 0.4
    assert (Field(point).side(0.6), Field(point).side(0.61)) == (2, 8)


def test_each_image_counts_the_same() -> None:
    def outputs(x: tf.Tensor) -> dict:  # the middle pixel decides: to the upper left strongly, or to the lower right
        strong = tf.stop_gradient(x[:, 1:2, 1:2])
        return {"one": 1000.0 * strong * x[:, :1, :1] + (1.0 - strong) * x[:, 2:, 2:]}

    density = effective_receptive_field(outputs, [np.ones((3, 3, 3)), np.zeros((3, 3, 3))])["one"].density
    np.testing.assert_allclose(density, np.diag([0.5, 0, 0.5]))


def test_what_cannot_be_measured_is_said() -> None:
    def constant(x: tf.Tensor) -> dict:
        return {"stage": tf.ones((1, 3, 3, 2))}

    with pytest.raises(InputError, match="at least one image"):
        effective_receptive_field(constant, [])
    with pytest.raises(InputError, match="gradient of stage is zero everywhere for image 0"):
        effective_receptive_field(constant, [noise(8, 8, 3)])
    with pytest.raises(InputError, match="gradient of stage is not of finite numbers"):
        effective_receptive_field(lambda x: {"stage": tf.sqrt(x * 0)}, [noise(8, 8, 3)])
    with pytest.raises(InputError, match=r"one size. Received: \(8, 8\) and \(8, 9\)"):
        effective_receptive_field(lambda x: {"stage": x}, [noise(8, 8, 3), noise(8, 9, 3)])


def test_stage_outputs_are_what_the_classifier_is_given(tiny_file: Path, tiny: SegFormer) -> None:
    model, pixels = open_network(tiny_file), np.random.default_rng(0).integers(0, 256, (1, 61, 97, 3), np.uint8)
    outputs = stage_outputs(model, pixels.astype(np.float32))
    assert list(outputs) == ["stage 1", "stage 2", "stage 3", "stage 4", "decoder"]
    assert outputs["stage 4"].shape[1:3] == (2, 4)
    assert within(np.asarray(model.decoder.linear_pred(outputs["decoder"])), tiny.logits(pixels))


def test_the_shipped_model_looks_farther_from_stage_to_stage_and_its_decoder_near_again(camvid: Path) -> None:
    model = open_network(SHIPPED)
    few = images_in(camvid / "test" / "images")[::58][:4]  # the brightest pixel of a single image's field is chance
    images = [fit_image(load_image(path), (193, 257)).astype(np.float32) for path in few]
    fields = effective_receptive_field(partial(stage_outputs, model), images)
    sides = [fields[f"stage {i}"].side(0.5) for i in (1, 2, 3, 4)]
    assert sides == sorted(set(sides))
    assert fields["decoder"].density.max() > 2 * fields["stage 4"].density.max()
    assert fields["decoder"].share(16) > 2 * fields["stage 4"].share(16)


@pytest.mark.usefixtures("no_plots")
def test_the_verb(
    tiny_file: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.analysis.network.stage_outputs", first_stage)
    out = tmp_path / "field.png"
    command = ["erf", tiny_file, "--data", toy_folder, "--images", 2, "--size", 65, 97, "--out", out]
    main([*map(str, command), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["images"], printed["size"], list(printed["fields"])) == (2, [65, 97], ["trained", "fresh"])
    assert out.exists()
    model, files = open_network(tiny_file), images_in(toy_folder / "test" / "images")
    images = [fit_image(load_image(files[i]), (65, 97)).astype(np.float32) for i in (0, 2)]
    for name, field in effective_receptive_field(partial(first_stage, model), images).items():
        assert printed["fields"]["trained"][name] == {
            "side_50": field.side(0.5),
            "side_90": field.side(0.9),
            "share_of_middle": pytest.approx(field.share(32)),
        }
    assert "exists already" in refused(capsys, *command)


@pytest.mark.usefixtures("no_plots")
def test_an_interrupted_measurement_is_drawn(
    tiny_file: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = FieldMean.add

    def stopped(self: FieldMean, image: np.ndarray) -> None:
        if self.images == 1:
            raise KeyboardInterrupt
        add(self, image)

    monkeypatch.setattr(FieldMean, "add", stopped)
    monkeypatch.setattr("training.analysis.network.stage_outputs", first_stage)
    out = tmp_path / "erf.png"
    with pytest.raises(SystemExit) as stop:
        main(f"erf {tiny_file} --data {toy_folder} --size 65 65 --out {out}".split())
    assert stop.value.code == 130
    printed = capsys.readouterr()
    assert "stopped after 1 of 3 images" in printed.err
    assert "stage 4" in printed.out
    assert max(map(len, printed.out.splitlines()[1:-3])) <= 80
    assert out.exists()


def test_bad_options_are_one_line(tiny_file: Path, toy_folder: Path, capsys: pytest.CaptureFixture) -> None:
    data = ("--data", toy_folder, "--out", tiny_file.parent / "none.png")
    assert "expected the .keras file or the run folder" in refused(capsys, "erf", "int8.tflite", *data)
    assert "--size height must be at least 29" in refused(capsys, "erf", tiny_file, *data, "--size", 28, 64)
    assert "--images must be positive" in refused(capsys, "erf", tiny_file, *data, "--images", 0)
    assert "must end in .png or .webp" in refused(capsys, "erf", tiny_file, "--data", toy_folder, "--out", "x.jpg")
    assert not (tiny_file.parent / "none.png").exists()


def test_networks_side_by_side(tmp_path: Path) -> None:
    field = Field(np.full((33, 49), 1 / (33 * 49)))
    networks = {name: {"stage $1$": field, "head": field} for name in ("a", "b")}
    draw_fields(networks, tmp_path / "two.webp", zoom=("stage $1$", "head"))
    draw_fields({"alone": networks["a"]}, tmp_path / "one.png")
    with Image.open(tmp_path / "two.webp") as two, Image.open(tmp_path / "one.png") as one:
        assert (two.format, one.format) == ("WEBP", "PNG")
        assert two.width == pytest.approx(2 * one.width, rel=0.01)
