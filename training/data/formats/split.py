"""Cuts pictures into train, val and test by a seed, groups whole; or keeps the splits that an export states."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from math import isfinite

from segformer_tf.errors import InputError, counted

SHARES = (0.8, 0.1, 0.1)
_NAMES = ("train", "val", "test")


def to_shares(parts: Sequence[float]) -> list[float]:
    """Shares that add up to 1 of train, val and test, or of train and val.

    Args:
        parts: shares, or whole numbers as proportions, such as 8, 1, 1; fractions of another sum are likely a slip.

    Raises:
        InputError: anything else, and nothing for train or val.
    """
    usable = len(parts) in (2, 3) and all(part >= 0 and isfinite(part) for part in parts) and parts[0] and parts[1]
    whole = all(float(part).is_integer() for part in parts)
    if not usable or not (whole or abs(sum(parts) - 1) < 1e-6):
        text = " ".join(map(str, parts))
        raise InputError(
            "--split: expected shares of train, val and test that add up to 1, such as 0.8 0.1 0.1, or whole numbers, "
            f"such as 8 1 1. Received: {text}"
        )
    return [part / sum(parts) for part in parts]


def groups_of(names: Sequence[str], pattern: str | None) -> list[str]:
    """The group of each name: what the pattern's parentheses hold, or all that it matches; the name itself without one.

    Raises:
        InputError: not a regular expression, or a name that it does not match.
    """
    if pattern is None:
        return list(names)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group {pattern}: not a regular expression ({error})") from None
    matches = [compiled.search(name) for name in names]
    if lone := [name for name, match in zip(names, matches, strict=True) if match is None]:
        raise InputError(f"--group {pattern}: does not match {lone[0]!r} ({len(lone)} of {len(names)})")
    return ["\0".join(part or "" for part in match.groups() or (match[0],)) for match in matches if match]


def states_splits(stated: Sequence[str | None]) -> bool:
    """Whether an export states splits to train with: train and another.

    Raises:
        InputError: val and test alone.
    """
    known = {split for split in stated if split}
    if len(known) > 1 and "train" not in known:
        raise InputError(f"states {' and '.join(sorted(known))} but no train; --split 0.8 0.1 0.1 cuts all images anew")
    return len(known) > 1 and None not in stated


def straddling(groups: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Groups in more than one split."""
    where = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        where[group].add(split)
    return sorted(group for group, own in where.items() if len(own) > 1)


def cut(groups: Sequence[str], shares: Sequence[float], seed: int) -> list[str]:
    """The split of each picture.

    Groups come by size, those of one size as the seed decides, each into the split that lacks most pictures. A split
    of a share above 0 gets a group at least.

    Args:
        groups: of each picture, in an order that does not depend on the machine.
        shares: of train, val and perhaps test.
        seed: of the order.

    Raises:
        InputError: fewer groups than splits.
    """
    members: dict[str, int] = defaultdict(int)
    for group in groups:
        members[group] += 1
    wanted = {name: share * len(groups) for name, share in zip(_NAMES, shares, strict=False) if share}
    order = sorted(members)
    if len(order) < len(wanted):
        what = "image" if len(order) == len(groups) else "group"
        raise InputError(
            f"{counted(len(order), what)} cannot be cut into {len(wanted)} splits; --split 0.5 0.5 makes two, and "
            "--group decides what stays together"
        )
    random.Random(seed).shuffle(order)
    order.sort(key=members.__getitem__, reverse=True)  # small ones fill up
    lacking, split_of, empty = dict(wanted), dict[str, str](), set(wanted)
    for place, group in enumerate(order):
        left = len(order) - place
        among = empty if len(empty) == left else lacking.keys()
        name = max(among, key=lambda split: (lacking[split], -_NAMES.index(split)))
        split_of[group] = name
        lacking[name] -= members[group]
        empty.discard(name)
    return [split_of[group] for group in groups]
