"""Metadata of an exported file: class names, colors, recipe, how to make its input.

Standard TFLite metadata keeps associated files as a zip behind the model's bytes, which the standard library reads:
``labels.txt`` (one name per line, for other TFLite tools too) and ``segformer.json`` (everything else).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from segformer_tf.config import check_bits
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels

LABELS_FILE = "labels.txt"
INFO_FILE = "segformer.json"
FORMAT = 2
_LARGEST = 1 << 20  # bytes of an associated file that is not refused as damaged
_CHUNK = 1 << 20  # bytes of the model that are hashed at a time

INPUT_CONTRACT = {
    "color": "RGB",
    "range": [0, 255],
    "orientation": "upright, EXIF applied",
    "resize": "stretched to the input size by Pillow's bilinear filter (antialiased)",
    "normalization": "inside the model",
}
OUTPUT_CONTRACT = {
    "content": "logits",
    "grid": "1/4 of the input size, rounded up",
    "mask": "arg-max of one half-pixel bilinear resize from the grid to the image's own size",
}


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of an exported file.

    Attributes:
        labels, recipe: class names with colors; name of its quantization.
        created: versions and options of the export, any JSON.
        license: terms of its weights, or "".
        bits: of the model's images, for `load_image`.
    """

    labels: Labels
    recipe: str
    created: dict[str, Any]
    license: str = ""
    bits: int | None = None

    @property
    def input_contract(self) -> dict[str, Any]:
        """How the input is made from an image."""
        return INPUT_CONTRACT if self.bits is None else {**INPUT_CONTRACT, "bits": self.bits}

    def facts(self) -> dict[str, Any]:
        """Everything but the names, as JSON has it."""
        return {
            "format": FORMAT,
            "recipe": self.recipe,
            "input": self.input_contract,
            "output": OUTPUT_CONTRACT,
            "palette": self.labels.to_dict()["colors"],
            "created": self.created,
            "license": self.license,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any], names: list[str], path: Path) -> Self:
        """Of what `facts` gave, and the names, as read from a file, `path`.

        Raises:
            InputError, AttributeError, KeyError, TypeError, ValueError: they are damaged.
        """
        labels = Labels.from_dict({"names": names, "colors": facts["palette"]})
        terms, bits = str(facts.get("license", "")), check_bits(facts["input"].get("bits"), name=f"{path}: bits")
        return cls(labels, str(facts["recipe"]), dict(facts["created"]), terms, bits)

    def files(self, model: bytes) -> dict[str, bytes]:
        """The associated files, by name, for the flatbuffer `model`, whose digest they hold."""
        info = {**self.facts(), "model": {"bytes": len(model), "sha256": sha256(model).hexdigest()}}
        return {
            LABELS_FILE: "\n".join(self.labels.names).encode(),
            INFO_FILE: json.dumps(info, indent=1).encode(),
        }


def find_model_info(path: str | Path) -> ModelInfo | None:
    """Read the metadata of a ``.tflite`` and check that its bytes are those that were exported.

    Returns:
        None for a TFLite file without metadata of this project.

    Raises:
        InputError: no such file, not a TFLite file, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected a .tflite, which `segformer export` makes of a run")
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise InputError(f"{path}: not a TFLite file")
        with zipfile.ZipFile(path) as archive:
            info = json.loads(_read(archive, INFO_FILE))
            names = _read(archive, LABELS_FILE).decode().split("\n")
        if info["format"] != FORMAT:
            raise InputError(f"{path}: metadata format {info['format']}, expected {FORMAT}; export the model again")
        _check_digest(path, info["model"])
        return ModelInfo.from_facts(info, names, path)
    except InputError:
        raise
    except (_NoMetadata, zipfile.BadZipFile):
        return None
    # zipfile raises NotImplementedError for a compression it cannot read, RuntimeError for an encrypted entry.
    except (OSError, AttributeError, KeyError, TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: its metadata is damaged ({error})") from None


def read_model_info(path: str | Path) -> ModelInfo:
    """`find_model_info` for a file that must have metadata; raises InputError if it has none."""
    info = find_model_info(path)
    if info is None:
        raise InputError(
            f"{path}: not a model exported by `segformer export`, or an incomplete copy of one; "
            "a model from elsewhere needs its class names given (--labels)"
        )
    return info


class _NoMetadata(Exception):
    """A zip with other files in it."""


def _check_digest(path: Path, model: dict[str, Any]) -> None:
    digest, left = sha256(), int(model["bytes"])
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != model["sha256"]:
        raise InputError(f"{path}: damaged: its bytes are not those that were exported; copy or export it again")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if name not in archive.namelist():
        raise _NoMetadata
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} is larger than {_LARGEST} bytes")
    return archive.read(name)
