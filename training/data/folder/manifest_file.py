"""Finds a manifest's file and reads it as plain data: ``dataset.json``, ``dataset.yaml`` or ``dataset.yml``."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError

MANIFESTS = ("dataset.json", "dataset.yaml", "dataset.yml")

_SUFFIXES = (".json", ".yaml", ".yml")
_EXPORTS = (".zip", ".xml")  # of labeling tools; .json, too
_LARGEST = 1 << 20  # bytes


def find_manifest(data: Path) -> Path:
    """The manifest of a folder, or the one that `data` itself is; ``dataset.json`` where a folder has none.

    Raises:
        InputError: a folder with two manifests, or a file of another kind.
    """
    if data.is_file():
        if data.suffix.lower() not in _SUFFIXES:
            import_it = f"; to convert an export: {import_command(data)}" if data.suffix.lower() in _EXPORTS else ""
            raise InputError(f"{data}: a file; expected a folder, or its manifest ({', '.join(_SUFFIXES)}){import_it}")
        return data
    here = [data / name for name in MANIFESTS if (data / name).is_file()]
    if len(here) > 1:
        raise InputError(f"{data}: two manifests, {here[0].name} and {here[1].name}; remove one")
    return here[0] if here else data / MANIFESTS[0]


def read_plain(path: Path) -> Any:
    """What the file holds: mappings, lists, texts and numbers.

    Raises:
        InputError: more than a megabyte, a key twice, or YAML that is broken or repeats a part by an alias.
        FileNotFoundError: no such file.
        OSError, ValueError: unreadable, or not JSON.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        export = f"; to convert an export: {import_command(path)}" if path.name not in MANIFESTS else ""
        raise InputError(f"more than {_LARGEST} bytes; no manifest is so large{export}")
    text = content.decode("utf-8-sig")
    return json.loads(text, object_pairs_hook=_distinct) if path.suffix.lower() == ".json" else _read_yaml(text)


def import_command(path: Path) -> str:
    """The command that makes a folder of an export."""
    return f"segformer data import {path} --out data"


def _distinct(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
    data: dict[Hashable, Any] = {}
    for key, value in pairs:
        if key in data:
            raise InputError(f"key {key!r} stands there twice")
        data[key] = value
    return data


def _read_yaml(text: str) -> Any:
    import yaml  # an extra

    class Loader(yaml.SafeLoader):
        """Plain data alone; no aliases, with which a few lines can stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise InputError(
                    f"an alias (*name) in line {self.peek_event().start_mark.line + 1}: write the part out"
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            return _distinct((self.construct_object(k, True), self.construct_object(v, True)) for k, v in node.value)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"not YAML ({line}{problem or str(error).splitlines()[0]})") from None
