"""`pretrain` from end to end, small, and the segmenter that starts from it."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from segformer_tf import MixTransformerClassifier, build_classifier, load_segformer
from segformer_tf.cli import main
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.errors import InputError
from segformer_tf.keras_file import load_encoder
from tests.helpers import noise, perturb
from tests.training.small import SMALL, lighten_networks
from training import train as training
from training.config import PretrainConfig, TrainConfig
from training.data import class_augment as aug
from training.data.classes import open_classes
from training.data.pipeline import plain_input_errors
from training.data.unlabeled import open_images
from training.optim.accumulate import accumulate
from training.optim.losses import IGNORED, ClassificationLoss, TopK
from training.runs.folder import Run
from training.tasks.classification import Classification
from training.train import resume, train

COLORS = {"blue": (30, 40, 210), "green": (30, 190, 40), "red": (210, 40, 30)}

PRETRAIN = PretrainConfig(
    variant="tiny",
    steps=24,
    epoch_steps=12,
    warmup_steps=5,
    batch_size=8,
    crop=(48, 48),
    learning_rate=4e-3,
    drop_path=0.1,
    deterministic=True,
)


def shape(rng: np.random.Generator, color: tuple[int, int, int]) -> np.ndarray:
    """(72, 80, 3): a disc or a square of a colour on grey noise."""
    y, x = np.mgrid[:72, :80] - rng.integers(25, 47, 2)[:, None, None]
    inside = y**2 + x**2 < 20**2 if rng.random() < 0.5 else np.maximum(abs(y), abs(x)) < 18
    image = np.repeat(rng.integers(90, 160, (72, 80, 1)), 3, -1)
    image[inside] = np.array(color) + rng.integers(-20, 20, 3)
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 4 validation images of each colour."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(shape(rng, color)).save(root / split / name / f"{i:02}.png")
    (root / "train" / ".DS_Store").touch()
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """As under `light`; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        lighten_networks(patch.setattr)
        return train(replace(PRETRAIN, data=str(photos), out=tmp_path_factory.mktemp("runs") / "pre"))


def history(run: Run) -> list[dict[str, str]]:
    with run.history.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("light")
def test_a_run_learns_and_its_folder_is_as_any(run: Run) -> None:
    rows = history(run)
    assert float(rows[-1]["val_top_1"]) > 0.8  # chance is 1/3
    assert "val_top_5" not in rows[-1]
    assert {p.name for p in run.root.iterdir()} == {
        *("config.json", "environment.json", "history.csv", "curves.png", "panel.png"),
        *("weights", "backup", "tensorboard"),
    }
    assert json.loads((run.root / "config.json").read_text())["task"] == "classification"
    model = load_encoder(run.root)
    assert isinstance(model, MixTransformerClassifier)
    assert model.labels == tuple(COLORS)
    image = noise(1, 64, 96, 3)
    np.testing.assert_array_equal(keras.models.load_model(run.best)(image), model(image))


def test_a_class_is_one_linear_map_of_the_mean_of_c4(tmp_path: Path) -> None:
    model = perturb(build_classifier("tiny", labels=["a", "b", "c"]))
    model.save(tmp_path / "model.keras")
    image = noise(1, 64, 96, 3)
    np.testing.assert_array_equal(load_encoder(tmp_path / "model.keras")(image), model(image))
    c4 = np.asarray(model.encoder(image)["c4"])
    np.testing.assert_allclose(model(image), c4.mean((1, 2)) @ model.head.kernel + model.head.bias, atol=1e-5)
    assert sum(np.size(v) for v in model.trainable_variables) == model.config.classifier_parameter_count


