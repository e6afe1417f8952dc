"""What an exported file says of itself.

Standard TFLite metadata keeps associated files as a zip behind the model's bytes, so the zip reader of the
standard library is all a device needs: ``labels.txt`` (one name a line, the file that other TFLite tools
read too) and ``segformer.json`` (colours, recipe, input contract).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError
from segformer_tf.labels import Labels

LABELS_FILE = "labels.txt"
INFO_FILE = "segformer.json"
FORMAT = 1
_LARGEST = 1 << 20  # bytes of an associated file that is still believed

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
    """Labels and recipe of an exported file, and what made it (free JSON)."""

    labels: Labels
    recipe: str
    created: dict[str, Any]

    def files(self) -> dict[str, bytes]:
        """The associated files that hold this, by name."""
        info = {
            "format": FORMAT,
            "recipe": self.recipe,
            "input": INPUT_CONTRACT,
            "output": OUTPUT_CONTRACT,
            "palette": self.labels.to_dict()["colors"],
            "created": self.created,
        }
        return {
            LABELS_FILE: "\n".join(self.labels.names).encode(),
            INFO_FILE: json.dumps(info, indent=1).encode(),
        }


def read_model_info(path: str | Path) -> ModelInfo:
    """Read what `ModelInfo.files` put into a ``.tflite``.

    Raises:
        InputError: no such file, or no metadata of this project in it.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected a .tflite, which `segformer export` makes of a run")
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    try:
        with zipfile.ZipFile(path) as archive:
            names = _read(archive, LABELS_FILE).decode().split("\n")
            info = json.loads(_read(archive, INFO_FILE))
        if info["format"] != FORMAT:
            raise InputError(f"{path}: metadata format {info['format']}, expected {FORMAT}; update segformer_tf")
        labels = Labels.from_dict({"names": names, "colors": info["palette"]})
        return ModelInfo(labels, str(info["recipe"]), dict(info["created"]))
    except InputError:
        raise
    # zipfile raises NotImplementedError for a compression it cannot read, RuntimeError for an encrypted entry.
    except (zipfile.BadZipFile, OSError, KeyError, TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a model exported by `segformer export`, or an incomplete copy of one ({error})"
        ) from None


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} is larger than {_LARGEST} bytes")
    return archive.read(name)
