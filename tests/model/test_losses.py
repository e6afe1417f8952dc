"""Every loss against a plain numpy form of its formula, value and gradient, on one device and on two."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import DiceLoss, FocalLoss, LovaszLoss, MeanIoU, OhemLoss, SegmentationLoss
from segformer_tf.errors import InputError
from segformer_tf.losses.table import LOSSES, make_loss
from tests.helpers import noise
from training.distributed.strategy import make_strategy

CLASSES = 5
LOGITS = 2 * noise(4, 6, 8, CLASSES)
MASKS = np.random.default_rng(1).choice([0, 1, 3, 4, 255], (4, 21, 30), p=[0.5, 0.2, 0.1, 0.05, 0.15]).astype(np.uint8)
MASKS[1, 3:] = 255  # replicas, and images, have unlike numbers of valid pixels
MASKS[3] = 255
WEIGHTS = [1.0, 2.0, 0.5, 4.0, 1.5]

Plain = Callable[[np.ndarray, np.ndarray], float]


def bilinear(size: int, source: int) -> np.ndarray:
    """(size, source) weights of a resize with half-pixel centers."""
    at = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
    low = np.minimum(at.astype(int), source - 2)
    weights = np.zeros((size, source))
    weights[np.arange(size), low] = 1 - (at - low)
    weights[np.arange(size), low + 1] = at - low
    return weights


def pixels(masks: np.ndarray, logits: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each image with a valid pixel, the classes (P,) and the probabilities (P, C) of its valid pixels, float64."""
    rows, columns = bilinear(masks.shape[1], logits.shape[1]), bilinear(masks.shape[2], logits.shape[2])
    up = np.einsum("yh,xw,bhwc->byxc", rows, columns, logits.astype(np.float64))
    p = np.exp(up - up.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    images = [(mask[mask != 255], each[mask != 255]) for mask, each in zip(masks, p, strict=True)]
    return [(classes, each) for classes, each in images if classes.size]


def own(classes: np.ndarray, p: np.ndarray) -> np.ndarray:
    return p[np.arange(classes.size), classes]


def pixel_mean(weights: list[float], gamma: float) -> Plain:
    def plain(masks: np.ndarray, logits: np.ndarray) -> float:
        images = pixels(masks, logits)
        p = np.concatenate([own(*image) for image in images])
        w = np.array(weights)[np.concatenate([classes for classes, _ in images])]
        return float((w * (1 - p) ** gamma * -np.log(p)).sum() / w.sum())

    return plain


def image_mean(of_image: Callable[[np.ndarray, np.ndarray], float]) -> Plain:
    return lambda masks, logits: float(np.mean([of_image(*image) for image in pixels(masks, logits)]))


def entropy(classes: np.ndarray, p: np.ndarray, weights: list[float]) -> float:
    w = np.array(weights)[classes]
    return float((w * -np.log(own(classes, p))).sum() / w.sum())


def hard_pixels(threshold: float, min_kept: float, weights: list[float]) -> Plain:
    def of_image(classes: np.ndarray, p: np.ndarray) -> float:
        correct = own(classes, p)
        count = int(np.ceil(min_kept * classes.size))
        hard = correct < threshold
        hard |= correct <= (np.sort(correct)[count - 1] if count else -1)
        return entropy(classes[hard], p[hard], weights) if hard.any() else 0.0

    return image_mean(of_image)


def over_classes(of_class: Callable[[np.ndarray, np.ndarray], float], weights: list[float], factor: float) -> Plain:
    def of_image(classes: np.ndarray, p: np.ndarray) -> float:
        present = sorted(set(classes.tolist()))
        terms = [of_class(classes == c, p[:, c]) for c in present]
        overlap = np.average(terms, weights=[weights[c] for c in present])
        return float(overlap + (factor * entropy(classes, p, weights) if factor else 0))

    return image_mean(of_image)


def dice(truth: np.ndarray, p: np.ndarray) -> float:
    return 1 - 2 * (p * truth).sum() / ((p**2).sum() + (truth**2.0).sum())


def jaccard(wrong: np.ndarray, truth: np.ndarray) -> float:
    """1 - IoU of the mask in which the pixels `wrong` are wrong and the others right."""
    predicted = truth ^ wrong
    return 1 - (predicted & truth).sum() / (predicted | truth).sum()


def lovasz(truth: np.ndarray, p: np.ndarray) -> float:
    """By the definition, equation 9: set after set."""
    errors = np.where(truth, 1 - p, p)
    wrong, total, before = np.zeros_like(truth), 0.0, 0.0
    for i in np.argsort(-errors):
        wrong[i] = True
        now = jaccard(wrong, truth)
        total += errors[i] * (now - before)
        before = now
    return total


ONES = [1.0] * CLASSES
CASES: dict[str, tuple[keras.losses.Loss, Plain]] = {
    "ce": (make_loss("ce"), pixel_mean(ONES, 0)),
    "ce weighted": (SegmentationLoss(WEIGHTS), pixel_mean(WEIGHTS, 0)),
    "focal": (make_loss("focal"), pixel_mean(ONES, 2)),
    "focal weighted": (FocalLoss(0.5, WEIGHTS), pixel_mean(WEIGHTS, 0.5)),
    "ohem": (make_loss("ohem"), hard_pixels(0.7, 0.2, ONES)),
    "ohem weighted": (OhemLoss(0.05, 0.31, WEIGHTS), hard_pixels(0.05, 0.31, WEIGHTS)),
    "ohem by threshold": (OhemLoss(0.3, 0), hard_pixels(0.3, 0, ONES)),
    "dice": (make_loss("dice"), over_classes(dice, ONES, 0)),
    "ce+dice": (make_loss("ce+dice"), over_classes(dice, ONES, 1)),
    "dice weighted": (DiceLoss(0.3, WEIGHTS), over_classes(dice, WEIGHTS, 0.3)),
    "lovasz": (make_loss("lovasz"), over_classes(lovasz, ONES, 0)),
    "ce+lovasz": (make_loss("ce+lovasz"), over_classes(lovasz, ONES, 1)),
    "lovasz weighted": (LovaszLoss(0.3, WEIGHTS), over_classes(lovasz, WEIGHTS, 0.3)),
}


@pytest.mark.parametrize(
    ("case", "replicas"), [*((case, 2) for case in CASES), *((name, 1) for name in LOSSES if "+" not in name)]
)
def test_value_and_gradient_are_those_of_the_plain_form(case: str, replicas: int) -> None:
    loss, plain = CASES[case]
    value, gradient = step(loss, MASKS, LOGITS, replicas)
    assert value == pytest.approx(plain(MASKS, LOGITS), rel=1e-5)
    direction = noise(*LOGITS.shape, seed=5).astype(np.float64)
    ends = [plain(MASKS, LOGITS + side * direction) for side in (1e-6, -1e-6)]
    assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3)
    assert np.abs(gradient[3]).max() == 0


