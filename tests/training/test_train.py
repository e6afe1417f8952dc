"""`train` and `evaluate` from end to end, small."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from convert.describe.run_facts import run_facts
from segformer_tf import build_classifier, build_segformer
from segformer_tf.cli import main
from segformer_tf.edge import logits_to_mask
from segformer_tf.errors import InputError
from segformer_tf.keras_file import load_segformer, run_size
from segformer_tf.metrics import confusion_matrix, mean_iou, per_class_iou
from tests.helpers import refused
from tests.training.small import SMALL
from training.config import TrainConfig, free_folder
from training.data.open import open_source
from training.distributed.strategy import make_strategy
from training.runs.folder import Run
from training.tasks.segmentation import Segmentation
from training.train import resume, train


@pytest.fixture(scope="module")
def config(toy_folder: Path) -> TrainConfig:
    return replace(SMALL, data=str(toy_folder))


def test_run_folder_holds_everything(trained: Path, toy_folder: Path) -> None:
    assert {p.name for p in trained.iterdir()} == {
        *(
            "config.json",
            "environment.json",
            "history.csv",
            "curves.png",
            "panel.png",
            "weights",
            "backup",
            "tensorboard",
        )
    }
    assert {p.name for p in (trained / "weights").iterdir()} == {"last.keras", "best.keras"}
    saved = json.loads((trained / "config.json").read_text())
    assert saved["data"] == str(toy_folder)
    assert saved["eval_size"] == [128, 128]
    assert run_size(trained) == (128, 128)
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {"loss", "mean_iou", "val_loss", "val_mean_iou"} <= set(rows[0])
    versions = json.loads((trained / "environment.json").read_text())[0]["versions"]
    assert versions["keras"] == keras.__version__


def test_weights_carry_labels_and_moved(trained: Path, toy_folder: Path) -> None:
    model = load_segformer(trained)
    assert model.config.labels == open_source(str(toy_folder), "train").labels
    assert np.abs(model.decoder.bn.moving_mean.numpy()).max() > 0


def test_info_tells_of_a_run(trained: Path, toy_folder: Path, capsys: pytest.CaptureFixture) -> None:
    main(["info", str(trained)])
    said = " ".join(capsys.readouterr().out.split())
    with (trained / "history.csv").open() as file:
        scores = [float(row["val_mean_iou"]) for row in csv.DictReader(file)]
    best = f"mean IoU {max(scores):.4f} on validation, after epoch {int(np.argmax(scores)) + 1} of 2; at last"
    assert best in said
    for fact in (f"{toy_folder}, train and val", "4 steps of 2 images, rate 0.001, seed 0", "64x64", "128x128"):
        assert fact in said


def test_a_damaged_run_is_refused_by_info_and_an_older_one_is_not(tmp_path: Path) -> None:
    assert run_facts(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"data": "d", "train_split": "a", "val_split": "b", "weights": null}')
    assert run_facts(tmp_path) == {"data": "d, a and b"}
    (tmp_path / "history.csv").write_text("epoch,loss,val_mean_iou\n0,1.0,\n")
    assert run_facts(tmp_path) == {"data": "d, a and b"}
    (tmp_path / "history.csv").write_text("epoch,loss,val_mean_iou\n0,1.0,much\n")
    with pytest.raises(InputError, match=r"history\.csv: not a run's"):
        run_facts(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"config\.json: not a run's"):
        run_facts(tmp_path)


def test_last_weights_keep_the_optimizer(trained: Path) -> None:
    model = keras.models.load_model(trained / "weights" / "last.keras")
    assert int(model.optimizer.iterations) == 4


def test_evaluate_scores_by_the_contract(
    trained: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["evaluate", str(trained), "--data", str(toy_folder), "--json"])
    scores = json.loads(capsys.readouterr().out)
    model, source = load_segformer(trained), open_source(str(toy_folder), "test")
    matrix = sum(
        confusion_matrix(mask, logits_to_mask(model.logits(image[None])[0], (128, 128)), num_classes=6)
        for image, mask in (source[i] for i in range(len(source)))
    )
    assert scores["mean_iou"] == pytest.approx(mean_iou(matrix), abs=1e-6)
    assert scores["images"] == 3
    assert list(scores["per_class"]) == list(source.labels.names)
    for i, image in enumerate(scores["per_image"]):
        pixels, mask = source[i]
        own = confusion_matrix(mask, logits_to_mask(model.logits(pixels[None])[0], (128, 128)), num_classes=6)
        assert image["image"] == source.images[i].name
        assert image["mean_iou"] == pytest.approx(mean_iou(own), abs=1e-6)
        seen = [iou for iou in per_class_iou(own).tolist() if iou == iou]
        assert list(image["per_class"].values()) == pytest.approx(seen, abs=1e-6)
    main(["evaluate", str(trained), "--data", str(toy_folder), "--worst", "2", "--out", str(tmp_path / "sheet")])
    worst = sorted(scores["per_image"], key=lambda image: image["mean_iou"])
    names = [f"{rank}_{Path(image['image']).stem}.png" for rank, image in enumerate(worst[:2], 1)]
    assert sorted(path.name for path in (tmp_path / "sheet").iterdir()) == [*names, "sheet.png"]
    assert "pixel accuracy" in capsys.readouterr().out


def test_evaluate_refuses_a_runtime_for_keras(capsys: pytest.CaptureFixture) -> None:
    line = refused(capsys, "evaluate", "runs/mine", "--data", "data", "--runtime", "litert")
    assert line == "segformer: runs/mine: runs in Keras; --runtime is for a .tflite. Received: litert"


def test_evaluate_takes_tflite_on_every_runtime(
    tiny_files: dict, toy_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    from segformer_tf.edge import installed_runtimes

    scores = []
    for runtime in installed_runtimes():
        main(["evaluate", str(tiny_files["fp32"]), "--data", str(toy_folder), "--json", "--runtime", runtime])
        scores.append(json.loads(capsys.readouterr().out)["mean_iou"])
    assert np.ptp(scores) < 1e-3


def test_a_model_of_other_classes_is_refused(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    build_segformer("tiny", num_classes=9).save(tmp_path / "nine.keras")
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "nine.keras"), "--data", str(toy_folder)])
    assert "has 9 classes, the data 6" in capsys.readouterr().err


@pytest.mark.usefixtures("quick", "light")
def test_weights_to_start_from(config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    looks = {"image_mean": (127.5, 127.5, 127.5), "image_std": (127.5, 127.5, 127.5)}
    start = build_segformer("tiny", num_classes=9, norm_epsilon=1e-5, **looks)
    start.save(tmp_path / "start.keras")
    slow = replace(config, steps=2, learning_rate=1e-30, weight_decay=0.0, weights=tmp_path / "start.keras")
    model = load_segformer(train(replace(slow, out=tmp_path / "run")).root / "weights" / "last.keras")
    assert "weights of 9 classes, the data has 6: other classes, so a fresh" in capsys.readouterr().out
    assert model.config.norm_epsilon == 1e-5
    assert model.config.image_mean == model.config.image_std == (127.5, 127.5, 127.5)
    for ours, theirs in zip(model.trainable_variables, start.trainable_variables, strict=True):
        if "linear_pred" not in ours.path:
            np.testing.assert_allclose(ours, theirs, atol=1e-20, err_msg=ours.path)
    (tmp_path / "start.keras").unlink()  # a run that goes on needs them no more
    assert resume(tmp_path / "run").root == tmp_path / "run"
    build_segformer("b0", num_classes=6).save(tmp_path / "b0.keras")
    with pytest.raises(InputError, match=r"b0\.keras: another network than --variant tiny: its embed_dims is"):
        train(replace(slow, weights=tmp_path / "b0.keras", out=tmp_path / "other"))
    with pytest.raises(InputError, match="no such model file"):
        train(replace(slow, weights=tmp_path / "none.keras", out=tmp_path / "other"))


@pytest.mark.parametrize("kind", ["segmenter", "classifier"])
def test_data_is_normalized_as_the_weights_were(kind: str, config: TrainConfig, tmp_path: Path) -> None:
    looks = {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
    start = (
        build_segformer("tiny", num_classes=9, **looks)
        if kind == "segmenter"
        else build_classifier("tiny", labels=["a", "b"], **looks)
    )
    start.save(tmp_path / "start.keras")
    task = Segmentation(replace(config, weights=tmp_path / "start.keras", eval_size=(128, 128)))
    task.open(None)
    assert task.model().config.image_std == (1.0, 1.0, 1.0)
    context = tf.distribute.InputContext()
    for batches in (task.train_batches(0, context), task.eval_batches(context)):
        images, _ = next(iter(batches))
        assert 200 < np.asarray(images).max() <= 255


def test_strategies() -> None:
    assert isinstance(make_strategy(), tf.distribute.OneDeviceStrategy)
    assert make_strategy(2).num_replicas_in_sync == 2
    with pytest.raises(InputError, match="Received: 0"):
        make_strategy(0)
    with pytest.raises(InputError, match="cannot split the CPU into 3 devices"):
        make_strategy(3)


@pytest.mark.usefixtures("quick", "shrunk")
def test_bad_images_and_masks_are_one_line(config: TrainConfig, toy_folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(toy_folder, tmp_path / "data")
    for path in (data / "train" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:2000])  # its head is whole
    with pytest.raises(InputError, match=r"^\S+images/\d\.png: not a readable image \([^\n]*\)$"):
        train(replace(config, data=str(data), out=tmp_path / "run"))
    for path in (data / "train" / "masks").iterdir():
        Image.fromarray(np.full((128, 128), 77, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"0\.png: mask value 77 is .* \(row 0, column 0, 16384 pixels\)$"):
        train(replace(config, data=str(data), out=tmp_path / "none"))
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(data / "train" / "masks" / "0.png")
    with pytest.raises(InputError, match=r"0\.png: mask is \(64, 128\), its image \(128, 128\)"):
        train(replace(config, data=str(data), out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_taken_run_folders_are_left_alone(config: TrainConfig, trained: Path) -> None:
    with pytest.raises(InputError, match="exists already; go on with --resume"):
        train(replace(config, out=trained))


@pytest.mark.slow
def test_toy_shapes_cannot_be_solved_by_a_frozen_random_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's training, but for the encoder, stays below 0.6; `make demo` itself passes 0.8."""

    def frozen(*args: object, **kwargs: object):
        model = build_segformer(*args, **kwargs)
        model.encoder.trainable = False
        return model

    monkeypatch.setattr("training.tasks.segmentation.build_segformer", frozen)
    config = TrainConfig(
        data="tfds:toy_shapes",
        crop=(128, 128),
        scale=(0.75, 1.5),
        steps=1200,
        epoch_steps=600,
        warmup_steps=50,
        learning_rate=1e-3,
        head_multiplier=1,
        drop_path=0,
        out=tmp_path / "run",
    )
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))  # read from the environment at import
    train(config)
    with (tmp_path / "run" / "history.csv").open() as file:
        assert max(float(row["val_mean_iou"]) for row in csv.DictReader(file)) < 0.6


