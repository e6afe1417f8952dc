"""A teacher's part in the loss: its value, on any number of devices and in parts, and in whole runs."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import SegFormer, SegFormerConfig, load_segformer
from segformer_tf.config import variant_config
from segformer_tf.errors import InputError
from segformer_tf.labels import as_labels
from segformer_tf.losses.table import make_loss
from tests.helpers import noise, perturb, refused
from tests.training.runs.test_resume import assert_same_end
from tests.training.small import EXACT
from training.data.tfds.toy import NAMES
from training.distillation.distilled import PARTS, Distilled, divergence, unexplained
from training.distillation.teacher import Teacher, TeacherFile, find_teacher
from training.distributed.strategy import make_strategy
from training.optim.accumulate import accumulate
from training.runs.folder import Run
from training.tasks.segmentation import joined_terms
from training.train import resume, train

LABELS = as_labels(NAMES)
# Odd sizes; the replicas and the parts of a step have unlike numbers of valid pixels.
IMAGES = noise(4, 45, 61, 3)
MASKS = np.random.default_rng(1).choice([0, 1, 5, 255], (4, 45, 61), p=[0.3, 0.2, 0.1, 0.4]).astype(np.uint8)
MASKS[0, 10:] = MASKS[2, :, :30] = 255  # replicas have 0 and 1, 2 and 3; parts 0 and 2, 1 and 3


def write_teacher(path: Path) -> Path:
    """Of other sizes, normalization and order of classes than the student."""
    config = SegFormerConfig(
        num_classes=6,
        embed_dims=(12, 16, 20, 40),
        depths=(1, 1, 1, 1),
        decoder_width=24,
        num_heads=(1, 2, 2, 4),
        labels=as_labels([*NAMES[1:], NAMES[0]]),
        image_mean=(100.0, 110.0, 120.0),
        image_std=(50.0, 60.0, 70.0),
        license="of the teacher",
    )
    perturb(SegFormer(config, preprocess=True), seed=5).save(path)
    return path


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.keras")


@pytest.fixture(scope="module")
def file(teacher_path: Path) -> TeacherFile:
    return find_teacher(str(teacher_path), LABELS, variant_config("tiny", num_classes=6))


def distilled(file: TeacherFile, weights: tuple[float, float] = (0.7, 1.3), temperature: float = 3.0) -> Distilled:
    config = variant_config("tiny", num_classes=6, labels=LABELS, drop_path_rate=0.0, dropout_rate=0.0)
    student = perturb(SegFormer(config))
    student.decoder.bn.trainable = False  # its statistics depend on the parts of a batch
    keras.utils.set_random_seed(1)
    return Distilled(student, Teacher(file, config, precision="float32"), temperature=temperature, weights=weights)


def test_logits_lack_what_plain_formulas_say() -> None:
    teacher, student = 3 * noise(5, 7, 6).astype(np.float64), noise(5, 7, 6, seed=1).astype(np.float64)

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = softmax(teacher / 2.5), softmax(student / 2.5)
    expected = 2.5**2 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(divergence(teacher, student, 2.5), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(divergence(teacher, teacher + 7.0, 2.5), 0.0, atol=1e-5)


def test_features_lack_a_share_of_the_teachers_variance() -> None:
    truth = 40 * noise(3, 4, 5, 16) + 100
    standard = (truth - truth.mean(-1, keepdims=True)) / truth.std(-1, keepdims=True)
    np.testing.assert_allclose(unexplained(np.zeros_like(truth), truth), 1.0, rtol=1e-4)
    np.testing.assert_allclose(unexplained(0.5 * standard, truth), 0.25, rtol=1e-4)
    np.testing.assert_allclose(unexplained(standard, truth), 0.0, atol=1e-6)


def test_the_teacher_sees_the_same_picture_and_says_the_same_classes(file: TeacherFile) -> None:
    model = distilled(file)
    pixels = IMAGES * model.student.config.image_std + model.student.config.image_mean
    own = load_segformer(file.path)(pixels.astype(np.float32), training=False)  # it normalizes inside
    seen = model.teacher(IMAGES, stages=True)
    np.testing.assert_allclose(seen.logits.numpy()[..., file.order], own, rtol=1e-3, atol=1e-4)
    assert LABELS.names[file.order[0]] == file.config.labels.names[0] == NAMES[1]
    np.testing.assert_array_equal(model.teacher(IMAGES, stages=False).logits, seen.logits)
    assert not {v.path for v in model.variables} & {v.path for v in model.teacher.model.variables} - {
        v.path for v in model.student.variables
    }
    assert model.count_params() == model.student.count_params() + model.projections.count_params()


def test_the_loss_is_the_sum_of_its_parts_and_ignored_cells_do_not_count(file: TeacherFile) -> None:
    model = distilled(file)
    model.compile("sgd", make_loss("ce"))
    outputs = model(IMAGES, training=True)
    np.testing.assert_allclose(outputs["logits"], model.student(IMAGES, training=True), atol=1e-5)
    loss = float(model.compute_loss(IMAGES, MASKS, outputs))
    parts = {name: float(model.part_means[name].result()) for name in PARTS}
    assert loss == pytest.approx(parts["mask_loss"] + 0.7 * parts["logits_loss"] + 1.3 * parts["features_loss"])
    assert parts["mask_loss"] == pytest.approx(float(make_loss("ce")(MASKS, outputs["logits"])))
    cells = np.asarray(divergence(model.teacher(IMAGES, stages=True).logits, outputs["logits"], 3.0))
    share = np.zeros_like(cells)
    for y, x in np.ndindex(cells.shape[1:]):  # of 3 pixels too many, one lies before: the first cell has 3 rows
        rows, columns = (slice(max(4 * i - 1, 0), 4 * i + 3) for i in (y, x))
        share[:, y, x] = (MASKS[:, rows, columns] != 255).mean((1, 2))
    assert parts["logits_loss"] == pytest.approx((cells * share).sum() / share.sum(), rel=1e-4)
    changed = {**outputs, "logits": tf.where(share[..., None] == 0, 9.0 * np.eye(6)[0], outputs["logits"])}
    model.reset_metrics()
    model.compute_loss(IMAGES, MASKS, changed)
    assert float(model.part_means["logits_loss"].result()) == pytest.approx(parts["logits_loss"], rel=1e-6)
    nothing = model.compute_loss(IMAGES, np.full_like(MASKS, 255), outputs)
    assert float(nothing) == pytest.approx(1.3 * parts["features_loss"], rel=1e-5)


def one_step(file: TeacherFile, devices: int, parts: int) -> tuple[dict[str, float], list[np.ndarray]]:
    """The logs of a step with plain gradient descent, and the gradient of every trained variable."""
    with make_strategy(devices).scope():
        model = distilled(file)
        model.compile(keras.optimizers.SGD(1.0), make_loss("ce+dice", class_weights=[1, 2, 3, 1, 2, 3]), metrics=[])
        model.optimizer.build(model.trainable_variables)
        if parts > 1:
            accumulate(model, parts)
    before = [v.numpy() for v in model.trainable_variables]
    data = tf.data.Dataset.from_tensors((IMAGES, MASKS)).unbatch().batch(4)
    logs = model.fit(data, verbose=0, shuffle=False).history
    gradients = [b - v.numpy() for b, v in zip(before, model.trainable_variables, strict=True)]
    return {name: values[0] for name, values in logs.items()}, gradients


@pytest.mark.usefixtures("quick", "light")
def test_devices_and_parts_of_a_batch_have_one_loss_and_one_gradient(tmp_path: Path) -> None:
    path = write_teacher(tmp_path / "teacher.keras")
    file = find_teacher(str(path), LABELS, variant_config("tiny", num_classes=6))
    logs, gradients = one_step(file, 1, 1)
    assert set(logs) == {"loss", *PARTS}
    assert all(np.abs(gradient).max() > 1e-7 for gradient in gradients)  # of everything, projections too
    others, theirs = one_step(file, 2, 2)
    for name, value in logs.items():
        assert others[name] == pytest.approx(value, rel=1e-4), name
    for ours, other in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(other, ours, rtol=2e-3, atol=2e-4 * np.abs(ours).max() + 1e-7)


def contents(path: Path) -> tuple[dict, list[tuple[str, tuple[int, ...]]]]:
    """What export reads of a ``.keras`` file: the network's description, and its weights by name and shape."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights.visititems(lambda name, value: shapes.append((name, value.shape)) if hasattr(value, "shape") else None)
        return json.loads(archive.read("config.json"))["config"], shapes