def step(loss: keras.losses.Loss, masks: np.ndarray, logits: np.ndarray, replicas: int = 1) -> tuple[float, np.ndarray]:
    """Loss and its gradient by logits, in a graph, each replica with its part of the batch."""
    strategy = make_strategy(replicas)
    part = len(masks) // replicas

    def of(array: np.ndarray) -> object:
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group * part :][:part])
        )

    @tf.function
    def run(masks: object, logits: object) -> object:
        return strategy.run(lambda *own: value_and_gradient(loss, *own), (masks, logits))

    values, gradients = map(strategy.experimental_local_results, run(of(masks), of(logits)))
    # Each replica has its share of the loss, as Keras divides a loss by their number; optimizers sum gradients.
    return float(np.sum(values)), np.concatenate(gradients)


def value_and_gradient(loss: keras.losses.Loss, masks: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(masks, logits)
    return value, tape.gradient(value, logits)


def test_every_name_has_a_case_a_line_and_a_way_back() -> None:
    assert set(LOSSES) <= set(CASES)
    for name, choice in LOSSES.items():
        loss = make_loss(name, class_weights=WEIGHTS)
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert type(again).__name__ == choice.path[1]
        assert again.get_config() == loss.get_config()
        assert again.class_weights == WEIGHTS
        assert choice.summary


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "lovasz"])
def test_half_precision_is_computed_in_float32_and_certainty_is_finite(name: str) -> None:
    loss, half = make_loss(name), LOGITS[:1].astype(np.float16)
    sure = 1e4 * (np.arange(CLASSES) == 0) * np.ones((1, 6, 8, 1), np.float32)  # p is 0 or 1
    run = tf.function(lambda masks, logits: value_and_gradient(loss, masks, logits))
    value = loss(MASKS[:1].astype(np.int64), tf.constant(half))
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(float(loss(MASKS[:1], half.astype(np.float32))), rel=1e-6)
    for truth in (0, 1, 255):
        value, gradient = run(np.full((1, 21, 30), truth, np.int64), tf.constant(sure))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert float(value) == 0.0  # nothing is valid


