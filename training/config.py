"""What a training is asked for: typed, frozen dataclasses, which are also the options of their verbs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from segformer_tf.errors import InputError

VERBS = {"segmentation": "train", "classification": "pretrain"}  # by task, as config.json names it


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Options that every training has, whatever its task."""

    task: ClassVar[str]
    given: ClassVar[frozenset[str]]

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder, or tfds:NAME."""

    variant: str = "b0"
    """b0 to b5, or tiny."""

    out: Path | None = None
    """Run folder to make. Default: runs/VARIANT-DATA, numbered if it is taken."""

    train_split: str = "train"
    """Split to train on."""

    val_split: str = "val"
    """Split that picks the best weights."""

    bits: int | None = None
    """Bits that are used of image files of more than 8, such as 12 of 16. Default: the manifest's, or found."""

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

    @property
    def verb(self) -> str:
        """The command's verb that makes such a run."""
        return VERBS[self.task]

    def __new__(cls, **given: Any) -> Self:
        """Remembers which options were spelled out: those that a run that goes on is asked to change."""
        config = super().__new__(cls)
        object.__setattr__(config, "given", frozenset(given))
        return config

    def to_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds, the inverse of `read`."""
        return {"task": self.task, **asdict(self)}

    @classmethod
    def read(cls, path: Path) -> Self:
        """The ``config.json`` of a run folder; raises InputError where it is none, or of another task."""
        try:
            saved = json.loads(path.read_text("utf-8"))
            if (task := saved.pop("task", "segmentation")) != cls.task:  # runs once had one task, and no word for it
                verb = VERBS[task]
                raise InputError(
                    f"{path.parent}: a run of segformer {verb}; go on with segformer {verb} --resume {path.parent}"
                )
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
            hints = get_type_hints(cls)
            for name, value in fields.items():
                if name in hints and not _fits(value, hints[name]):
                    raise InputError(f"{path}: {name} cannot be {value!r}")
            return cls(**fields)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path.parent}: not a run folder: it holds no {path.name}") from None
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not a run's configuration ({error}); bring it back, or start a new run"
            ) from None


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Options of training a SegFormer. Defaults are the authors' recipe, scaled down in steps and batch."""

    task: ClassVar[str] = "segmentation"

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder with dataset.json and split/{images,masks}, or tfds:NAME (tfds:toy_shapes needs no download)."""

    weights: Path | None = None
    """Start from these: a .keras file (of `segformer import`, say) or a run folder. The classifier starts fresh where
    the number of classes differs, and so does the whole decoder where they come from `segformer pretrain`."""

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

    class_weights: float = 0.0
    """Weigh rare classes up in the loss: 1 / ln(1.02 + share of pixels) to this power. 0 is none, 1 ENet's formula."""

    dropout: float = 0.1
    """Dropout of whole channels before the classifier."""

    allow_missing_classes: bool = False
    """Train although no training mask shows some class of dataset.json."""


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


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value, lists as tuples, is of a field's type."""
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        each = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if isinstance(value, bool):
        return hint is bool
    accepted: Any = {float: (int, float), Path: str}.get(hint, hint)
    return isinstance(value, accepted)