@pytest.mark.usefixtures("quick", "light")
def test_a_run_with_a_teacher_is_killed_goes_on_and_saves_the_student_alone(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    teacher = write_teacher(tmp_path / "teacher.keras")
    config = replace(EXACT, data=str(toy_folder), crop=(48, 48), eval_size=(48, 48), steps=2, epoch_steps=1)
    config = replace(config, teacher=str(teacher), balance=0.5, class_weights=0.5, clip_norm=1.0)
    alone = train(replace(config, out=tmp_path / "alone"))
    printed = capsys.readouterr().out
    assert f"teacher: {teacher}, " in printed
    assert "teacher: its classes come in another order than the data's and are matched by name" in printed
    assert "the teacher's license, which what it teaches inherits: of the teacher" in printed
    with alone.history.open() as rows:
        columns = set(next(csv.DictReader(rows)))
    assert set(PARTS) < columns
    assert not {f"val_{name}" for name in PARTS} & columns

    with np.load(alone.backup / "worker0-epoch2.npz") as kept:
        # The projection to the teacher's c1, its two moments and its moving average.
        assert [kept[name].shape for name in kept.files].count((64, 12)) == 4
    student = load_segformer(alone.best)
    assert student.config.license == "of the teacher"
    SegFormer(student.config).save(tmp_path / "plain.keras")
    assert contents(alone.best) == contents(tmp_path / "plain.keras")

    killed = Run(shutil.copytree(alone.root, tmp_path / "killed"))
    for path in (*killed.backup.glob("worker0-epoch2.*"), killed.history):
        path.unlink()
    resume(killed.root)
    assert_same_end(alone.root, killed.root, epochs=2)

    assert json.loads((alone.root / "teacher.json").read_text())["file"] == str(teacher)
    assert json.loads((alone.root / "config.json").read_text())["teacher"] == str(teacher)
    shutil.copy(alone.best, teacher)
    with pytest.raises(InputError, match=r"teacher\.keras: not the teacher that .*killed began with: sha256 "):
        resume(killed.root)
    (killed.root / "teacher.json").unlink()
    with pytest.raises(InputError, match=r"teacher\.json: not the record of a teacher"):
        resume(killed.root)


def test_no_terms_are_lost_and_none_come_twice() -> None:
    start, teacher, own = "trained on a: X; Y", "trained on b: Z; Y", "trained on b: Z; Y"
    assert joined_terms([start, teacher, own]) == "trained on a: X; Y; trained on b: Z; Y"
    assert joined_terms([joined_terms([start, own]), own]) == "trained on a: X; Y; trained on b: Z; Y"
    assert joined_terms(["CC", "trained on c: CC-BY", ""]) == "CC; trained on c: CC-BY"


def test_a_teacher_that_does_not_fit_is_refused_in_one_line(
    teacher_path: Path, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    student = variant_config("tiny", num_classes=6)
    (tmp_path / "b1.pth").touch()
    for name, message in (
        (str(tmp_path / "b1.pth"), "`segformer import` converts a PyTorch checkpoint"),
        ("hf://nvidia/mit-b5", "no such model file .*`segformer import` makes a .keras file of a PyTorch checkpoint"),
        (str(tmp_path), "expected a run folder or a .keras file; `segformer import` makes"),
    ):
        with pytest.raises(InputError, match=f"^--teacher .*{message}"):
            find_teacher(name, LABELS, student)
    with pytest.raises(InputError, match="has other classes than the data: class 0 is "):
        find_teacher(str(teacher_path), as_labels(list("abcdef")), student)
    with pytest.raises(InputError, match="has 6 classes, the data 2"):
        find_teacher(str(teacher_path), as_labels(["a", "b"]), student)
    with pytest.raises(InputError, match="their features lie on different grids"):
        find_teacher(str(teacher_path), LABELS, replace(student, strides=(2, 2, 2, 2)))
    deep = replace(find_teacher(str(teacher_path), LABELS, student), config=replace(student, image_bits=12))
    deep.check_bits(None)
    with pytest.raises(InputError, match="learned on images of 12 bits, these are taken for 16; --bits 12"):
        deep.check_bits(16)
    for words, message in (
        (["--distill", "0", "0"], "--distill must be two weights"),
        (["--distill", "-1", "1"], "--distill must be two weights"),
        (["--weights", "w.keras", "--freeze", "encoder"], "give --distill 1 0. Received: --distill 1 1"),
        (["--temperature", "0"], "--temperature must be positive. Received: 0.0"),
    ):
        assert message in refused(capsys, "train", "--data", "data", "--teacher", "t.keras", *words)
    assert "--temperature is for a --teacher" in refused(capsys, "train", "--data", "data", "--temperature", "3")