@pytest.mark.usefixtures("light")
def test_a_run_that_goes_on_ends_as_one_left_alone(run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(run.root, tmp_path / "other"))
    (other.backup / "worker0-epoch2.npz").unlink()
    for path in (other.history, other.last, other.best):
        path.unlink()
    resume(other.root, PretrainConfig)
    with np.load(run.backup / "worker0-epoch2.npz") as one, np.load(other.backup / "worker0-epoch2.npz") as two:
        assert one.files == two.files
        assert any("seed_generator_state" in name for name in one.files)
        for name in set(one.files) - {"progress"}:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    for ours, theirs in zip(history(other), history(run), strict=True):
        for name in ("loss", "top_1", "val_loss", "val_top_1"):
            assert ours[name] == theirs[name]


@pytest.mark.usefixtures("quick", "light")
def test_the_segmenter_starts_from_the_encoder(
    run: Run, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before, fit = [], training._fit

    def watched(model: keras.Model, *rest: object) -> None:
        before.append((model.config, [np.array(v) for v in model.encoder.weights]))
        fit(model, *rest)

    monkeypatch.setattr(training, "_fit", watched)
    config = replace(SMALL, data=str(toy_folder), weights=run.root, steps=2, drop_path=0.3)
    segmenter = load_segformer(train(replace(config, out=tmp_path / "run")).last)
    assert "encoder of a classifier of 3 classes: a fresh decoder" in capsys.readouterr().out
    ((now, weights),) = before
    assert (now.drop_path_rate, now.num_classes, now.decoder_width) == (0.3, 6, 32)
    pretrained, trained = load_encoder(run.best).encoder.weights, segmenter.encoder.weights
    for ours, theirs in zip(weights, pretrained, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(weights[-1], trained[-1])
    with pytest.raises(InputError, match=r"pre: another network than --variant b0: .*; give --variant tiny$"):
        train(replace(config, variant="b0", out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "precision": "mixed_float16", "ema": 0.9}])
def test_two_devices(options: dict, photos: Path, tmp_path: Path) -> None:
    config = replace(PRETRAIN, data=str(photos), out=tmp_path / "run", steps=1, warmup_steps=0, deterministic=False)
    config = replace(config, devices=2, **options)
    (row,) = history(train(config))
    assert np.isfinite(float(row["val_loss"]))
    hits = 12 * float(row["val_top_1"])  # the second batch is filled up to 16
    assert hits == pytest.approx(round(hits), abs=1e-4)
    assert load_encoder(tmp_path / "run").dtype_policy.name == config.precision


def test_errors_in_the_data_are_one_line(photos: Path, tmp_path: Path) -> None:
    def read_one(root: Path) -> None:
        task = Classification(replace(PRETRAIN, data=str(root)))
        with plain_input_errors():
            task.open(None)
            next(iter(task.train_batches(0, tf.distribute.InputContext())))

    def refused(message: str, root: Path = tmp_path / "data") -> None:
        with pytest.raises(InputError, match=message) as error:
            read_one(root)
        assert len(str(error.value).splitlines()) == 1

    refused(r"none/train: no such folder; expected \S+none/train/CLASS/\*\.jpg$", tmp_path / "none")
    data = shutil.copytree(photos, tmp_path / "data")
    for path in (data / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:2000])
    refused(r"^\S+/train/(blue|green|red)/\d\d\.png: not a readable image \([^\n]*\)$")
    (data / "val" / "mauve").mkdir()
    refused(r"val/mauve: no image \(\.jpg, ")
    shutil.copy(photos / "val" / "red" / "00.png", data / "val" / "mauve")
    refused("splits train and val must have the same classes; 1 only in one, such as mauve in val$")
    for name in ("blue", "green"):
        shutil.rmtree(data / "train" / name)
    refused("expected two classes or more in split train. Received: red$")
    shutil.rmtree(data / "train" / "red")
    refused("no folder of a class in it")


