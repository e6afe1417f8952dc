"""Splits: shares, seeds, groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segformer_tf.errors import InputError
from training.data.formats.split import cut, groups_of, states_splits, straddling, to_shares

NAMES = [f"drive{i // 5}_{i:03}" for i in range(50)]


def test_shares_and_seeds() -> None:
    first = cut(NAMES, (0.8, 0.1, 0.1), 0)
    assert [first.count(split) for split in ("train", "val", "test")] == [40, 5, 5]
    assert cut(NAMES, (0.8, 0.1, 0.1), 0) == first
    assert cut(NAMES, (0.8, 0.1, 0.1), 1) != first
    back = cut(NAMES[::-1], (0.8, 0.1, 0.1), 0)[::-1]
    assert back == first  # the order of files does not matter
    assert cut(NAMES, (0.5, 0.5), 0).count("val") == 25
    assert sorted(cut(["a", "b", "c"], (0.98, 0.01, 0.01), 0)) == ["test", "train", "val"]
    assert "test" not in cut(NAMES, (0.9, 0.1, 0.0), 0)


def test_whole_numbers_are_proportions() -> None:
    assert to_shares((8, 1, 1)) == [0.8, 0.1, 0.1]
    assert to_shares((80, 20)) == [0.8, 0.2]
    assert to_shares((0.7, 0.2, 0.1)) == pytest.approx([0.7, 0.2, 0.1])
    assert cut(NAMES, to_shares((8, 1, 1)), 3) == cut(NAMES, (0.8, 0.1, 0.1), 3)


@given(st.lists(st.integers(0, 9), min_size=30, max_size=60), st.integers(0, 99))
def test_groups_stay_together(numbers: list[int], seed: int) -> None:
    groups = [str(n) for n in [*numbers, 0, 1, 2]]
    splits = cut(groups, (0.6, 0.2, 0.2), seed)
    assert not straddling(groups, splits)
    assert set(splits) == {"train", "val", "test"}


def test_groups_are_what_the_pattern_says() -> None:
    assert len(set(groups_of(NAMES, r"(.*)_\d+"))) == 10
    assert len(set(groups_of(NAMES, r"drive\d"))) == 10
    assert groups_of(["a/1x", "b/1y"], r"(\d)(x)?")[0] == "1\0x"
    with pytest.raises(InputError, match=r"--group x: does not match 'drive0_000' \(50 of 50\)"):
        groups_of(NAMES, "x")
    with pytest.raises(InputError, match=r"--group \(: not a regular expression"):
        groups_of(NAMES, "(")


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(InputError, match="2 images cannot be cut into 3 splits"):
        cut(["a", "b"], (0.8, 0.1, 0.1), 0)
    with pytest.raises(InputError, match="1 group cannot be cut into 2 splits"):
        cut(["a", "a"], (0.8, 0.2), 0)
    for shares in (
        (0.8,),
        (0.8, 0.3),
        (0.7, 0.2),
        (8, 1.5, 1),
        (8, 1, float("inf")),
        (1.0, 0.0),
        (0.0, 1.0),
        (1.2, -0.2),
        (0.8, 0.1, 0.05, 0.05),
        (float("nan"), 1.0),
    ):
        with pytest.raises(InputError, match="--split: expected shares"):
            to_shares(shares)
    with pytest.raises(InputError, match="states test and val but no train"):
        states_splits(["test", "val"])
    assert states_splits(["train", "val"])
    assert not states_splits(["train", "train"])
    assert not states_splits(["train", "val", None])
