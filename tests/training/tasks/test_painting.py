"""`pretrain --masked`: which pixels are hidden, what counts, and the run from end to end."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from segformer_tf import MixTransformerReconstructor, build_reconstructor, load_segformer
from segformer_tf.cli import main
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.errors import InputError
from segformer_tf.keras_file import load_encoder
from tests.helpers import noise
from tests.training.small import SMALL, shrink_networks
from training.config import PretrainConfig
from training.data import class_augment as aug
from training.data.hidden_blocks import hidden_blocks, hide_blocks
from training.data.unlabeled import open_images
from training.distributed.strategy import make_strategy
from training.optim.losses import Explained, HiddenPixelLoss
from training.runs.folder import Run
from training.tasks.painting import Painting
from training.train import resume, train

MASKED = PretrainConfig(
    masked=True,
    variant="tiny",
    steps=4,
    epoch_steps=2,
    warmup_steps=1,
    batch_size=2,
    crop=(64, 97),
    learning_rate=1e-3,
    drop_path=0.3,
    mask_ratio=0.5,
    deterministic=True,
)


@pytest.mark.parametrize(("size", "block", "ratio"), [((97, 130), 32, 0.6), ((64, 64), 32, 0.6), ((50, 71), 7, 0.25)])
def test_whole_blocks_of_the_grid_are_hidden_in_their_share(size: tuple[int, int], block: int, ratio: float) -> None:
    (height, width), seen = size, set()
    rows, columns = -(-height // block), -(-width // block)
    for seed in range(5):
        hidden = np.asarray(hidden_blocks(size, tf.constant([3, seed]), ratio=ratio, block=block))
        cells = hidden[::block, ::block]
        assert cells.shape == (rows, columns)
        assert cells.sum() == round(ratio * rows * columns)
        y, x = np.mgrid[:height, :width] // block
        np.testing.assert_array_equal(hidden, cells[y, x])
        seen.add(hidden.tobytes())
    again = hidden_blocks(size, tf.constant([3, 4]), ratio=ratio, block=block)
    np.testing.assert_array_equal(again, hidden)
    assert len(seen) > 1


def test_something_is_hidden_and_something_is_not() -> None:
    for ratio, count in ((0.01, 1), (0.99, 5)):
        assert np.asarray(hidden_blocks((32, 96), tf.constant([0, 0]), ratio=ratio, block=19)).any()
        assert np.asarray(hidden_blocks((2, 3), tf.constant([0, 0]), ratio=ratio, block=1)).sum() == count


def test_the_target_is_the_image_and_where_it_is_hidden() -> None:
    image = tf.constant(noise(40, 70, 3))
    seen, target = (np.asarray(each) for each in hide_blocks(image, tf.constant([1, 2]), ratio=0.6, block=32))
    hidden = np.asarray(hidden_blocks((40, 70), tf.constant([1, 2]), ratio=0.6, block=32))
    np.testing.assert_array_equal(target[..., :3], image)
    np.testing.assert_array_equal(target[..., 3], hidden)
    assert not seen[hidden].any()
    np.testing.assert_array_equal(seen[~hidden], np.asarray(image)[~hidden])


def test_only_hidden_pixels_count() -> None:
    target, painted = noise(3, 9, 11, 4), noise(3, 9, 11, 3)
    hidden = target[..., 3] > 0.5
    hidden[2] = False  # a sample that fills up a batch
    target[..., 3] = hidden
    error = abs(target[..., :3] - painted)[hidden]
    metric = Explained()
    for part in (slice(0, 1), slice(1, 3)):  # of unlike numbers of hidden pixels
        metric.update_state(target[part], painted[part])
    changed = np.where(hidden[..., None], painted, 100)
    assert float(HiddenPixelLoss()(target, painted)) == pytest.approx(error.mean(), rel=1e-5)
    assert float(HiddenPixelLoss()(target, changed)) == pytest.approx(error.mean(), rel=1e-5)
    explained = 1 - error.sum() / abs(target[..., :3][hidden]).sum()
    assert float(metric.result()) == pytest.approx(explained, rel=1e-4, abs=1e-5)
    metric.reset_state()
    metric.update_state(target, target[..., :3])
    assert float(metric.result()) == 1


def test_a_cell_of_c4_paints_its_own_pixels() -> None:
    model = build_reconstructor("tiny")
    image = noise(2, 45, 77, 3)
    c4, painted = np.asarray(model.encoder(image)["c4"]), np.asarray(model(image))
    assert painted.shape == image.shape
    linear = model.head.linear
    for row, column in np.ndindex(c4.shape[1:3]):
        pixels = (c4[:, row, column] @ np.asarray(linear.kernel) + np.asarray(linear.bias)).reshape(-1, 32, 32, 3)
        own = painted[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        np.testing.assert_allclose(own, pixels[:, : own.shape[1], : own.shape[2]], atol=1e-5)
    assert sum(np.size(v) for v in model.trainable_variables) == model.config.reconstructor_parameter_count


def test_views_have_the_colors_and_the_windows_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    flat = np.full_like(image, (10, 200, 90))
    view = np.asarray(aug.true_color_view(flat, tf.constant([1, 5]), size=(32, 33))) * IMAGE_STD + IMAGE_MEAN
    np.testing.assert_allclose(view, np.broadcast_to(flat[0, 0], (32, 33, 3)), atol=1e-3)
    one, other = (aug.true_color_view(image, tf.constant([1, i]), size=(32, 33)) for i in (5, 6))
    assert not np.allclose(one, other)


@pytest.mark.usefixtures("shrunk")
def test_two_replicas_make_the_step_of_one() -> None:
    """With unlike numbers of hidden pixels in the halves of a batch."""
    images, targets = noise(4, 32, 45, 3), noise(4, 32, 45, 4)
    targets[..., 3] = np.arange(4)[:, None, None] * 10 > np.arange(45)
    ends = []
    for strategy in (tf.distribute.get_strategy(), make_strategy(2)):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = build_reconstructor("tiny")
            loss, alone = HiddenPixelLoss(), strategy.num_replicas_in_sync == 1
            sgd = keras.optimizers.SGD(0.1)
            model.compile(sgd, loss=loss, metrics=[Explained()], jit_compile=False, run_eagerly=alone)
        data = tf.data.Dataset.from_tensors((images, targets)).unbatch().batch(4)
        logs = model.fit(data, verbose=0, shuffle=False).history
        ends.append((logs["loss"], logs["explained"], model.get_weights()))
    for one, two in zip(*ends, strict=True):
        for ours, theirs in zip(one, two, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def run(toy_folder: Path, train_quickly: Callable, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        shrink_networks(patch.setattr)
        return train_quickly(replace(MASKED, data=str(toy_folder), out=tmp_path_factory.mktemp("runs") / "pre"))


def history(run: Run) -> list[dict[str, str]]:
    with run.history.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("shrunk")
def test_the_run_folder_is_as_any(run: Run) -> None:
    assert {p.name for p in run.root.iterdir()} == {
        *("config.json", "environment.json", "history.csv", "curves.png", "panel.png"),
        *("weights", "backup", "tensorboard"),
    }
    assert json.loads((run.root / "config.json").read_text())["task"] == "masked"
    assert PretrainConfig.read(run.root).masked
    assert "val_explained" in history(run)[-1]
    model, image = load_encoder(run.root), noise(1, 33, 70, 3)
    assert isinstance(model, MixTransformerReconstructor)
    np.testing.assert_array_equal(keras.models.load_model(run.best)(image), model(image))
    with pytest.raises(InputError, match="holds a MixTransformerReconstructor; expected a SegFormer"):
        load_segformer(run.best)


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_that_goes_on_ends_as_one_left_alone(run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(run.root, tmp_path / "other"))
    (other.backup / "worker0-epoch2.npz").unlink()
    resume(other.root, PretrainConfig)
    with np.load(run.backup / "worker0-epoch2.npz") as one, np.load(other.backup / "worker0-epoch2.npz") as two:
        for name in set(one.files) - {"progress"}:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    for ours, theirs in zip(history(other), history(run), strict=True):
        for name in ("loss", "explained", "val_loss", "val_explained"):
            assert ours[name] == theirs[name]


@pytest.mark.usefixtures("quick", "shrunk")
def test_the_segmenter_starts_from_the_encoder(
    run: Run, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = replace(SMALL, data=str(toy_folder), weights=str(run.root), steps=1, epoch_steps=1, warmup_steps=0)
    started = train(replace(config, learning_rate=1e-12, weight_decay=0.0, out=tmp_path / "run"))
    assert "starting from the encoder of a network that painted masked images" in capsys.readouterr().out
    pretrained = load_encoder(run.best).encoder.weights
    for ours, theirs in zip(load_segformer(started.last).encoder.weights, pretrained, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.usefixtures("shrunk")
def test_the_panel_shows_image_mask_and_what_was_painted(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list = []
    monkeypatch.setattr("training.tasks.painting.plot_panel", lambda rows, out, titles: drawn.extend(rows))
    task = Painting(replace(MASKED, data=str(toy_folder), crop=(64, 64)))
    task.open(None)
    task.draw(build_reconstructor("tiny"), Path("panel.png"))
    assert len(drawn) == 3
    for (image, masked, painted), target in zip(drawn, task._shown[1], strict=True):
        hidden = target[..., 3] > 0
        assert hidden.mean() == 0.5
        assert (masked[hidden] == np.rint(IMAGE_MEAN)).all()
        np.testing.assert_array_equal(image[~hidden], masked[~hidden])
        np.testing.assert_array_equal(image[~hidden], painted[~hidden])
        assert (painted[hidden] != masked[hidden]).any()


def test_the_last_validation_batch_is_filled_with_what_does_not_count(toy_folder: Path) -> None:
    task = Painting(replace(MASKED, data=str(toy_folder)))
    task.open(None)
    batches = [np.asarray(target) for _, target in task.eval_batches(tf.distribute.InputContext())]
    assert [batch.shape for batch in batches] == [(2, 64, 97, 4)] * 2
    assert [[bool(image[..., 3].any()) for image in batch] for batch in batches] == [[True, True], [True, False]]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(path)


def names(source) -> list[str]:
    return [path.name for path in source.images]


def test_images_of_any_folder(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    for i in range(41):
        picture(deep / f"{i % 3}" / "more" / f"{i:02}.PNG")
    for odd in (".hidden/a.png", "x/.b.png", "x/Mask/00.png"):
        picture(deep / odd)
    (deep / "notes.txt").touch()
    (deep / "loop").symlink_to(deep)
    train, validation = open_images([str(deep)], train_split="train", val_split="val")
    assert (len(train), len(validation)) == (39, 2)
    assert sorted(names(train) + names(validation)) == [f"{i:02}.PNG" for i in range(41)]
    assert train.notes == [
        f"{deep}: 39 images to learn from, 2 images held out to validate on; left out, as masks: x/Mask"
    ]
    assert train[0].shape == (40, 40, 3)
    split = tmp_path / "split"
    for name in ("train/cat/1.png", "train/dog/2.png", "valid/cat/3.png", "test/cat/4.png"):
        picture(split / name)
    train, validation = open_images([str(split)], train_split="train", val_split="val")
    assert (names(train), names(validation)) == (["1.png", "2.png"], ["3.png"])
    train, validation = open_images([str(split), str(deep), str(split)], train_split="train", val_split="val")
    assert (len(train), len(validation), train.name) == (41, 3, "split")


def test_images_of_data_folders_are_those_of_their_splits(toy_folder: Path, tmp_path: Path) -> None:
    train, validation = open_images([str(toy_folder)], train_split="train", val_split="val")
    assert (len(train), len(validation), train.license) == (6, 3, "")
    free = Path(shutil.copytree(toy_folder, tmp_path / "free"))
    shutil.rmtree(free / "val")
    manifest = json.loads((free / "dataset.json").read_text())
    (free / "dataset.json").write_text(json.dumps({**manifest, "name": "free", "license": "CC0", "bits": 12}))
    train, validation = open_images([str(free), str(toy_folder)], train_split="train", val_split="val")
    assert (len(train), len(validation), train.bits) == (5 + 6, 1 + 3, 12)
    assert train.license == "trained on free: CC0; trained on toy: terms not stated"
    (toy := Path(shutil.copytree(toy_folder, tmp_path / "toy")) / "dataset.json").write_text(
        json.dumps({**manifest, "bits": 10})
    )
    with pytest.raises(InputError, match="manifests say 10 and 12 bits; expected one number"):
        open_images([str(free), str(toy.parent)], train_split="train", val_split="val")


def test_a_folder_of_data_folders_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    """Their terms would be lost, and their test splits learned from."""
    data = shutil.copytree(toy_folder, tmp_path / "all" / "toy")
    for sign in ("toy in it holds dataset.json", "toy/test in it holds images/ and masks/"):
        with pytest.raises(InputError, match=f"all: {sign}, as a data folder does"):
            open_images([str(tmp_path / "all")], train_split="train", val_split="val")
        (data / "dataset.json").unlink(missing_ok=True)


def test_what_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture(tmp_path / "one" / "a.png")
    for place, message in (("none", "none: no such folder"), ("one", "expected two images or more .* Received: 1")):
        with pytest.raises(InputError, match=message):
            open_images([str(tmp_path / place)], train_split="train", val_split="val")
    for words, message in (
        (["--mask-ratio", "0.5"], "--mask-ratio goes with --masked"),
        (["--more-data", "a", "b"], "--more-data goes with --masked"),
        (["--masked", "--mask-ratio", "1"], "--mask-ratio must be above 0 and below 1. Received: 1.0"),
        (["--masked", "--mask-size", "0"], "--mask-size must be positive. Received: 0"),
        (["--masked", "--mask-size", "224"], "--mask-size must be below the longer side of --crop, 224"),
        (["--masked", "--label-smoothing", "0"], "--label-smoothing is for classes"),
        (["--masked", "--more-data", "tfds:x"], "--more-data takes folders. Received: tfds:x"),
    ):
        with pytest.raises(SystemExit):
            main(["pretrain", "--data", "x", *words])
        assert message in capsys.readouterr().err
