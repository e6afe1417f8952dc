"""What a training is asked for: one typed, frozen dataclass, which is also the command's options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from segformer_tf.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of a training run. Defaults are the authors' recipe, scaled down in steps and batch."""

    data: Annotated[str, Parameter(show_default=False)] = ""
    """Folder with dataset.json and split/{images,masks}, or tfds:NAME (tfds:toy_shapes needs no download)."""

    variant: str = "b0"
    """b0 to b5, or tiny."""

    weights: Path | None = None
    """Start from these: a .keras file (of `segformer import`, say) or a run folder. The classifier starts fresh where
    the number of classes differs."""

    out: Path | None = None
    """Run folder to make. Default: runs/VARIANT-DATA, numbered if it is taken."""

    train_split: str = "train"
    """Split to train on."""

    val_split: str = "val"
    """Split that picks the best weights."""

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

    eval_size: tuple[int, int] | None = None
    """Height and width that validation images are stretched to. Default: those of the first one."""

    base: tuple[int, int] | None = None
    """Long and short side that images are fitted into before the scale jitter, such as 2048 512 (ADE20K).
    Default: each image's own size."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the scale jitter, as a factor on that size."""

    learning_rate: float = 6e-5
    """Peak rate of the encoder (the authors' 6e-5 is for pretrained weights; from scratch 6e-4 is better)."""

    head_multiplier: float = 10.0
    """Rate of the decoder over the encoder's."""

    weight_decay: float = 0.01
    """Decoupled weight decay; LayerNorm parameters are left out."""

    class_weights: float = 0.0
    """Weigh rare classes up in the loss: 1 / ln(1.02 + share of pixels) to this power. 0 is none, 1 ENet's formula."""

    clip_norm: float | None = None
    """Largest norm of all gradients together. Default: any."""

    ema: float = 0.0
    """Momentum of the moving average of the weights, such as 0.999; it is what is validated and kept. 0 for none."""

    warmup_steps: int | None = None
    """Steps of linear warm-up. Default: 1500, or a tenth of --steps if that is less."""

    drop_path: float = 0.1
    """Drop path of the last block."""

    dropout: float = 0.1
    """Dropout of whole channels before the classifier."""

    devices: int | None = None
    """Replicas. Default: every GPU, or one CPU. More than one without GPUs splits the CPU."""

    seed: int = 0
    """Seed of weights, order and augmentation."""

    deterministic: bool = False
    """The same bits every time on the same machine, more slowly."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The ``config.json`` of a run folder; raises InputError where it is none."""
        try:
            saved = json.loads(path.read_text("utf-8"))
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
            hints = get_type_hints(cls)
            for name, value in fields.items():
                if name in hints and not _fits(value, hints[name]):
                    raise InputError(f"{path}: {name} cannot be {value!r}")
            return cls(**fields)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path.parent}: no run folder, for it holds no {path.name}") from None
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not a run's configuration ({error}); bring it back, or start a new run"
            ) from None


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
