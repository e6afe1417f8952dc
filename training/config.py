"""Options of `segformer train` and `segformer pretrain`: one typed, frozen dataclass each; no TensorFlow here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from segformer_tf.config import VARIANTS, check_bits, check_image_shape, variant_config
from segformer_tf.errors import InputError
from segformer_tf.losses.table import LOSSES

_LOSS_HELP = "; ".join(f"{name}: {choice.summary}" for name, choice in LOSSES.items()) + "."
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
# Options that a resumed run may change: they affect neither the model nor the order of the data.
CHANGEABLE = ("accumulate", "eval_size", "steps")
VERBS = {"segmentation": "train", "classification": "pretrain"}  # by task, as config.json names it


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Options that every training has, whatever its task.

    `check` refuses what cannot be used, whatever the data; `resolved` fills in what depends on the data. Nothing
    changes after that, and so it is written to the run folder.

    Attributes:
        explicit: names of the options that were passed, as opposed to those that are defaults.
    """

    task: ClassVar[str]
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

    steps: int = 40_000
    """Optimizer steps in all, a multiple of --epoch-steps."""

    epoch_steps: int = 500
    """Steps between two validations (one Keras epoch)."""

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
    def verb(self) -> str:
        """The verb of the command that makes such a run."""
        return VERBS[self.task]

    @property
    def epoch_length(self) -> int:
        """Steps of a Keras epoch: `epoch_steps`, or all of them if those are fewer."""
        return min(self.epoch_steps, self.steps)

    def check(self) -> None:
        """Raises InputError for an option that cannot be used, whatever the data."""
        if self.variant not in VARIANTS:
            raise InputError(f"--variant must be one of {', '.join(VARIANTS)}. Received: {self.variant}")
        variant_config(self.variant, num_classes=1, drop_path_rate=self.drop_path)
        check_bits(self.bits, name="--bits")
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision must be one of {', '.join(PRECISIONS)}. Received: {self.precision}")
        self._check_positive("steps", "epoch_steps", "batch_size", "accumulate", "learning_rate", "clip_norm")
        self._check_not_negative("weight_decay")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema must be from 0 to below 1. Received: {self.ema}")
        if self.warmup_steps is not None and not 0 <= self.warmup_steps < self.steps:
            raise InputError(f"--warmup-steps must be from 0 to below --steps. Received: {self.warmup_steps}")
        if self.steps % self.epoch_length:
            raise InputError(
                f"--steps must be a multiple of --epoch-steps. Received: {self.steps} and {self.epoch_steps}"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be from 0 to 4294967295. Received: {self.seed}")
        check_image_shape((None, *self.crop, 3), "--crop")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise InputError(f"{_option(name)} must be positive. Received: {value}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"{_option(name)} must not be negative. Received: {getattr(self, name)}")

    def resolved(self, data_name: str, **from_data: Any) -> Self:
        """The final options of a run: every default that depends on something has its value, every path is absolute.

        Args:
            data_name: of the data set, for the name of the run folder.
            from_data: options whose value the data decides, such as `bits`.
        """
        return replace(
            self,
            data=self.data if self.data.startswith("tfds:") else str(Path(self.data).resolve()),
            out=self.out or free_folder(self.variant, data_name),
            warmup_steps=min(1500, self.steps // 10) if self.warmup_steps is None else self.warmup_steps,
            **from_data,
        )

    def with_changes(self, changes: Mapping[str, Any]) -> Self:
        """The options of a run that is resumed with other values of some options in `CHANGEABLE`.

        Raises:
            InputError: an option that a run keeps from its start, or fewer steps.
        """
        changeable = [name for name in CHANGEABLE if name in {field.name for field in fields(self)}]
        if fixed := sorted(set(changes) - set(changeable)):
            raise InputError(
                f"--resume keeps the options of the run, and takes {', '.join(map(_option, changeable))} alone. "
                f"Received: {_option(fixed[0])}"
            )
        if "steps" not in changes:
            return replace(self, **changes)
        if changes["steps"] < self.steps:
            raise InputError(f"--steps of a run can only grow, from {self.steps}. Received: {changes['steps']}")
        return replace(self, **{"epoch_steps": self.epoch_length, **changes})  # the epoch length of finished epochs

    def changes_since(self, before: Self) -> list[str]:
        """A line for each option of `CHANGEABLE` that differs from `before`."""
        notes = {
            "eval_size": "; scores from here on are of this size, and the best weights are chosen anew by them",
            "steps": "; the rate falls to 0 at the new end, so it is higher from here on than it was to be",
        }
        pairs = {name: (getattr(before, name, None), getattr(self, name, None)) for name in CHANGEABLE}
        return [
            f"{_option(name)}: {_plain(old)} -> {_plain(new)}{notes.get(name, '')}"
            for name, (old, new) in pairs.items()
            if old != new
        ]

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
            if (task := saved.pop("task", "segmentation")) != cls.task:  # the first runs had one task and no name of it
                verb = VERBS[task]
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

    task: ClassVar[str] = "segmentation"

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

    learning_rate: float = 6e-5
    """Peak rate of the encoder (the authors' 6e-5 is for pretrained weights; from scratch 6e-4 is better)."""

    head_multiplier: float = 10.0
    """Rate of the decoder over the encoder's."""

    loss: Annotated[str, Parameter(help=_LOSS_HELP)] = "ce"

    class_weights: float = 0.0
    """Weigh rare classes up in the loss: 1 / ln(1.02 + share of pixels) to this power. 0 is none, 1 ENet's formula."""

    dropout: float = 0.1
    """Dropout of whole channels before the classifier."""

    allow_missing_classes: bool = False
    """Train although no training mask shows some class of dataset.json."""

    def check(self) -> None:
        super().check()
        variant_config(self.variant, num_classes=1, dropout_rate=self.dropout)
        self._check_positive("head_multiplier")
        if self.loss not in LOSSES:
            raise InputError(f"--loss must be one of {', '.join(LOSSES)}. Received: {self.loss}")
        self._check_not_negative("class_weights")
        if self.base is not None and not 0 < self.base[1] <= self.base[0]:
            raise InputError(f"--base must be a long and a short side, in pixels. Received: {self.base}")
        if not 0 < self.scale[0] <= self.scale[1] < inf:
            raise InputError(f"--scale must be two positive factors, the smaller first. Received: {self.scale}")
        if self.eval_size is not None:
            check_image_shape((None, *self.eval_size, 3), "--eval-size")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Options of pretraining the encoder. Defaults are DeiT's recipe, scaled down in steps and batch."""

    task: ClassVar[str] = "classification"

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder with split/CLASS/*.jpg, or tfds:NAME of a set with one image and one label, such as tfds:imagenet2012."""

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

    def check(self) -> None:
        super().check()
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"--label-smoothing must be from 0 to below 1. Received: {self.label_smoothing}")


def free_folder(variant: str, data_name: str) -> Path:
    """runs/VARIANT-DATA, or that with the first free number after it."""
    plain = re.sub(r"[^\w.-]+", "-", data_name).strip(".-") or "data"  # a name is not a path
    base = Path("runs") / f"{variant}-{plain}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))
    return base if not base.exists() else next(path for path in numbered if not path.exists())


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value, with tuples for lists, has the type of a field."""
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        each = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if isinstance(value, bool):
        return hint is bool
    accepted: Any = {float: (int, float), Path: str}.get(hint, hint)
    return isinstance(value, accepted)
