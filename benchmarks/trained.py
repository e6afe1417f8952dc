"""A training that a benchmark needs once: it goes on where it was stopped, and one that is finished is not repeated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segformer_tf.errors import InputError
from training.config import RunConfig, option

if TYPE_CHECKING:
    from training.runs.folder import Run

_OTHERWISE = ("out", "teacher", "weights")  # out is the same, and a run looks at the others itself


def trained(config: RunConfig) -> Run:
    """The finished run in ``config.out``.

    Raises:
        InputError: a run of other options is there, or for the same reasons as `training.train.train`.
    """
    from training.train import resume, train  # TensorFlow

    root, kind = config.out, type(config)
    assert root is not None
    if not root.exists():
        return train(config)
    before = kind.read(root)
    for name in sorted(config.explicit.difference(_OTHERWISE)):
        expected, has = (_absolute(name, getattr(each, name)) for each in (config, before))
        if expected is not None and expected != has:
            raise InputError(
                f"{root}: a run of other options is there, with {option(name)} {has}. Expected: {expected}. Give "
                "another --out, or remove it"
            )
    return resume(root, kind)


def _absolute(name: str, value: Any) -> Any:
    """The value of an option as ``config.json`` has it."""
    if name == "more_data":
        return tuple(_absolute("data", each) for each in value)
    return str(Path(value).resolve()) if name == "data" and not value.startswith("tfds:") else value
