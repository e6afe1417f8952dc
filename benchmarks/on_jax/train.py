"""`python -m benchmarks.on_jax.train DATA.npz SPEC.json --out DIR`: one training by JAX.

DATA.npz comes from `python -m benchmarks.on_jax.pack`. SPEC.json, a file or its content, holds fields of `Recipe`.
DIR gets ``weights.npz`` (the best of the validations, or the last), ``history.csv``, ``recipe.json`` and, at its end,
``result.json``.

XLA tunes this network's kernels for many minutes, and compiles in one without: on a GPU, set XLA_FLAGS to
``--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false --xla_gpu_experimental_enable_fusion_autotuner=false``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.on_jax.augment import Augmentation, augment_batch
from benchmarks.on_jax.network import STATISTICS, decode, features, fresh, resize
from benchmarks.on_jax.pack import picture_in
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD, SegFormerConfig, variant_config
from segformer_tf.errors import InputError
from segformer_tf.files import atomic
from segformer_tf.labels import IGNORE_ID

BLOCK = 20  # steps of one call to the accelerator
HEADS = ("decoder/linear_pred/", "auxiliary/")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training; where a field has the name of an option of `segformer train`, it means the same.

    Attributes:
        seconds: ends training after so many, rather than after `steps`; the rate falls with the clock.
        log_scale, stretch, color, grayscale, mix: see `Augmentation`.
        warmup: share of the training in which the rate rises.
        auxiliary: weight of a loss on logits of c3 alone, by a head that is dropped afterwards.
        smoothing: share of the target that is spread over all classes.
        overlap: weight of a soft Dice loss.
        hard: share of the pixels, the hardest, that count; 1 for all.
        start: folder of another run, whose weights are begun with; its end is waited for.
        teachers: folders of other runs, of `teacher_variant`, waited for. The loss against the mean of their
            probabilities, at `temperature`, is times `distill`.
        splits: that are trained on.
        evaluations: validations in all.
    """

    variant: str = "b0"
    steps: int = 1000
    seconds: float | None = None
    batch_size: int = 16
    crop: tuple[int, int] = (256, 256)
    scale: tuple[float, float] = (0.5, 2.0)
    log_scale: bool = False
    stretch: float = 1.0
    color: float = 1.0
    grayscale: float = 0.0
    mix: float = 0.0
    eval_size: tuple[int, int] | None = None
    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup: float = 0.03
    drop_path: float = 0.1
    dropout: float = 0.1
    class_weights: float = 0.25
    balance: float = 0.3
    ema: float = 0.999
    smoothing: float = 0.0
    auxiliary: float = 0.0
    overlap: float = 0.0
    hard: float = 1.0
    start: str | None = None
    teachers: tuple[str, ...] = ()
    teacher_variant: str = "b0"
    temperature: float = 1.0
    distill: float = 1.0
    precision: str = "bfloat16"
    seed: int = 0
    splits: tuple[str, ...] = ("train",)
    evaluations: int = 8

    def augmentation(self, classes: int) -> Augmentation:
        names = set(Augmentation.__dataclass_fields__) - {"classes"}
        return Augmentation(classes=classes, **{name: getattr(self, name) for name in names})


