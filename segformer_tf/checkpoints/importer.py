"""A checkpoint of any of four code bases in, a Keras SegFormer out, strictly.

Every key is used once or is known to be dead, every variable is filled, every shape is checked, or the error lists what
does not fit. Of an encoder alone that holds for the encoder's keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segformer_tf.checkpoints.dialects import DIALECTS, NVLABS, TORCH_NAMES, Dialect
from segformer_tf.checkpoints.head import class_names, two_logits
from segformer_tf.checkpoints.opened import Opened, open_checkpoint
from segformer_tf.checkpoints.placing import place, to_keras_layout, to_torch_layout
from segformer_tf.checkpoints.preprocessor import Preprocessor
from segformer_tf.checkpoints.sizes import network_sizes, papers_width
from segformer_tf.checkpoints.state_dict import Tensors
from segformer_tf.config import SegFormerConfig
from segformer_tf.errors import InputError, first_line
from segformer_tf.keras_file import first_non_finite
from segformer_tf.labels import Labels
from segformer_tf.model import SegFormer

_DESCRIBED = ("transformers", "keras-hub")  # code bases whose files say more than tensors


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every key has a place.

    Attributes:
        path: where it was read.
        dialect: whose names it has.
        config: sizes read from the shapes, epsilons of the code base, labels and normalization if it had some.
        weights: torch-layout tensors by our layer and torch's tensor, "encoder/stage1/block0/attn/q/weight".
        has_decoder: whether it is a segmenter, and not an encoder alone.
        one_logit: whether its head had one, which became two classes.
        notes: what it asks for that is done differently here, and what was left out, one line each.
    """

    path: Path
    dialect: Dialect
    config: SegFormerConfig
    weights: Tensors
    has_decoder: bool
    one_logit: bool = False
    notes: tuple[str, ...] = ()


def read_checkpoint(
    path: Path, *, labels: Labels | None = None, encoder_only: bool | None = False, drop: Sequence[str] = ()
) -> Checkpoint:
    """Read a checkpoint and place its keys.

    A head of one logit x is a sigmoid; it becomes two classes, background and the one it is for, with the logits
    (0, x), whose softmax is that sigmoid.

    Args:
        path: see `read_state_dict`; or a folder of transformers' Trainer, or one of a LoRA adapter, which is merged.
            A ``config.json`` of transformers beside it gives labels and heads, a ``preprocessor_config.json`` the
            normalization.
        labels: names of the classes, over those of a config.json; of a head of one logit both or the one's.
        encoder_only: take the encoder, whatever else the file holds; None: only where the rest is no decoder that is
            known here, which a note says.
        drop: regular expressions that match keys to leave out, from the key's start.

    Raises:
        InputError: a file that cannot be read, an unknown dialect, or keys that do not fit, listed.
    """
    opened = open_checkpoint(path)
    opened = replace(opened, tensors=_without(path, opened.tensors, drop))
    if encoder_only is not None:
        return _encoder(opened) if encoder_only else _whole(opened, labels)
    try:
        return _whole(opened, labels)
    except InputError as error:
        reason = [line.strip() for line in str(error).removeprefix(f"{path}: ").splitlines()][:2]
        try:
            encoder = _encoder(opened)
        except InputError:
            raise error from None
    note = f"{path}: the encoder alone is taken, for the rest does not fit: {'; '.join(reason)}"
    return replace(encoder, notes=(note, *encoder.notes))


def checkpoint_of(model: SegFormer, path: Path) -> Checkpoint:
    """A Keras model as a checkpoint, to compare another with."""
    return Checkpoint(path, NVLABS, model.config, torch_weights(model), has_decoder=True)


def torch_weights(model: SegFormer) -> Tensors:
    """A Keras model's weights in torch's layout, in the order of `model.weights`, by the names of `Checkpoint`."""
    weights = {}
    for variable in model.weights:
        layer, _, name = variable.path.rpartition("/")
        weights[f"{layer}/{TORCH_NAMES[name]}"] = to_torch_layout(layer, np.asarray(variable.value, np.float32))
    return weights


def to_keras(
    checkpoint: Checkpoint, *, encoder_only: bool = False, num_classes: int | None = None, labels: Labels | None = None
) -> SegFormer:
    """A Keras model with the checkpoint's weights.

    Args:
        checkpoint: from `read_checkpoint`.
        encoder_only: leave the decoder fresh, the paper's; `num_classes` is needed then.
        num_classes: give the model a fresh classifier for this many classes.
        labels: names of the fresh classifier's classes.

    Raises:
        InputError: an encoder alone without `encoder_only`, no number of classes, or weights that are not finite.
    """
    if not checkpoint.has_decoder and not encoder_only:
        raise InputError(f"{checkpoint.path}: an encoder alone; give --encoder-only and --num-classes")
    if num_classes is not None and num_classes < 2:
        raise InputError(f"--num-classes must be two or more, background among them. Received: {num_classes}")
    if encoder_only and num_classes is None:
        raise InputError("--encoder-only needs --num-classes, for the decoder is fresh")
    config = checkpoint.config
    if num_classes is not None:
        config = replace(config, num_classes=num_classes, labels=labels)
    if encoder_only:
        width = papers_width(list(config.embed_dims), list(config.depths))
        config = replace(config, decoder="all_mlp", decoder_width=width)
    model = SegFormer(config)
    for variable in model.weights:
        layer, _, name = variable.path.rpartition("/")
        if (encoder_only and layer.startswith("decoder")) or (num_classes and layer == "decoder/linear_pred"):
            continue
        variable.assign(to_keras_layout(layer, checkpoint.weights[f"{layer}/{TORCH_NAMES[name]}"]))
    if broken := first_non_finite(model):
        raise InputError(f"{checkpoint.path}: {broken} holds values that are no finite numbers")
    return model


