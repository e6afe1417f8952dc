"""What may be asked anew of a run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from segformer_tf.errors import InputError
from training.config import RunConfig

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)

# They change neither the model nor the order of the data.
CHANGEABLE = ("eval_size", "accumulate", "steps")


def with_changes(config: AnyConfig, changes: Mapping[str, Any]) -> AnyConfig:
    """What is asked of a run from here on.

    Args:
        config: what was asked of it.
        changes: options by name.

    Raises:
        InputError: an option that a run keeps from its start, or fewer steps.
    """
    takes = [field.name for field in fields(config) if field.name in CHANGEABLE]
    if other := sorted(set(changes) - set(takes)):
        raise InputError(
            f"--resume goes on with what the run was asked for, and takes {', '.join(map(_option, sorted(takes)))} "
            f"alone beside. Received: {_option(other[0])}"
        )
    if "steps" in changes:
        if changes["steps"] < config.steps:
            raise InputError(f"--steps of a run can only grow, from {config.steps}. Received: {changes['steps']}")
        # epochs that are done had so many
        config = replace(config, epoch_steps=min(config.epoch_steps, config.steps))
    return replace(config, **changes)


def told_changes(before: RunConfig, now: RunConfig) -> list[str]:
    """A line for each option of `CHANGEABLE` that changed."""
    notes = {
        "eval_size": "; scores from here on are of this size, and the best weights are chosen anew by them",
        "steps": "; the rate falls to 0 at the new end, so it is higher from here on than it was to be",
    }
    pairs = {name: (getattr(before, name, None), getattr(now, name, None)) for name in CHANGEABLE}
    return [
        f"{_option(name)}: {_plain(was)} -> {_plain(value)}{notes.get(name, '')}"
        for name, (was, value) in pairs.items()
        if was != value
    ]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
