"""TFDS data sets, prepared for random access; whatever goes wrong is one line."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

import training.data.tfds.builders
import training.data.tfds.toy  # noqa: F401  both register what they build
from segformer_tf.errors import InputError, first_line
from segformer_tf.image import Pixels
from training.data.tfds.table import DATA_SETS
from training.lock import locked

_RETRY = "start again to go on"


def open_builder(name: str) -> Any:
    """The TFDS builder of a data set, nothing downloaded yet.

    Raises:
        InputError: no such data set, or a copy of it without random access.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # Random access needs the array_record format.
        builder = tfds.builder(name, file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except tfds.core.DatasetNotFoundError:
        raise InputError(
            f"tfds:{name}: no such TFDS data set; with masks there are {', '.join(DATA_SETS)}, toy_shapes"
        ) from None
    except Exception as error:  # of a name, or of a prepared copy of another format or damaged
        reason = re.sub(r'^Failed to construct dataset .*?"{.*?}": ', "", first_line(error))
        raise InputError(
            f"tfds:{name}: {reason} (a copy there is already, in TFDS_DATA_DIR or ~/tensorflow_datasets, must be whole "
            "and of the array_record format, for random access)"
        ) from None
    if builder.name == "scene_parse150":
        raise InputError(f"tfds:{name} holds the instance challenge's labels; ADE20K's 150 classes are in tfds:ade20k")
    return builder


def prepare(name: str, builder: Any) -> Any:
    """Download and prepare, unless that was done, by one process at a time; the builder of what is there then.

    TFDS tries for three minutes where there is no network.

    Raises:
        InputError: whatever went wrong, and what helps.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a warning for every try
    try:
        with _alone(Path(builder.data_dir_root)):
            builder = open_builder(name)  # another process may have prepared it
            # TFDS' bucket has no array_record, and asking it takes a network
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except InputError:
        raise
    except Exception as error:  # builders, and what they download and unpack with, raise anything
        raise InputError(f"tfds:{name}: {_reason(builder, error)}") from None
    if builder.data_path.exists() and not builder.info.splits:
        raise InputError(f"tfds:{name}: {builder.data_dir} is not a prepared data set; remove it and {_RETRY}")
    return builder


def _alone(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder while it is written to; waits for another process that does."""
    folder.mkdir(parents=True, exist_ok=True)

    def wait() -> None:
        print(f"{folder}: waiting for another process that prepares data", file=sys.stderr)

    return locked(folder / ".lock", when_busy=wait)


def open_records(name: str, builder: Any, split: str, *, splits: dict[str, str], pictures: Sequence[str]) -> Any:
    """Random access to a split of a prepared data set; pictures as the bytes of their files, for Pillow.

    Args:
        name: as the user gave it.
        builder: prepared.
        split: one of `splits`, or of TFDS's own words, such as ``train[:10%]``; "val" is also found as "validation".
        splits: TFDS's name of each split, by ours; without a train, val or test that is not usable.
        pictures: keys of the features that are images.

    Raises:
        InputError: no such split, or records that cannot be read.
    """
    theirs = splits.get(split, "validation" if split == "val" else split)
    try:
        if split in ("train", "val", "test") and theirs not in (*splits.values(), *splits):
            raise KeyError(split)  # TFDS may have it, without labels
        return builder.as_data_source(theirs, decoders={key: tfds.decode.SkipDecoding() for key in pictures})
    except (KeyError, ValueError):
        raise InputError(f"tfds:{name}: no split {split!r}; splits: {', '.join(splits)}") from None
    except Exception as error:  # the reader of records, of shards that are missing or damaged
        raise InputError(
            f"tfds:{name}: {builder.data_dir} is damaged ({first_line(error)}); remove it and {_RETRY}"
        ) from None


def rgb(content: bytes) -> Pixels:
    """The pixels of a picture's file."""
    with Image.open(BytesIO(content)) as opened:
        return np.asarray(opened.convert("RGB"))


def _reason(builder: Any, error: BaseException) -> str:
    """What went wrong in a preparation, and what helps."""
    manual = Path(builder.data_dir_root) / "downloads" / "manual"
    chain = list(_causes(error))
    for each in chain:
        if isinstance(each, InputError):
            return str(each)
        if isinstance(each, AssertionError) and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            return f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())} Put them into {manual}, and {_RETRY}"
        if url := _failed_url(each):
            own = {url: file for file, url in getattr(builder, "URLS", {}).items()}
            known = (builder.url_infos or {}).get(url)
            file = own.get(url) or (known.filename if known else None)
            hint = f", or put {file} into {manual}" if file else ""
            return f"{url}: not downloaded ({_network_reason(each)}); {_RETRY}{hint}"
    if found := re.match(r"Error while extracting (.+?) to .+?: (.*)", first_line(error)):
        return f"{found.group(1)}: a damaged archive ({found.group(2)}); remove it and {_RETRY}"
    return f"{first_line(error)}; {_RETRY} when that is mended"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _failed_url(error: BaseException) -> str | None:
    """The URL of an error of requests, or of TFDS' about a status or a checksum."""
    url = getattr(getattr(error, "request", None), "url", None)
    found = re.search(r"(?:get url|Artifact) (\S+?)[.,]? ", str(error))
    return url or (found.group(1) if found else None)


def _network_reason(error: BaseException) -> str:
    for pattern in (r"HTTP code: \d+", r"wrong checksum", r"\[Errno -?\d+\] ([\w ]+)", r"timed out"):
        if found := re.search(pattern, str(error)):
            return found.group(found.lastindex or 0)
    return first_line(error)
