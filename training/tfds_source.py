"""A TFDS data set as a `Source`: the builder, its preparation, its records; whatever goes wrong is one line."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

import training.datasets.builders
import training.toy  # noqa: F401  both register what they build
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from training.datasets.table import DATA_SETS, DataSet
from training.mapping import class_indices, mapping_table
from training.sources import Sample, mask_values

_RETRY = "start again to go on"


class TfdsSource:
    """A split of a TFDS data set that has one RGB image and one mask among its features.

    What its mask values mean is told by `DATA_SETS`, or by a LabeledImage feature. Splits are train, val, test, or
    any that TFDS reads, such as ``train[:10%]``.
    """

    def __init__(self, name: str, split: str) -> None:
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        builder = _builder(name)
        row = DATA_SETS.get(builder.name)
        features = builder.info.features
        self.name = builder.info.name
        self.license = row.license if row else ""
        self._image_key, self._mask_key = _image_and_mask_keys(name, features)
        self.labels, self._table = _meaning(name, row, features[self._mask_key])
        _prepare(name, builder)
        self._records = _records(name, builder, row, split, (self._image_key, self._mask_key))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        try:
            record = self._records[index]
            with Image.open(BytesIO(record[self._image_key])) as opened:
                image = np.asarray(opened.convert("RGB"))
            with Image.open(BytesIO(record[self._mask_key])) as opened:
                raw = mask_values(opened)
        except Exception as error:  # readers of records and pictures raise whatever a broken file leads them to
            raise InputError(f"{self.name} sample {index}: not readable ({_line(error)})") from None
        if raw.shape != image.shape[:2]:
            raise InputError(f"{self.name} sample {index}: mask is {raw.shape}, its image {image.shape[:2]}")
        try:
            return image, class_indices(raw, self._table, known_to=self.name)
        except InputError as error:
            raise InputError(f"{self.name} sample {index}: {error}") from None


def _builder(name: str) -> Any:
    try:
        # Random access needs the array_record format.
        builder = tfds.builder(name, file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except tfds.core.DatasetNotFoundError:
        raise InputError(
            f"tfds:{name}: no such TFDS data set; with semantic masks there are {', '.join(DATA_SETS)}, toy_shapes"
        ) from None
    except Exception as error:  # of a name, or of a prepared copy of another format or damaged
        reason = re.sub(r'^Failed to construct dataset .*?"{.*?}": ', "", _line(error))
        raise InputError(
            f"tfds:{name}: {reason} (a copy there is already, in TFDS_DATA_DIR or ~/tensorflow_datasets, must be whole "
            "and of the array_record format, for random access)"
        ) from None
    if builder.name == "scene_parse150":
        raise InputError(f"tfds:{name} holds the instance challenge's labels; ADE20K's 150 classes are in tfds:ade20k")
    return builder


def _image_and_mask_keys(name: str, features: Any) -> tuple[str, str]:
    channels = {key: f.shape[-1] for key, f in features.items() if isinstance(f, tfds.features.Image)}
    images = [key for key, c in channels.items() if c == 3]
    masks = [key for key, c in channels.items() if c == 1]
    if len(images) != 1 or len(masks) != 1:
        raise InputError(
            f"tfds:{name}: expected one RGB image and one mask of one channel. "
            f"Received: images {images}, masks {masks} among {sorted(features)}"
        )
    return images[0], masks[0]


def _meaning(name: str, row: DataSet | None, feature: Any) -> tuple[Labels, NDArray[np.int16]]:
    if row:
        return row.labels, row.table()
    names = getattr(feature, "names", None)
    if names is None:
        raise InputError(
            f"tfds:{name}: its mask names no classes; expected a LabeledImage feature, or one of {', '.join(DATA_SETS)}"
        )
    return Labels.named(names), mapping_table(range(len(names)))


def _prepare(name: str, builder: Any) -> None:
    """Download and prepare, unless that was done. TFDS tries for three minutes where there is no network."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a warning for every try
    try:
        # TFDS' bucket has no array_record, and asking it takes a network
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except Exception as error:  # builders, and what they download and unpack with, raise anything
        raise InputError(f"tfds:{name}: {_reason(builder, error)}") from None
    if builder.data_path.exists() and not builder.info.splits:
        raise InputError(f"tfds:{name}: {builder.data_dir} is not a prepared data set; remove it and {_RETRY}")


def _records(name: str, builder: Any, row: DataSet | None, split: str, keys: tuple[str, str]) -> Any:
    """Random access to a split; images and masks as the bytes of their files, for Pillow."""
    splits = row.splits if row else {each: each for each in builder.info.splits}
    theirs = splits.get(split, "validation" if split == "val" else split)
    try:
        if row and split in ("train", "val", "test") and split not in splits:
            raise KeyError(split)  # TFDS may have it, without labels
        return builder.as_data_source(theirs, decoders={key: tfds.decode.SkipDecoding() for key in keys})
    except (KeyError, ValueError):
        raise InputError(f"tfds:{name}: no split {split!r}; splits: {', '.join(splits)}") from None
    except Exception as error:  # the reader of records, of shards that are missing or damaged
        raise InputError(
            f"tfds:{name}: {builder.data_dir} is damaged ({_line(error)}); remove it and {_RETRY}"
        ) from None


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
    if found := re.match(r"Error while extracting (.+?) to .+?: (.*)", _line(error)):
        return f"{found.group(1)}: a damaged archive ({found.group(2)}); remove it and {_RETRY}"
    return f"{_line(error)}; {_RETRY} when that is mended"


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
    return _line(error)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