def test_a_run_goes_on_by_its_own_verb_alone(
    toy_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Run.create(tmp_path / "street", replace(SMALL, data=str(toy_folder)))
    Run.create(tmp_path / "pre", replace(PRETRAIN, data=str(photos)))
    for verb, other, name in (("train", "pretrain", "pre"), ("pretrain", "train", "street")):
        with pytest.raises(SystemExit):
            main([verb, "--resume", str(tmp_path / name)])
        expected = f"a run of segformer {other}; go on with segformer {other} --resume {tmp_path / name}"
        assert capsys.readouterr().err == f"segformer: {tmp_path / name}: {expected}\n"
    root = tmp_path / "street"
    path = root / "config.json"
    saved = json.loads(path.read_text())
    assert saved.pop("task") == "segmentation"
    path.write_text(json.dumps(saved))  # as runs were before there were two tasks
    assert TrainConfig.read(root).crop == (64, 64)
    with pytest.raises(InputError, match="a run of segformer train"):
        PretrainConfig.read(root)
    for odd in ("detection", 3, ["segmentation"]):
        path.write_text(json.dumps({**saved, "task": odd}))
        with pytest.raises(InputError, match="not a run's configuration"):
            TrainConfig.read(root)
    for words, message in (
        (["--steps", "5"], "expected --data DATA"),
        (["--data", "x", "--label-smoothing", "1"], "0 to"),
    ):
        with pytest.raises(SystemExit):
            main(["pretrain", *words])
        assert message in capsys.readouterr().err


def test_classifier_files_are_checked_as_segmenters_are(tmp_path: Path) -> None:
    build_classifier("tiny", labels=["a", "b"]).save(tmp_path / "whole.keras")
    with pytest.raises(InputError, match=r"holds a MixTransformerClassifier; expected a SegFormer$"):
        load_segformer(tmp_path / "whole.keras")

    def refused(message: str, **changes: object) -> None:
        with zipfile.ZipFile(tmp_path / "whole.keras") as old, zipfile.ZipFile(tmp_path / "odd.keras", "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    saved = json.loads(content)
                    saved["class_name"] = changes.get("class_name", saved["class_name"])
                    saved["config"]["config"]["num_classes"] = changes.get("num_classes", 2)
                    saved["config"]["labels"] = changes.get("labels", ["a", "b"])
                    content = json.dumps(saved).encode()
                new.writestr(name, content)
        with pytest.raises(InputError, match=message) as error:
            load_encoder(tmp_path / "odd.keras")
        assert len(str(error.value).splitlines()) == 1

    refused("holds a Functional; expected a SegFormer or a MixTransformerClassifier", class_name="Functional")
    refused("bytes for a model of 33", num_classes=10**9)
    refused("expected 2 names. Received: 3", labels=["a", "b", "c"])
    refused("a class name is one non-empty line", labels=["a", "b\nc"])
    refused("not a readable", labels=5)


class TwoColors(tfds.core.GeneratorBasedBuilder):
    """Ten images that are of one value each."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=["dark", "light"])
        features = {"picture": tfds.features.Image(shape=(None, None, 3), encoding_format="png"), "label": label}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(10):
            yield i, {"picture": np.full((8, 9, 3), 25 * i, np.uint8), "label": int(i >= 5)}


def test_tfds_sets_with_one_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    most, rest = open_classes("tfds:two_colors", "train[:80%]", "train[80%:]")
    assert (len(most), len(rest), most.names) == (8, 2, ("dark", "light"))
    for source in (most, rest):
        for image, label in (source[i] for i in range(len(source))):
            assert image.shape == (8, 9, 3)
            assert label == int(image.max() >= 125)
    images, held = open_images(["tfds:two_colors"], train_split="train[:80%]", val_split="train[80%:]")
    assert (len(images), len(held), images.license) == (8, 2, "")
    for image, (expected, _) in ((images[i], most[i]) for i in range(8)):
        np.testing.assert_array_equal(image, expected)
    with pytest.raises(InputError, match="no split 'val'; splits: train"):
        open_classes("tfds:two_colors", "train", "val")
    with pytest.raises(
        InputError, match=r"expected one RGB image and one label\. Received: images .'image'., labels .. "
    ):
        open_classes("tfds:toy_shapes", "train")
    with pytest.raises(InputError, match="no such TFDS data set"):
        open_classes("tfds:nothing_like_it", "train")


def test_crop_windows_have_their_areas_and_ratios_and_stay_inside() -> None:
    windows = np.array([aug.crop_window((300, 400), (5, i)) for i in range(200)])
    top, left, height, width = windows.T
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 300
    assert (left + width).max() <= 400
    ratio, area = width / height, width * height / (300 * 400)
    assert 0.74 < ratio.min() < 0.78 < 1.28 < ratio.max() < 1.35
    assert 0.075 < area.min() < 0.12 < 0.85 < area.max()
    np.testing.assert_array_equal(aug.crop_window((10, 200), (5, 0)), [0, 93, 10, 13])  # none fits: the centre
    np.testing.assert_array_equal(aug.crop_window((200, 10), (5, 0)), [93, 0, 13, 10])
    np.testing.assert_array_equal(aug.crop_window((1, 1), (5, 0)), [0, 0, 1, 1])


def test_views() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    centre = np.asarray(aug.evaluation_view(image, size=(112, 112))) * IMAGE_STD + IMAGE_MEAN
    np.testing.assert_allclose(centre, image[8:120, 72:184], atol=1e-3)
    assert aug.evaluation_view(image[:40, :31], size=(64, 96)).shape == (64, 96, 3)
    data = tf.data.Dataset.range(6).map(lambda i: aug.training_view(tf.constant(image), [3, i % 3], size=(48, 64)))
    views = [np.asarray(view) for view in data]
    assert views[0].shape == (48, 64, 3)
    for i in range(3):
        np.testing.assert_array_equal(views[i], views[i + 3])
        assert not np.array_equal(views[i], views[(i + 1) % 3])
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (128, 1, 3))
    falls = [
        np.mean(np.diff(np.asarray(aug.training_view(ramp, (9, i), size=(32, 32)))[0, :, 0])) < 0 for i in range(40)
    ]
    assert 0.25 < np.mean(falls) < 0.75  # mirrored


def test_loss_and_metrics_leave_out_what_fills_a_batch() -> None:
    logits, classes = noise(5, 7), np.array([2, 0, 6, IGNORED, IGNORED])
    logits[:3] = 0
    logits[0, 2], logits[1, 0], logits[2, 6] = 3, -1, 1
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_hand = -np.mean([0.9 * log_p[i, c] + 0.1 * log_p[i].mean() for i, c in enumerate(classes[:3])])
    assert float(ClassificationLoss(0.1)(classes, logits)) == pytest.approx(by_hand, rel=1e-5)
    for k, expected in ((1, 2 / 3), (5, 2 / 3), (7, 1.0)):
        metric = TopK(k)
        metric.update_state(classes, logits)
        assert float(metric.result()) == pytest.approx(expected)
    assert TopK.from_config(TopK(5).get_config()).k == 5
    assert [m.name for m in _task(7).metrics()] == ["top_1", "top_5"]
    assert [m.name for m in _task(5).metrics()] == ["top_1"]


def _task(classes: int) -> Classification:
    task = Classification(PRETRAIN)
    task.source = type("Source", (), {"names": tuple("abcdefgh"[:classes])})()
    return task


def test_accumulation_is_the_step_of_the_whole_batch() -> None:
    images, classes = noise(4, 32, 32, 3), np.array([0, 1, IGNORED, 1])  # the parts have unlike numbers that count
    ends = []
    for parts in (1, 2):
        keras.utils.set_random_seed(0)
        model = build_classifier("tiny", labels=["a", "b"], drop_path_rate=0.0)
        model.compile(keras.optimizers.SGD(0.1), loss=ClassificationLoss(0.1), metrics=[TopK(1)], run_eagerly=True)
        if parts > 1:
            accumulate(model, parts)
        logs = model.train_on_batch(images, classes, return_dict=True)
        ends.append((float(logs["loss"]), model.get_weights()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
