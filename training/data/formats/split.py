"""Cuts pictures into train, val and test by a seed, groups whole; or keeps the splits that an export states."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from segformer_tf.errors import InputError

SHARES = (0.8, 0.1, 0.1)
_NAMES = ("train", "val", "test")


def check_shares(shares: Sequence[float]) -> None:
    """Raises InputError unless `shares` are those of train, val and test, or of train and val."""
    usable = len(shares) in (2, 3) and all(0 <= share <= 1 for share in shares) and abs(sum(shares) - 1) < 1e-6
    if not usable or not shares[0] or not shares[1]:
        text = " ".join(map(str, shares))
        raise InputError(f"--split: expected shares of train, val and test that add up to 1. Received: {text}")


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
        what = "images" if len(order) == len(groups) else "groups"
        raise InputError(
            f"{len(order)} {what} cannot be cut into {len(wanted)} splits; --split 0.5 0.5 makes two, and --group "
            "decides what stays together"
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
