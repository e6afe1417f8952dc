"""What lies beside transformers' weights: `config.json`, and the license in the front matter of `README.md`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segformer_tf.checkpoints.folder import read_json
from segformer_tf.errors import printable

_LARGEST_CARD = 1 << 20  # characters
_LONGEST_TERMS = 2000


def transformers_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a SegFormer in a folder, or nothing; raises InputError for one that cannot be read."""
    file = folder / "config.json"
    settings = read_json(file, "a configuration") if file.is_file() else {}
    return settings if settings.get("model_type") == "segformer" else {}


def stated_license(settings: dict[str, Any]) -> str:
    """The license in a ``config.json``, as `segformer export` writes it, or ""."""
    license = settings.get("license", "")
    return _one_line(license) if isinstance(license, str) else ""


def card_license(folder: Path) -> str:
    """The license that a model card on the hub states in its front matter, or ""."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            card = file.read(_LARGEST_CARD)
    except (OSError, UnicodeDecodeError):
        return ""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    fields = dict(re.findall(r"^(license(?:_name|_link)?):[ \t]*(\S[^\n]*?)[ \t]*$", front[1], re.M)) if front else {}
    license = fields.get("license_name") or fields.get("license", "")
    words = [license.strip("'\""), fields.get("license_link", "").strip("'\"")]
    return _one_line(", ".join(filter(None, words)))


def _one_line(terms: str) -> str:
    return printable(" ".join(terms.split()))[:_LONGEST_TERMS]
