"""Options of `segformer train` and `segformer pretrain`: one typed, frozen dataclass each; no TensorFlow here."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from shlex import quote
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from segformer_tf.config import VARIANTS, check_bits, check_image_shape, variant_config
from segformer_tf.errors import InputError
from segformer_tf.losses.table import LOSSES

_LOSS_HELP = "; ".join(f"{name}: {choice.summary}" for name, choice in LOSSES.items()) + "."
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
STEPS, EPOCH_STEPS = 40_000, 500  # defaults, without --epochs
_OF_MASKED = ("more_data", "mask_ratio", "mask_size")  # options of `segformer pretrain --masked` alone
FROZEN_STAGES = {"1": 1, "2": 2, "3": 3, "encoder": 4}  # by the value of --freeze
# By task, as config.json names it.
VERBS = {"segmentation": "train", "classification": "pretrain", "masked": "pretrain"}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Options that every training has, whatever its task.

    `check` refuses what cannot be used, whatever the data; `resolved` fills in what depends on the data. Nothing
    changes after that, and so it is written to the run folder.

    Attributes:
        task: a key of `VERBS`.
        explicit: names of the options that were passed, as opposed to those that are defaults.
    """

    verb: ClassVar[str]  # of the command that makes such a run
    explicit: ClassVar[frozenset[str]]

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder, or tfds:NAME."""

    variant: str = "b0"
    """b0 to b5, or tiny. Default: that of the weights to start from, if there are some."""

    out: Path | None = None
    """Run folder to make. Default: runs/VARIANT-DATA, numbered if it is taken."""

    train_split: str = "train"
    """Split to train on."""

    val_split: str = "val"
    """Split that picks the best weights."""

    bits: int | None = None
    """Bits that are used of image files of more than 8, such as 12 of 16. Default: the manifest's, or as many as
    the largest value of the files needs."""

    steps: int | None = None
    """Optimizer steps in all, a multiple of --epoch-steps. Default: 40000."""

    epochs: int | None = None
    """Instead of --steps and --epoch-steps: passes over the training images, each of as many steps as hold every image
    once, and then a validation."""

    epoch_steps: int | None = None
    """Steps between two validations (one Keras epoch). Default: 500."""

    patience: int | None = None
    """Stop after so many validations in a row without a better score. Default: never."""

    batch_size: int = 8
    """Samples per step, over all replicas."""

    accumulate: int = 1
    """Run each replica's batch in so many parts, one after another, to save memory; one update for all."""

    precision: str = "float32"
    """float32, mixed_float16 (GPUs; the loss is scaled as needed) or mixed_bfloat16 (newer GPUs and CPUs)."""

    crop: tuple[int, int] = (512, 512)
    """Height and width of training crops."""

    learning_rate: float = 6e-5
    """Peak rate."""

    weight_decay: float = 0.01
    """Decoupled weight decay; LayerNorm parameters are left out."""

    clip_norm: float | None = None
    """Largest norm of all gradients together. Default: no limit."""

    ema: float = 0.0
    """Momentum of the moving average of the weights, such as 0.999; that is what is validated and saved. 0 for none."""

    warmup_steps: int | None = None
    """Steps of linear warm-up. Default: 1500, or a tenth of --steps if that is less."""

    drop_path: float = 0.1
    """Drop path of the last block."""

    devices: int | None = None
    """Replicas. Default: every GPU, or one CPU. More than one without GPUs splits the CPU."""

    seed: int = 0
    """Seed of weights, order and augmentation."""

    deterministic: bool = False
    """The same bits every time on the same machine, more slowly."""

    def __new__(cls, **options: Any) -> Self:
        config = super().__new__(cls)
        object.__setattr__(config, "explicit", frozenset(options))
        return config

    @property
    def task(self) -> str:
        raise NotImplementedError

    def resume_command(self, root: Path) -> str:
        """The command that goes on with the run in `root`."""
        return f"segformer {self.verb} --resume {quote(str(root))}"

    @property
    def total_steps(self) -> int:
        """`steps` or their default; of `epochs`, once they are `resolved`."""
        return STEPS if self.steps is None else self.steps

    @property
    def epoch_length(self) -> int:
        """Steps of a Keras epoch: `epoch_steps`, or all of them if those are fewer."""
        return min(EPOCH_STEPS if self.epoch_steps is None else self.epoch_steps, self.total_steps)

    def check(self) -> None:
        """Raises InputError for an option that cannot be used, whatever the data."""
        if self.variant not in VARIANTS:
            raise InputError(f"--variant must be one of {', '.join(VARIANTS)}. Received: {self.variant}")
        variant_config(self.variant, num_classes=1, drop_path_rate=self.drop_path)
        check_bits(self.bits, name="--bits")
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision must be one of {', '.join(PRECISIONS)}. Received: {self.precision}")
        self._check_positive("batch_size", "accumulate", "learning_rate", "clip_norm", "patience")
        self._check_not_negative("weight_decay")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema must be from 0 to below 1. Received: {self.ema}")
        self._check_length()
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to 4294967295. Received: {self.seed}")
        check_image_shape((None, *self.crop, 3), "--crop")

    def check_replicas(self, count: int) -> None:
        """Raises InputError for a batch that cannot be split over `count` replicas."""
        if self.batch_size % (count * self.accumulate):
            raise InputError(
                f"--batch-size must be a multiple of replicas times --accumulate "
                f"({count} x {self.accumulate}). Received: {self.batch_size}"
            )

    def _check_length(self) -> None:
        self._check_positive("steps", "epochs", "epoch_steps")
        if self.epochs is not None:
            if self.steps is None and self.epoch_steps is None:
                return  # the data decides; `resolved` checks the rest
            if self.steps is None or self.epoch_steps is None or self.steps != self.epochs * self.epoch_steps:
                given = "--steps" if self.steps is not None else "--epoch-steps"
                raise InputError(f"--epochs is instead of --steps and --epoch-steps. Received: --epochs and {given}")
        if self.total_steps % self.epoch_length:
            raise InputError(
                f"--steps must be a multiple of --epoch-steps. Received: {self.total_steps} and {self.epoch_length}"
            )
        if self.warmup_steps is not None and not 0 <= self.warmup_steps < self.total_steps:
            raise InputError(
                f"--warmup-steps must be from 0 to below the steps in all, {self.total_steps}. "
                f"Received: {self.warmup_steps}"
            )

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise InputError(f"{option(name)} must be positive. Received: {value}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"{option(name)} must not be negative. Received: {getattr(self, name)}")

    def resolved(self, data_name: str, *, images: int, **from_data: Any) -> Self:
        """The final options of a run: every default that depends on something has its value, every path is absolute.

        Args:
            data_name: of the data set, for the name of the run folder.
            images: in the training split.
            from_data: options whose value the data decides, such as `bits`.

        Raises:
            InputError: a schedule that does not fit the steps of `epochs`.
        """
        steps, epoch_steps = self.total_steps, EPOCH_STEPS if self.epoch_steps is None else self.epoch_steps
        if self.epochs is not None:
            one = -(-images // self.batch_size)
            if self.epoch_steps not in (None, one):
                raise InputError(
                    f"--epochs: {images} images in batches of {self.batch_size} are {one} steps. "
                    f"Received: --epoch-steps {self.epoch_steps}"
                )
            steps, epoch_steps = self.epochs * one, one
        final = replace(
            self,
            data=self.data if self.data.startswith("tfds:") else str(Path(self.data).resolve()),
            out=self.out or free_folder(self.variant, data_name),
            steps=steps,
            epoch_steps=epoch_steps,
            warmup_steps=min(1500, steps // 10) if self.warmup_steps is None else self.warmup_steps,
            **from_data,
        )
        final.check()
        return final

    def to_dict(self) -> dict[str, Any]:
        """Content of ``config.json``, the inverse of `read`."""
        return {"task": self.task, **asdict(self)}

    @classmethod
    def read(cls, root: Path) -> Self:
        """Options of the run in the folder `root`, from its ``config.json``.

        Raises:
            InputError: no run folder, or a run of another task.
        """
        path = root / "config.json"
        try:
            saved = json.loads(path.read_text("utf-8"))
            verb = VERBS[saved.pop("task", "segmentation")]  # the first runs had one task and no name of it
            if verb != cls.verb:
                raise InputError(f"{root}: a run of segformer {verb}; go on with segformer {verb} --resume {root}")
            options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
            hints = get_type_hints(cls)
            for name, value in options.items():
                if name in hints and not _fits(value, hints[name]):
                    raise InputError(f"{path}: {name} cannot be {value!r}")
            return cls(**{**options, "out": root})
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{root}: not a run folder: it holds no {path.name}") from None
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not a run's configuration ({error}); bring it back, or start a new run"
            ) from None


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Options of training a SegFormer. Defaults are the authors' recipe, scaled down in steps and batch."""

    verb: ClassVar[str] = "train"

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder of images and masks, its manifest, or tfds:NAME (tfds:toy_shapes needs no download)."""

    weights: str | None = None
    """Start from these: a .keras file or a run folder; a checkpoint of PyTorch, as `segformer import` takes; or a name
    on the Hugging Face hub, hf://nvidia/mit-b0 or nvidia/mit-b0, with @REVISION if you like. The classifier starts
    fresh where the classes differ, and so does the whole decoder where the weights are an encoder's."""

    eval_size: tuple[int, int] | None = None
    """Height and width that validation images are stretched to. Default: those of the first one, made smaller where
    that has more than 1024x1024 pixels."""

    base: tuple[int, int] | None = None
    """Long and short side that images are fitted into before the scale jitter, such as 2048 512 (ADE20K).
    Default: each image's own size."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the scale jitter, as a factor on that size."""

    stretch: float = 1.0
    """Largest factor between the scales of width and height, either way, drawn log-uniformly. 1 keeps the ratio."""

    color: float = 1.0
    """Factor on the ranges of the changes of brightness, contrast, saturation and hue, 0..2. 0 leaves colors alone."""

    mix: float = 0.0
    """Probability, 0..1, that half of the classes of another sample of the replica's batch, image and mask, are pasted
    over a sample (ClassMix)."""

    learning_rate: float = 6e-5
    """Peak rate of the encoder (the authors' 6e-5 is for pretrained weights; from scratch 6e-4 is better)."""

    head_multiplier: float = 10.0
    """Rate of the decoder over the encoder's."""

    loss: Annotated[str, Parameter(help=_LOSS_HELP)] = "ce"

    layer_decay: float = 1.0
    """Rate of each encoder block over the next one's, such as 0.9: the first layers of pretrained weights, which are
    the most general, change least. The decoder, and --head-multiplier, are as without it."""

    teacher: str | None = None
    """Learn from the masks and from this larger network, which has the same classes: a .keras file or a run folder.
    What is saved and exported is the same network as without it."""

    temperature: float = 2.0
    """Temperature of the softmax by which the --teacher's logits are compared with the network's own."""

    distill: tuple[float, float] = (1.0, 1.0)
    """Weights of the --teacher's logits and of its features in the loss, where the masks have 1; 0 for without."""

    freeze: str | None = None
    """Leave this much of the --weights as it is: encoder, or its first 1, 2 or 3 stages."""

    balance: float = 0.0
    """Share of samples, 0..1, for which a class is drawn first, each equally often, then an image that shows it and a
    crop that holds it. The other samples pass over all images."""

    class_weights: float = 0.0
    """Weigh rare classes up in the loss: 1 / ln(1.02 + share of pixels) to this power. 0 is none, 1 ENet's formula."""

    dropout: float = 0.1
    """Dropout of whole channels before the classifier."""

    allow_missing_classes: bool = False
    """Train although no training mask shows some class of dataset.json."""

    @property
    def task(self) -> str:
        return "segmentation"

    def check(self) -> None:
        super().check()
        variant_config(self.variant, num_classes=1, dropout_rate=self.dropout)
        self._check_positive("head_multiplier", "layer_decay")
        if self.loss not in LOSSES:
            raise InputError(f"--loss must be one of {', '.join(LOSSES)}. Received: {self.loss}")
        self._check_not_negative("class_weights", "balance", "mix")
        for name in ("layer_decay", "balance", "mix"):
            if getattr(self, name) > 1:
                raise InputError(f"{option(name)} must be at most 1. Received: {getattr(self, name)}")
        if self.freeze not in (None, *FROZEN_STAGES):
            raise InputError(f"--freeze must be one of {', '.join(FROZEN_STAGES)}. Received: {self.freeze!r}")
        if self.freeze is not None and self.weights is None:
            raise InputError("--freeze leaves pretrained weights as they are, and needs --weights")
        self._check_teaching()
        if self.base is not None and not 0 < self.base[1] <= self.base[0]:
            raise InputError(f"--base must be a long and a short side, in pixels. Received: {self.base}")
        if not 0 < self.scale[0] <= self.scale[1] < inf:
            raise InputError(f"--scale must be two positive factors, the smaller first. Received: {self.scale}")
        if not 1 <= self.stretch < inf:
            raise InputError(f"--stretch must be at least 1, which is none. Received: {self.stretch}")
        if not 0 <= self.color <= 2:
            raise InputError(f"--color must be from 0, no change, to 2, twice the usual one. Received: {self.color}")
        if self.eval_size is not None:
            check_image_shape((None, *self.eval_size, 3), "--eval-size")

    def check_replicas(self, count: int) -> None:
        super().check_replicas(count)
        if self.mix and self.batch_size < 2 * count:
            raise InputError(
                f"--mix takes from another sample of the same replica: --batch-size must be at least {2 * count}. "
                f"Received: {self.batch_size}"
            )

    def _check_teaching(self) -> None:
        self._check_positive("temperature")
        if not (all(0 <= weight < inf for weight in self.distill) and any(self.distill)):
            raise InputError(
                "--distill must be two weights, of logits and of features, not negative and not both 0. "
                f"Received: {self.distill}"
            )
        if self.teacher and self.freeze == "encoder" and self.distill[1]:
            raise InputError(
                "--freeze encoder leaves no feature that could learn from the --teacher: give --distill 1 0. "
                f"Received: --distill {self.distill[0]:g} {self.distill[1]:g}"
            )
        for name in ("temperature", "distill"):
            if self.teacher is None and getattr(self, name) != getattr(TrainConfig, name):
                raise InputError(f"{option(name)} is for a --teacher. Received: {option(name)} and no --teacher")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Options of pretraining the encoder. Defaults are DeiT's recipe, scaled down in steps and batch."""

    verb: ClassVar[str] = "pretrain"

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder with split/CLASS/*.jpg, or tfds:NAME of a set with one image and one label, such as tfds:imagenet2012.
    With --masked any folder of images, also one to `segformer train` on, or tfds:NAME of a set with one image."""

    masked: bool = False
    """Learn without labels: hide blocks of each image and paint them."""

    more_data: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    """More folders of images, with --masked."""

    mask_ratio: float = 0.6
    """Share of an image's blocks that --masked hides."""

    mask_size: int = 32
    """Side of these blocks, in pixels."""

    batch_size: int = 64
    """Samples per step, over all replicas."""

    crop: tuple[int, int] = (224, 224)
    """Height and width that images are cropped and resized to."""

    learning_rate: float = 5e-4
    """Peak rate (DeiT's 1e-3 is for batches of 1024)."""

    weight_decay: float = 0.05
    """Decoupled weight decay; LayerNorm parameters are left out."""

    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""

    @property
    def task(self) -> str:
        return "masked" if self.masked else "classification"

    def check(self) -> None:
        super().check()
        for field in fields(PretrainConfig):
            if field.name in _OF_MASKED and not self.masked and getattr(self, field.name) != field.default:
                raise InputError(f"{option(field.name)} goes with --masked")
        if self.masked and self.label_smoothing != PretrainConfig.label_smoothing:
            raise InputError("--label-smoothing is for classes, which --masked does without")
        if self.masked and any(place.startswith("tfds:") for place in self.more_data):
            raise InputError(f"--more-data takes folders. Received: {' '.join(self.more_data)}")
        if self.masked and self.data.startswith("tfds:") and self.more_data:
            raise InputError(f"--more-data goes with a folder as --data. Received: {self.data}")
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"--mask-ratio must be above 0 and below 1. Received: {self.mask_ratio}")
        self._check_positive("mask_size")
        if self.masked and self.mask_size >= max(self.crop):
            raise InputError(
                f"--mask-size must be below the longer side of --crop, {max(self.crop)}, or one block is all there is. "
                f"Received: {self.mask_size}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"--label-smoothing must be from 0 to below 1. Received: {self.label_smoothing}")


def free_folder(variant: str, data_name: str) -> Path:
    """runs/VARIANT-DATA, or that with the first free number after it."""
    plain = re.sub(r"[^\w.-]+", "-", data_name).strip(".-") or "data"  # a name is not a path
    base = Path("runs") / f"{variant}-{plain}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))
    return base if not base.exists() else next(path for path in numbered if not path.exists())


def option(name: str) -> str:
    """The option of a field, such as "--eval-size"."""
    return f"--{name.replace('_', '-')}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value, with tuples for lists, has the type of a field."""
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        each = get_args(hint)
        if each[-1] is Ellipsis:
            return isinstance(value, tuple) and all(_fits(one, each[0]) for one in value)
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if isinstance(value, bool):
        return hint is bool
    accepted: Any = {float: (int, float), Path: str}.get(hint, hint)
    return isinstance(value, accepted)