def test_of_masks_lovasz_is_one_minus_iou_and_dice_one_minus_dice() -> None:
    truth, predicted = np.random.default_rng(2).integers(0, 3, (2, 1, 29, 31), np.uint8)
    logits = 200 * np.eye(3, dtype=np.float32)[predicted]
    hits = [((truth == c) & (predicted == c)).sum() for c in range(3)]
    sizes = [(truth == c).sum() + (predicted == c).sum() for c in range(3)]
    iou = [hit / (size - hit) for hit, size in zip(hits, sizes, strict=True)]
    assert float(LovaszLoss()(truth, logits)) == pytest.approx(1 - np.mean(iou), rel=1e-5)
    dices = [2 * hit / size for hit, size in zip(hits, sizes, strict=True)]
    assert float(DiceLoss()(truth, logits)) == pytest.approx(1 - np.mean(dices), rel=1e-5)


def test_bad_arguments_and_masks_are_one_line() -> None:
    for make, line in (
        (lambda: FocalLoss(-1), "gamma must be finite and not negative. Received: gamma=-1"),
        (lambda: OhemLoss(threshold=70), "threshold must be from 0 to 1. Received: threshold=70"),
        (lambda: OhemLoss(min_kept=100_000), "min_kept must be from 0 to 1. Received: min_kept=100000"),
        (lambda: DiceLoss(float("nan")), "cross_entropy must be finite"),
        (lambda: SegmentationLoss([1, -1]), "class_weights must be finite and not negative"),
        (lambda: SegmentationLoss(reduction="sum"), "reduction must be sum_over_batch_size"),
        (lambda: SegmentationLoss()(MASKS[..., None][..., [0, 0]], LOGITS), r"masks .* Received: \(4, 21, 30, 2\) and"),
        (lambda: MeanIoU(2)(MASKS, LOGITS), rf"the model has {CLASSES} classes. Received: MeanIoU\(2\)"),
        (lambda: LovaszLoss(0, [1, 2])(MASKS, LOGITS), "class_weights must be 5, one per class. Received: 2"),
        (lambda: SegmentationLoss()(MASKS, LOGITS, sample_weight=np.ones(4)), "takes no sample weights"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=line):
            make()


@pytest.mark.parametrize("name", ["ce", "ohem", "dice", "lovasz"])
def test_an_id_that_is_no_class_is_refused(name: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="a mask has an id that is no class"):
        step(make_loss(name), np.full((1, 21, 30), 7, np.uint8), LOGITS[:1])


def test_keras_reports_the_loss_of_the_batch() -> None:
    model = keras.Sequential([keras.Input((6, 8, CLASSES)), keras.layers.Conv2D(CLASSES, 1)])
    model.compile("sgd", loss=OhemLoss(), metrics=[MeanIoU(CLASSES)], jit_compile=False)
    logs = model.evaluate(LOGITS, MASKS, batch_size=4, verbose=0, return_dict=True)
    plain = CASES["ohem"][1](MASKS, np.asarray(model(LOGITS)))
    assert logs["loss"] == pytest.approx(plain, rel=1e-5)
