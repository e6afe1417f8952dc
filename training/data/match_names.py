"""Matches a model's classes with a data set's by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segformer_tf.errors import InputError
from segformer_tf.labels import Labels


@dataclass(frozen=True)
class Match:
    """The data set's class for each of a model's classes.

    Attributes:
        order: (C,) uint8, the data set's class of each of the model's; None where they are the same.
        note: one line for the user, or "".
    """

    order: NDArray[np.uint8] | None = None
    note: str = ""


def match_names(ours: Labels | None, theirs: Labels, *, count: int) -> Match:
    """Match a model's classes with those of the data that it is scored on.

    The same names may come in another order. Names that differ are compared again without case and extra spaces.

    Args:
        ours: the model's labels; None where it has none.
        theirs: the data's labels.
        count: the number of the model's classes.

    Raises:
        InputError: another number of classes, or other names.
    """
    if count != len(theirs.names):
        raise InputError(f"has {count} classes, the data {len(theirs.names)}")
    if ours is None or ours.names == theirs.names:
        return Match() if ours else Match(note="its classes have no names: taken in the order of the data's")
    for whose, labels in (("its classes", ours), ("the data's classes", theirs)):
        if set(ours.names) != set(theirs.names) and _numbered(labels.names):
            return Match(note=f"{whose} are numbered, not named: taken in the same order")
    for simplify in (tuple, _without_case):
        model, data = simplify(ours.names), simplify(theirs.names)
        if model == data:
            return Match(note="names of classes differ from the data's in case or spaces alone: taken as the same")
        if len(set(model)) == count and set(model) == set(data):
            order = np.array([data.index(name) for name in model], np.uint8)
            first = int(np.argmax(order != np.arange(count)))
            return Match(
                order,
                f"its classes come in another order than the data's and are matched by name: {ours.names[first]} is "
                f"class {first} in the model and {order[first]} in the data",
            )
    first = next(i for i, pair in enumerate(zip(model, data, strict=True)) if pair[0] != pair[1])
    raise InputError(
        f"has other classes than the data: class {first} is {ours.names[first]!r} in the model and "
        f"{theirs.names[first]!r} in the data; where they are the same under other names, give the data the model's in "
        "dataset.json, or a copy of the model the data's by segformer export --labels"
    )


def _numbered(names: tuple[str, ...]) -> bool:
    """Whether these are the names that this project or transformers gives classes without one."""
    return any(names == tuple(f"{word}{i}" for i in range(len(names))) for word in ("class ", "LABEL_"))


def _without_case(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(name.casefold().split()) for name in names)
