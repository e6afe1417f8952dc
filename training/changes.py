"""What a resumed run may change of its options, and what that means for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from segformer_tf.errors import InputError
from training.config import RunConfig, option

# They affect neither the model nor the order of the data.
CHANGEABLE = ("accumulate", "epochs", "eval_size", "patience", "steps")

Config = TypeVar("Config", bound=RunConfig)

_NOTES = {
    "eval_size": "; scores from here on are of this size, and the best weights are chosen anew by them",
    "steps": "; the rate falls to 0 at the new end, so it is higher from here on than it was to be",
}


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The options of a run that is resumed with other values of some options in `CHANGEABLE`.

    Raises:
        InputError: an option that a run keeps from its start, or fewer steps or epochs.
    """
    changeable = [name for name in CHANGEABLE if name in {field.name for field in fields(config)}]
    if fixed := sorted(set(changes) - set(changeable)):
        raise InputError(
            f"--resume keeps the options of the run, and takes {', '.join(map(option, changeable))} alone. "
            f"Received: {option(fixed[0])}"
        )
    length = sorted({"epochs", "steps"} & set(changes))
    if not length:
        return replace(config, **changes)
    if len(length) == 2:
        raise InputError("--epochs is instead of --steps. Received: both")
    (name,), one = length, config.epoch_length  # finished epochs have this length, and keep it
    before, now = getattr(config, name), changes[name]
    if before is None and name == "epochs":
        raise InputError(
            f"--epochs is for runs that began with it; this one validates every {one} steps, so give --steps, "
            f"a multiple of that. Received: --epochs {now}"
        )
    before = config.total_steps if before is None else before
    if now < before:
        raise InputError(f"{option(name)} of a run can only grow, from {before}. Received: {now}")
    steps = now * one if name == "epochs" else now
    epochs = None if config.epochs is None else steps // one
    return replace(config, **{**changes, "steps": steps, "epochs": epochs, "epoch_steps": one})


def changes_since(before: Config, config: Config) -> list[str]:
    """A line for each option of `CHANGEABLE` that differs from `before`."""
    pairs = {name: (getattr(before, name, None), getattr(config, name, None)) for name in CHANGEABLE}
    return [
        f"{option(name)}: {_plain(old)} -> {_plain(new)}{_NOTES.get(name, '')}"
        for name, (old, new) in pairs.items()
        if old != new
    ]


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
