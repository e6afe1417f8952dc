"""The manifest that a folder without one would need, taken from its masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError
from training.data.folder.cut import choose_cut
from training.data.folder.manifest import Manifest
from training.data.folder.mask_classes import find_classes
from training.data.folder.splits import split_files, splits_in

SHARE = 0.1  # of validation, where it is cut from train


@dataclass(frozen=True)
class Assumption:
    """What is assumed of a folder.

    Attributes:
        data: of a manifest.
        notes: a line on each decision.
    """

    data: dict[str, Any]
    notes: list[str]


def assume(root: Path, *, quiet: bool = False) -> Assumption | None:
    """Classes and colors from the masks, and a validation split cut from train where there is none.

    A cut keeps every class in train if any does.

    Args:
        root: a folder without a manifest.
        quiet: show no progress.

    Returns:
        None where `root` holds no split.

    Raises:
        InputError: see `find_classes`, and one image alone, which cannot be cut.
    """
    splits = splits_in(root)
    if "train" not in splits:
        return None
    files = {name: split_files(root, name) for name in splits}
    masks = [path for own in files.values() for path in own.masks]
    found = find_classes(masks, root, remedy=f"write {root / 'dataset.json'} by hand", quiet=quiet)
    data: dict[str, Any] = {"name": root.resolve().name, "classes": found.classes, "ignore": found.ignore}
    notes = list(found.notes)
    if "val" not in splits and "valid" not in splits:
        train = files["train"]
        if len(train.images) < 2:
            raise InputError(f"{train.folder}: one image cannot be cut into train and validation")
        stems, shown_by = [path.stem for path in train.images], dict(zip(masks, found.shown, strict=True))
        cut = choose_cut(stems, [shown_by[path] for path in train.masks], SHARE)
        data["validation"] = {"share": cut.share, "seed": cut.seed}
        notes.append(
            f"no val: {len(cut.validation(stems))} of the {len(stems)} images of train are kept for validation, by "
            f"their names, a share of {cut.share} and the seed {cut.seed}; frames of one scene can lie on both sides"
        )
    Manifest.of(data, root / "dataset.json")
    return Assumption(data, notes)