@pytest.mark.usefixtures("quick", "shrunk")
def test_a_run_does_not_go_on_with_other_classes(toy_folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(toy_folder, tmp_path / "data"))
    run = train(replace(SMALL, data=str(data), steps=2, out=tmp_path / "run"))
    manifest = json.loads((data / "dataset.json").read_text())
    first, second = manifest["classes"][:2]
    first["name"], second["name"] = second["name"], first["name"]
    (data / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"was begun with other classes than the data has now: .* bring the manifest back"
    ):
        resume(run.root)


def test_options_are_checked_before_tensorflow_is_imported(tmp_path: Path) -> None:
    """A wrong option of a new or a resumed run is refused at once, by a process without TensorFlow."""
    Run.create(tmp_path / "run", replace(SMALL, data="data", out=tmp_path / "run"))
    new, resumed = ["--data", "data"], ["--resume", str(tmp_path / "run")]
    refusals = [
        ([*new, "--steps", "1001"], "--steps must be a multiple of --epoch-steps. Received: 1001 and 500"),
        ([*new, "--crop", "512", "20"], "--crop width must be at least 29 pixels. Received: 512x20"),
        ([*new, "--dropout", "1"], "dropout_rate must be in [0, 1). Received: dropout_rate=1.0"),
        ([*resumed, "--steps", "5"], "--steps must be a multiple of --epoch-steps. Received: 5 and 2"),
        (
            [*resumed, "--seed", "5"],
            "--epochs, --eval-size, --patience, --steps alone. Received: --seed",
        ),
    ]
    code = """
import json, sys
from segformer_tf.cli import main
for words in json.loads(sys.argv[1]):
    try: main(["train", *words])
    except SystemExit as stop: assert stop.code == 1
    assert not {"tensorflow", "keras"}.intersection(sys.modules), words
"""
    command = [sys.executable, "-c", code, json.dumps([words for words, _ in refusals])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, (_, message) in zip(done.stderr.splitlines(), refusals, strict=True):
        assert message in line


def test_a_data_sets_name_is_no_path(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in (("../../x", "tiny-x"), ("m [b]x/y", "tiny-m-b-x-y"), ("..", "tiny-data"), ("toy", "tiny-toy")):
        assert free_folder(SMALL.variant, name) == Path("runs") / folder
