"""TFDS data sets, prepared for random access, with one line for what can go wrong."""

from __future__ import annotations

import logging
import sys
from typing import Any

from segformer_tf.errors import InputError


def open_builder(name: str) -> Any:
    """The TFDS builder of a data set, nothing downloaded yet.

    Raises:
        InputError: no such data set, or one prepared in a format without random access.
    """
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV; Pillow is the contract
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        return tfds.builder(name, file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except tfds.core.DatasetNotFoundError:
        raise InputError(f"tfds:{name}: no such TFDS data set") from None
    except (AssertionError, ValueError) as error:
        raise InputError(
            f"tfds:{name}: {_first_line(error)} (random access needs the array_record format: "
            "a copy prepared in another goes elsewhere with TFDS_DATA_DIR)"
        ) from None


def open_records(builder: Any, split: str) -> Any:
    """The decoded records of a split by number, the data set downloaded and prepared where it is not yet.

    `split` may be of TFDS's slices, such as ``train[:90%]``; "val" is also found as "validation".

    Raises:
        InputError: no such split, or files that must be fetched by hand are not there.
    """
    try:
        builder.download_and_prepare()
    except AssertionError as error:
        raise InputError(f"tfds:{builder.name}: {_first_line(error)}") from None
    try:
        return builder.as_data_source("validation" if split == "val" and "val" not in builder.info.splits else split)
    except (KeyError, ValueError):
        splits = ", ".join(builder.info.splits)
        raise InputError(f"tfds:{builder.name}: no split {split!r}; splits: {splits}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
