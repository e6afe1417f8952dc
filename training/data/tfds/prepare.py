"""Prepares TFDS data sets for random access; every failure becomes an InputError."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

import training.data.tfds.builders
import training.data.tfds.toy  # noqa: F401  both register builders
from segformer_tf.errors import InputError, first_line
from training.data.tfds.data_sets import DATA_SETS
from training.lock import locked

_RETRY = "start again to go on"


def open_builder(name: str) -> Any:
    """The TFDS builder of a data set; nothing is downloaded yet.

    Raises:
        InputError: no such data set, or a damaged copy or one of another format.
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
    except Exception as error:  # an invalid name, or a prepared copy that is damaged or of another format
        reason = re.sub(r'^Failed to construct dataset .*?"{.*?}": ', "", first_line(error))
        raise InputError(
            f"tfds:{name}: {reason} (a copy that exists already, in TFDS_DATA_DIR or ~/tensorflow_datasets, must be "
            "complete and in the array_record format, for random access)"
        ) from None
    if builder.name == "scene_parse150":
        raise InputError(f"tfds:{name} holds the instance challenge's labels; ADE20K's 150 classes are in tfds:ade20k")
    return builder


def open_records(name: str, builder: Any, split: str, *, splits: dict[str, str] | None = None) -> Any:
    """Random access to the records of a split, prepared if needed; images come as the bytes of their files.

    One process at a time downloads and prepares. TFDS tries for three minutes where there is no network.

    Args:
        name: the user's name of the data set.
        builder: of the data set.
        split: one of `splits`, or a TFDS expression such as ``train[:10%]``; "val" also finds "validation".
        splits: TFDS's name of each split, by ours; without, all of TFDS's. No other train, val or test is accepted.

    Raises:
        InputError: no such split, a preparation that failed, or unreadable records; the message says what helps.
    """
    builder = _prepare(name, builder)
    splits = splits or {each: each for each in builder.info.splits}
    theirs = splits.get(split, "validation" if split == "val" else split)
    pictures = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    try:
        if split in ("train", "val", "test") and theirs not in (*splits.values(), *splits):
            raise KeyError(split)  # TFDS may have it, without labels
        return builder.as_data_source(theirs, decoders={key: tfds.decode.SkipDecoding() for key in pictures})
    except (KeyError, ValueError):
        raise InputError(f"tfds:{name}: no split {split!r}; splits: {', '.join(splits)}") from None
    except Exception as error:  # the reader of records raises anything for missing or damaged shards
        raise InputError(
            f"tfds:{name}: {builder.data_dir} is damaged ({first_line(error)}); remove it and {_RETRY}"
        ) from None


def _prepare(name: str, builder: Any) -> Any:
    """Download and prepare unless that is done; a builder of the result."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else a warning for every try
    folder = Path(builder.data_dir_root)

    def wait() -> None:
        print(f"{folder}: waiting for another process that prepares data", file=sys.stderr)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", when_busy=wait):
            builder = open_builder(name)  # another process may have prepared it
            # TFDS's bucket has no array_record, and asking it takes a network
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except InputError:
        raise
    except Exception as error:  # builders, downloads and archives raise anything
        raise InputError(f"tfds:{name}: {_reason(builder, error)}") from None
    if builder.data_path.exists() and not builder.info.splits:
        raise InputError(f"tfds:{name}: {builder.data_dir} is not a prepared data set; remove it and {_RETRY}")
    return builder


def _reason(builder: Any, error: BaseException) -> str:
    """Why a preparation failed, and what helps."""
    manual = Path(builder.data_dir_root) / "downloads" / "manual"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        if isinstance(cause, AssertionError) and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            return f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())} Put them into {manual}, and {_RETRY}"
        if url := _failed_url(cause):
            ours = {url: file for file, url in getattr(builder, "URLS", {}).items()}
            info = (builder.url_infos or {}).get(url)
            file = ours.get(url) or (info.filename if info else None)
            hint = f", or put {file} into {manual}" if file else ""
            return f"{url}: not downloaded ({_network_reason(cause)}); {_RETRY}{hint}"
        cause = cause.__cause__ or cause.__context__
    if match := re.match(r"Error while extracting (.+?) to .+?: (.*)", first_line(error)):
        return f"{match.group(1)}: a damaged archive ({match.group(2)}); remove it and {_RETRY}"
    return f"{first_line(error)}; {_RETRY} when that is fixed"


def _failed_url(error: BaseException) -> str | None:
    """The URL in an error of requests, or in one of TFDS about a status or a checksum."""
    url = getattr(getattr(error, "request", None), "url", None)
    match = re.search(r"(?:get url|Artifact) (\S+?)[.,]? ", str(error))
    return url or (match.group(1) if match else None)


def _network_reason(error: BaseException) -> str:
    for pattern in (r"HTTP code: \d+", r"wrong checksum", r"\[Errno -?\d+\] ([\w ]+)", r"timed out"):
        if match := re.search(pattern, str(error)):
            return match.group(match.lastindex or 0)
    return first_line(error)