def _whole(opened: Opened, labels: Labels | None) -> Checkpoint:
    """A checkpoint whose every key is used or dead."""
    path, tensors = opened.path, opened.tensors
    dialect, places = _recognize(path, tensors)
    wrap, root = places[0]
    if outside := sorted(key for key in tensors if not key.startswith(wrap)):
        some = f"{len(outside)} keys without the prefix {wrap!r} of the others: {outside[0]}"
        raise InputError(f"{path}: {some}; --drop 'REGEX' leaves keys out")
    tensors = {key.removeprefix(wrap): value for key, value in tensors.items()}
    tensors = _merged(opened, tensors, dialect, root)
    one_logit = two_logits(tensors, dialect)
    config, has_decoder = _config(opened, tensors, dialect, root)
    if has_decoder:
        settings = _settings(opened, dialect)
        names = class_names(path, settings, labels, config.num_classes, one_logit=one_logit)
        config = replace(config, labels=names)
    weights = place(path, tensors, dialect, root, config, has_decoder)
    notes = (*opened.notes, *_preprocessor(opened, dialect).notes)
    return Checkpoint(path, dialect, config, weights, has_decoder, one_logit, notes)


def _encoder(opened: Opened) -> Checkpoint:
    """The encoder of a checkpoint, whose every key is used or dead, whatever else there is."""
    path, tensors = opened.path, opened.tensors
    dialect, places = _recognize(path, tensors)
    if len(places) > 1:
        roots = " and ".join(repr("".join(place)) for place in places)
        raise InputError(f"{path}: {len(places)} encoders, {roots}; --drop 'REGEX' leaves one out")
    wrap, root = places[0]
    own = {key: value for key, value in tensors.items() if dialect.is_encoders(key, wrap, root)}
    others = sorted({key.removeprefix(wrap).split(".")[0] for key in tensors if key not in own})
    own = {key.removeprefix(wrap): value for key, value in own.items()}
    own = {
        key: value for key, value in _merged(opened, own, dialect, root).items() if dialect.is_encoders(key, "", root)
    }
    config, _ = _config(opened, own, dialect, root)
    weights = place(path, own, dialect, root, config, False)
    left = f"{path}: of its {len(tensors)} tensors the encoder's {len(own)} are taken; left out: {', '.join(others)}"
    notes = (*opened.notes, *([left] if others else []), *_preprocessor(opened, dialect).notes)
    return Checkpoint(path, dialect, config, weights, False, False, notes)


def _config(opened: Opened, tensors: Tensors, dialect: Dialect, root: str) -> tuple[SegFormerConfig, bool]:
    """The configuration but for labels, and whether there is a decoder."""
    path = opened.path
    if empty := sorted(key for key, value in tensors.items() if value.size == 0):
        raise InputError(f"{path}: {empty[0]} has no elements")
    config, has_decoder = network_sizes(path, tensors, dialect, root, _settings(opened, dialect))
    count = sum(value.size for value in tensors.values())
    if config.encoder_parameter_count > 2 * count:  # never build what the file cannot fill
        raise InputError(f"{path}: {count} numbers for an encoder of {config.encoder_parameter_count}")
    preprocessor = _preprocessor(opened, dialect)
    terms = opened.license or dialect.terms
    config = replace(config, license=terms, image_mean=preprocessor.mean, image_std=preprocessor.std)
    return config, has_decoder


def _settings(opened: Opened, dialect: Dialect) -> dict[str, Any]:
    return opened.settings if dialect.name in _DESCRIBED else {}


def _preprocessor(opened: Opened, dialect: Dialect) -> Preprocessor:
    return opened.preprocessor() if dialect.name in _DESCRIBED else Preprocessor()


def _merged(opened: Opened, tensors: Tensors, dialect: Dialect, root: str) -> Tensors:
    if opened.adapter is None:
        return tensors
    config, _ = network_sizes(opened.path, tensors, dialect, root, {})
    return opened.adapter.merged(tensors, dialect, root, config)


def _without(path: Path, tensors: Tensors, drop: Sequence[str]) -> Tensors:
    for pattern in drop:
        try:
            kept = {key: value for key, value in tensors.items() if not re.match(pattern, key)}
        except re.error as error:
            raise InputError(f"--drop {pattern!r} is no regular expression ({first_line(error)})") from None
        if len(kept) == len(tensors):
            raise InputError(f"{path}: --drop {pattern!r} matches no key, such as {min(tensors, default='')}")
        tensors = kept
    return tensors


def _recognize(path: Path, tensors: Tensors) -> tuple[Dialect, list[tuple[str, str]]]:
    for dialect in DIALECTS:
        if places := dialect.find(tensors):
            return dialect, sorted(places)
    some = ", ".join(sorted(tensors, reverse=True)[:3])
    names = ", ".join(dict.fromkeys(dialect.name for dialect in DIALECTS))
    raise InputError(f"{path}: keys of no SegFormer that is known here ({names}). Received: {some}, …")
