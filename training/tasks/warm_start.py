"""Starts a training from the weights of another model: one of ours, a checkpoint, or a name on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segformer_tf import keras_file
from segformer_tf.checkpoints.hub import find_weights
from segformer_tf.checkpoints.importer import read_checkpoint, to_keras
from segformer_tf.classifier import MixTransformerClassifier
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD, VARIANTS, SegFormerConfig
from segformer_tf.errors import InputError, printable
from segformer_tf.model import SegFormer
from segformer_tf.reconstructor import MixTransformerReconstructor
from training.distributed.strategy import this_place

_SIZES = ("embed_dims", "depths")


@dataclass(frozen=True)
class Start:
    """The model to start from.

    Attributes:
        model: a segmenter, or what `segformer pretrain` made.
        variant: the name of its sizes.
        origin: what names the same weights again, also without a network; see `find_weights`.
        encoder: what the model is, in words, where its encoder alone counts, or "".
    """

    model: keras_file.WithEncoder
    variant: str
    origin: str
    encoder: str = ""


def read_start(weights: str | Path, variant: str | None) -> Start:
    """Read the weights to start from, downloading them where they are a name on the hub.

    Args:
        weights: a ``.keras`` file, a run folder, or whatever `find_weights` and `read_checkpoint` take.
        variant: whose sizes it must have, or None for any.

    Raises:
        InputError: a file that cannot be had or read, or a model of another variant.
    """
    found = find_weights(str(weights))
    encoder, notes = "", found.notes
    model: keras_file.WithEncoder
    if keras_file.is_keras(found.path) or not found.path.exists():
        model = keras_file.load_encoder(found.path)
        if isinstance(model, MixTransformerClassifier):
            encoder = f"a classifier of {model.config.num_classes} classes"
        elif isinstance(model, MixTransformerReconstructor):
            encoder = "a network that painted masked images"
    else:
        checkpoint = read_checkpoint(found.path, encoder_only=None)
        notes += checkpoint.notes
        if checkpoint.has_decoder:
            model = to_keras(checkpoint)
        else:
            encoder = f"a checkpoint ({checkpoint.dialect.name})"
            model = to_keras(checkpoint, encoder_only=True, num_classes=2)  # whose decoder is never looked at
    start = Start(model, _variant(weights, model.config, variant), found.origin, encoder)
    if this_place().chief:
        for note in (*notes, *_inherited(model.config)):
            print(printable(note))
    return start


def copy_weights(start: Start, model: SegFormer, *, quiet: bool = False) -> None:
    """Copy the weights of `start` into `model`.

    The decoder stays fresh if `start` is an encoder, its last layer if the number or the names of classes differ.
    """
    before, now = start.model.config, model.config
    if start.encoder:
        for theirs, ours in zip(start.model.encoder.weights, model.encoder.weights, strict=True):
            ours.assign(theirs)
        message = f"starting from the encoder of {start.encoder}: a fresh decoder"
    else:
        assert isinstance(start.model, SegFormer)
        fresh = keras_file.copy_weights(start.model, model)
        unnamed = " by number, for its classes have no names" if before.labels is None else ""
        kept = "other classes, so a fresh classifier" if fresh else f"its classifier too{unnamed}"
        message = f"starting from weights of {before.num_classes} classes, the data has {now.num_classes}: {kept}"
    if not quiet:
        print(message)


def _variant(weights: str | Path, config: SegFormerConfig, wanted: str | None) -> str:
    """The variant whose sizes `config` has; raises InputError unless it is the wanted one."""
    has = {name: getattr(config, name) for name in _SIZES}
    fits = [name for name, sizes in VARIANTS.items() if all(sizes[key] == value for key, value in has.items())]
    if fits and wanted in (None, *fits):
        return wanted or fits[0]
    if wanted is None:
        sizes = " and ".join(f"{name} {value}" for name, value in has.items())
        raise InputError(f"{weights}: a network of {sizes}, which is none of {', '.join(VARIANTS)}")
    name = next(name for name in _SIZES if has[name] != VARIANTS[wanted][name])
    hint = f"; give --variant {fits[0]}" if fits else ""
    raise InputError(
        f"{weights}: another network than --variant {wanted}: its {name} is {has[name]}, "
        f"expected {VARIANTS[wanted][name]}{hint}"
    )


def _inherited(config: SegFormerConfig) -> list[str]:
    """What the weights bring along, one line each."""
    lines = []
    if (config.image_mean, config.image_std) != (IMAGE_MEAN, IMAGE_STD):
        lines.append(f"images are normalized as for these weights: {config.normalization}")
    if config.license:
        lines.append(f"the weights' license, which what is trained from them inherits: {config.license}")
    return lines