def read_recipe(spec: str) -> Recipe:
    """The recipe of a JSON object, or of a file with one.

    Raises:
        InputError: no such file, no JSON object, or a field that `Recipe` does not have.
    """
    try:
        fields = json.loads(spec if spec.startswith("{") else Path(spec).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{spec}: not a recipe ({error})") from None
    if not isinstance(fields, dict):
        raise InputError(f"{spec}: not a recipe; expected a JSON object")
    known = Recipe.__dataclass_fields__
    if unknown := [name for name in fields if name not in known]:
        raise InputError(f"{spec}: a recipe has no field {unknown[0]!r}; it has {', '.join(known)}")
    if isinstance(fields.get("teachers"), str):
        raise InputError(f"{spec}: teachers is a list of folders. Received: {fields['teachers']!r}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Recipe(**values)


def read(path: Path, splits: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) and masks (N, H, W), uint8, filled up to one size, and their own sizes (N, 2)."""
    images, masks = [], []
    with np.load(path) as data:
        for split in splits:
            for i in range(int(data[f"{split}/count"])):
                images.append(picture_in(data[f"{split}/{i}/image"].tobytes()))
                masks.append(np.asarray(Image.open(io.BytesIO(data[f"{split}/{i}/mask"].tobytes()))))
    height, width = (max(mask.shape[axis] for mask in masks) for axis in (0, 1))
    every = (
        np.zeros((len(images), height, width, 3), "uint8"),
        np.full((len(images), height, width), IGNORE_ID, "uint8"),
    )
    sizes = np.array([mask.shape for mask in masks], "int32")
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        every[0][i, : mask.shape[0], : mask.shape[1]] = image
        every[1][i, : mask.shape[0], : mask.shape[1]] = mask
    return *every, sizes


def points_of(masks: np.ndarray, classes: int, count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """(N, C, count, 2) random pixels of each class in each mask, and (N, C) whether there is one."""
    random = np.random.default_rng(0)
    points = np.full((len(masks), classes, count, 2), -1, "int32")
    for i, mask in enumerate(masks):
        for c in np.unique(mask):
            if c < classes:
                rows, columns = np.nonzero(mask == c)
                chosen = random.integers(0, len(rows), count)
                points[i, c] = np.stack([rows[chosen], columns[chosen]], -1)
    return points, points[:, :, 0, 0] >= 0


def _at_its_end(run: Path) -> bool:
    """Whether a run is; raises InputError for one that failed."""
    if not (run / "result.json").is_file():
        return False
    if error := json.loads((run / "result.json").read_text("utf-8")).get("error"):
        raise InputError(f"{run}: failed: {error}")
    return True


def _weights_of(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "weights.npz") as file:
        return {name: file[name].astype("float32") for name in file.files}


def _fitting(
    before: dict[str, np.ndarray], weights: dict[str, np.ndarray], path: str, *, heads: tuple[str, ...] = HEADS
) -> dict[str, np.ndarray]:
    """Those of `before` that are in `weights` in the same shape; of `heads` alone any may be missing.

    Raises:
        InputError: weights of another network.
    """
    fits = {name: each for name, each in before.items() if name in weights and each.shape == weights[name].shape}
    if fresh := [name for name in weights if name not in fits and not name.startswith(heads)]:
        raise InputError(f"{path}: weights of another network: {fresh[0]} is not there, or of another shape")
    return fits


class Training:
    """The state of a run and its compiled steps."""

    def __init__(
        self, recipe: Recipe, config: SegFormerConfig, images: np.ndarray, masks: np.ndarray, sizes: np.ndarray
    ) -> None:
        self.recipe, self.config = recipe, config
        self.dtype = jnp.dtype(recipe.precision)
        points, shown = points_of(masks, config.num_classes)
        self.data = tuple(map(jax.device_put, (images, masks, sizes, points, shown)))
        pixels = np.bincount(masks.reshape(-1), minlength=256)[: config.num_classes].astype("float64")
        self.class_weights = jnp.array(np.log(1.02 + pixels / pixels.sum()) ** -recipe.class_weights, jnp.float32)
        self.fresh = fresh(config, recipe.seed)
        if recipe.auxiliary:
            self.fresh["auxiliary/kernel"] = np.zeros((config.embed_dims[2], config.num_classes), "float32")
        self.teacher_config = variant_config(recipe.teacher_variant, num_classes=config.num_classes)
        self.teachers: dict[str, Any] = {}
        plain = {name for name in self.fresh if any("norm" in part for part in name.split("/"))}
        self.decay = {name: 0.0 if name in plain else recipe.weight_decay for name in self.fresh}
        self.run = jax.jit(self._run, static_argnames="count", donate_argnums=0)
        self.validate = jax.jit(self._validate)

    def compile(self) -> None:
        """Before the weights to begin with, and the teachers, are there."""
        stand_in = fresh(self.teacher_config, 0) if self.recipe.teachers else {}
        self.teachers = {name: jnp.stack([value] * len(self.recipe.teachers)) for name, value in stand_in.items()}
        jax.block_until_ready(self.run(self._state(self.fresh), 0, 0.0, 0.0, self.data, self.teachers, count=BLOCK))

    def begin(self) -> Any:
        """The first state, with the weights of other runs."""
        recipe, weights = self.recipe, self.fresh
        if recipe.start:
            weights = weights | _fitting(_weights_of(Path(recipe.start)), weights, recipe.start)
        if recipe.teachers:
            expected = fresh(self.teacher_config, 0)
            every = [_fitting(_weights_of(Path(path)), expected, path, heads=()) for path in recipe.teachers]
            self.teachers = {name: jnp.stack([each[name] for each in every]) for name in expected}
        return self._state(weights)

    @staticmethod
    def _state(weights: dict[str, np.ndarray]) -> dict[str, Any]:
        made: dict[str, Any] = {"weights": jnp.array, "average": jnp.array, "m": jnp.zeros_like, "v": jnp.zeros_like}
        return {name: jax.tree.map(make, weights) for name, make in made.items()}

    def _batch(self, step: Any, key: Any, data: Any) -> tuple[Any, Any]:
        images, masks, sizes, points, shown = data
        recipe, count = self.recipe, images.shape[0]
        picking, holding, choosing, point, augmenting = jax.random.split(key, 5)
        place = step * recipe.batch_size + jnp.arange(recipe.batch_size)
        passes = jax.vmap(
            lambda i: jax.random.permutation(jax.random.fold_in(jax.random.key(recipe.seed + 7), i), count)
        )
        first = place[0] // count
        orders = passes(jnp.stack([first, first + 1]))  # a batch touches two passes at most
        index = orders[jnp.minimum(place // count - first, 1), place % count]
        held = jnp.full((recipe.batch_size, 2), -1)
        if recipe.balance:
            classes = jax.random.categorical(
                choosing, jnp.where(shown.any(0), 0.0, -jnp.inf), shape=(recipe.batch_size,)
            )
            by_class = jax.random.categorical(picking, jnp.where(shown[:, classes].T, 0.0, -jnp.inf), axis=-1)
            use = jax.random.bernoulli(holding, recipe.balance, (recipe.batch_size,))
            index = jnp.where(use, by_class, index)
            which = jax.random.randint(point, (recipe.batch_size,), 0, points.shape[2])
            held = jnp.where(use[:, None], points[index, classes, which], -1)
        return augment_batch(
            images[index], masks[index], sizes[index], held, augmenting, recipe.augmentation(self.config.num_classes)
        )

    def _loss(self, weights: Any, images: Any, masks: Any, key: Any, teachers: Any) -> tuple[Any, Any]:
        recipe, config = self.recipe, self.config
        encoding, decoding, picking = jax.random.split(key, 3)
        maps = features(weights, images, config, key=encoding, dtype=self.dtype)
        logits, statistics = decode(weights, maps, config, key=decoding)
        loss = self._pixels(logits, masks, picking)
        if recipe.auxiliary:
            extra = maps["c3"].astype(jnp.float32) @ weights["auxiliary/kernel"]
            loss += recipe.auxiliary * self._pixels(extra, masks, picking)
        if teachers:
            target = jax.lax.stop_gradient(self._target(teachers, images))
            own = jax.nn.log_softmax(logits / recipe.temperature)
            loss += recipe.distill * recipe.temperature**2 * (target * (jnp.log(target + 1e-8) - own)).sum(-1).mean()
        return loss, statistics

    def _target(self, teachers: Any, images: Any) -> Any:
        """The mean of the teachers' probabilities on the 1/4 grid."""
        config = self.teacher_config

        def probabilities(teacher: Any) -> Any:
            logits, _ = decode(teacher, features(teacher, images, config, dtype=self.dtype), config)
            return jax.nn.softmax(logits / self.recipe.temperature)

        return jax.lax.map(probabilities, teachers).mean(0)

    def _pixels(self, logits: Any, masks: Any, key: Any) -> Any:
        """The loss of logits on the 1/4 grid, at every second row and column of the mask, from a random one on.

        Neighbors hardly differ, and a quarter of the pixels takes a quarter of the time. Classes come second,
        (B, C, H, W): sums over them are fast then.
        """
        recipe, classes = self.recipe, self.config.num_classes
        logits = logits.transpose(0, 3, 1, 2)
        for axis, each in enumerate(jax.random.split(key), start=1):
            cells, pixels = logits.shape[axis + 1], masks.shape[axis]
            kept = jax.random.randint(each, (), 0, 2) + 2 * jnp.arange((pixels + 1) // 2)  # the last may be outside
            shares = resize(jnp.eye(cells)[None, ..., None], (pixels, cells))[0, kept, :, 0]
            resized = jnp.tensordot(logits, shares, (axis + 1, 1), precision="highest")
            logits = jnp.moveaxis(resized, -1, axis + 1)
            masks = jnp.take(masks, kept, axis, mode="fill", fill_value=IGNORE_ID)
        truth = (masks[:, None] == jnp.arange(classes)[:, None, None]).astype(jnp.float32)
        logs = jax.nn.log_softmax(logits, axis=1)
        losses = -(truth * logs).sum(1)
        if recipe.smoothing:
            losses = (1 - recipe.smoothing) * losses - recipe.smoothing * logs.mean(1)
        weights = (truth * self.class_weights[:, None, None]).sum(1)  # 0 where ignored
        if recipe.hard < 1:
            bar = jnp.quantile(
                jnp.where(weights > 0, losses, -1.0).reshape(losses.shape[0], -1), 1 - recipe.hard, axis=1
            )
            weights *= losses >= jax.lax.stop_gradient(bar)[:, None, None]
        loss = (weights * losses).sum() / jnp.maximum(weights.sum(), 1e-6)
        if recipe.overlap:
            shares = jnp.exp(logs) * truth.sum(1, keepdims=True)
            both, either = (shares * truth).sum((0, 2, 3)), (shares**2 + truth).sum((0, 2, 3))
            present = truth.sum((0, 2, 3)) > 0
            dice = jnp.where(present, 1 - 2 * both / jnp.maximum(either, 1e-6), 0).sum() / jnp.maximum(present.sum(), 1)
            loss += recipe.overlap * dice
        return loss

    def _step(self, state: Any, step: Any, fraction: Any, data: Any, teachers: Any) -> tuple[Any, Any]:
        recipe = self.recipe
        key = jax.random.fold_in(jax.random.key(recipe.seed), step)
        drawing, training = jax.random.split(key)
        images, masks = self._batch(step, drawing, data)
        weights = state["weights"]
        (loss, statistics), gradients = jax.value_and_grad(self._loss, has_aux=True)(
            weights, images, masks, training, teachers
        )
        rate = recipe.learning_rate * jnp.clip(jnp.minimum(fraction / max(recipe.warmup, 1e-9), 1 - fraction), 0, 1)
        count = jnp.float32(step) + 1
        keep = jnp.minimum(recipe.ema, (1 + count) / (10 + count))
        new: dict[str, dict[str, Any]] = {"weights": {}, "m": {}, "v": {}, "average": {}}
        for name, weight in weights.items():
            g = gradients[name]
            m = 0.9 * state["m"][name] + 0.1 * g
            v = 0.999 * state["v"][name] + 0.001 * g * g
            update = (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
            weight = statistics[name] if name in STATISTICS else weight - rate * (update + self.decay[name] * weight)
            new["weights"][name], new["m"][name], new["v"][name] = weight, m, v
            new["average"][name] = keep * state["average"][name] + (1 - keep) * weight
        return new, loss

    def _run(self, state: Any, start: Any, fraction: Any, slope: Any, data: Any, teachers: Any, *, count: int) -> Any:
        """`count` steps from number `start` on; `fraction` of the run is done, and each step adds `slope`."""

        def body(state: Any, i: Any) -> Any:
            return self._step(state, start + i, fraction + slope * i, data, teachers)

        state, losses = jax.lax.scan(body, state, jnp.arange(count))
        return state, losses.mean()

    def _validate(self, weights: Any, image: Any, mask: Any) -> Any:
        """The confusion matrix of one image (1, H, W, 3)."""
        size = self.recipe.eval_size or image.shape[1:3]
        x = (image.astype(jnp.float32) - jnp.array(IMAGE_MEAN)) / jnp.array(IMAGE_STD)
        with jax.default_matmul_precision("highest"):
            logits, _ = decode(weights, features(weights, resize(x, size), self.config), self.config)
        seen = resize(logits, mask.shape[1:3]).argmax(-1)
        names = jnp.arange(self.config.num_classes)
        truth, guess = ((each.reshape(-1) == names[:, None]).astype(jnp.bfloat16) for each in (mask, seen))
        return jnp.einsum("ap,bp->ab", truth, guess, preferred_element_type=jnp.float32)


def mean_iou(matrix: np.ndarray) -> float:
    """Over the classes that occur in truth or prediction, 0..1."""
    both = np.diag(matrix)
    either = matrix.sum(0) + matrix.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())


class Score:
    """Mean IoU of weights on a split, image by image, at the sizes of the masks."""

    def __init__(self, training: Training, data: Path, split: str) -> None:
        images, masks, sizes = read(data, (split,))
        cut = [(slice(i, i + 1), slice(height), slice(width)) for i, (height, width) in enumerate(sizes)]
        self.pairs = [(jax.device_put(images[each]), jax.device_put(masks[each])) for each in cut]
        self.training = training

    def __call__(self, weights: Any) -> tuple[float, np.ndarray]:
        matrix = np.asarray(sum(self.training.validate(weights, *pair) for pair in self.pairs))
        return mean_iou(matrix), matrix


def train(recipe: Recipe, data: Path, out: Path, test: Path | None = None) -> Iterator[str]:
    """Train, writing into `out`, and say how it goes.

    Args:
        recipe: options.
        data: file of `pack`, with the splits to train on and perhaps ``val``.
        out: folder for ``weights.npz``, ``history.csv``, ``recipe.json`` and ``result.json``.
        test: file of `pack` with the split ``test``, which the weights that were kept are scored on; waited for.

    Raises:
        InputError: `out` has a run, the loss is not finite, or another run that is waited for is none, failed, or has
            other weights.
    """
    others = [Path(path) for path in (recipe.start, *recipe.teachers) if path]
    for other in others:
        if other.is_file() or other.resolve() == out.resolve():
            raise InputError(f"{other}: expected the folder of another run")
    if (out / "recipe.json").exists():
        raise InputError(f"{out}: has a run; give another folder")
    with np.load(data) as file:
        classes, validated = int(file["classes"]), "val/count" in file.files
    names = {"drop_path_rate": recipe.drop_path, "dropout_rate": recipe.dropout}
    config = variant_config(recipe.variant, num_classes=classes, **names)
    training = Training(recipe, config, *read(data, recipe.splits))
    validation = Score(training, data, "val") if validated else None
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1), "utf-8")

    training.compile()
    yield "compiled"
    for other in others:
        if not _at_its_end(other):
            yield f"waiting for the end of {other}"
        while not _at_its_end(other):
            time.sleep(0.2)
    state = training.begin()
    began, step, done, pace, best = time.time(), 0, 0.0, 0.0, -1.0
    rows: list[dict[str, Any]] = []
    while done < 1:
        begin = time.time()
        slope = pace / recipe.seconds if recipe.seconds else 1 / recipe.steps
        state, loss = training.run(state, step, done, slope, training.data, training.teachers, count=BLOCK)
        loss, step = float(loss), step + BLOCK
        if not isfinite(loss):
            raise InputError(f"{out}: the loss is {loss} after step {step}; try a lower learning_rate")
        pace = (time.time() - begin) / BLOCK
        done = (time.time() - began) / recipe.seconds if recipe.seconds else step / recipe.steps
        if min(done, 1) < (len(rows) + 1) / recipe.evaluations:
            continue
        weights = state["average"] if recipe.ema else state["weights"]
        row = {"step": step, "seconds": round(time.time() - began, 1), "loss": round(loss, 5)}
        row |= {"images_per_second": round(recipe.batch_size / pace, 1)}
        if validation:
            row["val_mean_iou"] = round(validation(weights)[0], 5)
        rows.append(row)
        # Validation that was trained on tells nothing: then the last weights are kept.
        score = row["val_mean_iou"] if validation and "val" not in recipe.splits else done
        if score >= best:
            best = score
            kept = {name: np.asarray(value) for name, value in weights.items() if "auxiliary" not in name}
            with atomic(out / "weights.npz") as part, part.open("wb") as file:
                np.savez(file, **kept)
        with atomic(out / "history.csv") as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        yield str(row)
    epochs = round(step * recipe.batch_size / len(training.data[0]), 1)
    result: dict[str, Any] = {"steps": step, "epochs": epochs, "seconds": round(time.time() - began, 1)}
    if test is not None:
        while not test.is_file():
            time.sleep(1)
        score, matrix = Score(training, test, "test")(kept)
        result |= {"test_mean_iou": round(score, 5), "matrix": matrix.tolist()}
    with atomic(out / "result.json") as part:
        part.write_text(json.dumps(result), "utf-8")
    yield str({name: value for name, value in result.items() if name != "matrix"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("spec")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", type=Path, help="file of pack with a split test, to score the kept weights on")
    given = parser.parse_args()
    begun = False
    try:
        for line in train(read_recipe(given.spec), given.data, given.out, given.test):
            begun = True
            print(given.out.name, line, flush=True)
    except InputError as error:
        if begun:  # who waits for this run must know
            (given.out / "result.json").write_text(json.dumps({"error": str(error)}), "utf-8")
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
