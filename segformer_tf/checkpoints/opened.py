"""A checkpoint as it is read: its tensors, what lies beside them, and the adapter to merge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.checkpoints.dialects import NVLABS
from segformer_tf.checkpoints.folder import Found, find_files
from segformer_tf.checkpoints.hub import find_weights, repository_of
from segformer_tf.checkpoints.keras_hub import KerasHub, is_of_keras, read_keras_hub
from segformer_tf.checkpoints.lora import Adapter, read_adapter
from segformer_tf.checkpoints.model_card import card_license, stated_license, transformers_config
from segformer_tf.checkpoints.preprocessor import FILE, Preprocessor, read_preprocessor
from segformer_tf.checkpoints.state_dict import StateDict, Tensors, read_state_dict
from segformer_tf.errors import InputError


@dataclass(frozen=True)
class Opened:
    """What was read.

    Attributes:
        path: what was asked for.
        tensors: by the names in the file.
        folders: where files that belong to it are looked for, the nearest first.
        adapter: to merge into them, or None.
        settings: of transformers' ``config.json``, or a keras-hub file's by the same names, or {}.
        license: terms of the weights, or "".
        notes: what was chosen and what was not read, one line each.
        keras_hub: the file, where it is one of keras-hub.
    """

    path: Path
    tensors: Tensors
    folders: tuple[Path, ...]
    adapter: Adapter | None
    settings: dict[str, Any]
    license: str
    notes: tuple[str, ...]
    keras_hub: KerasHub | None = None

    def preprocessor(self) -> Preprocessor:
        """Of the ``preprocessor_config.json`` that is nearest; raises InputError as `read_preprocessor` does."""
        if self.keras_hub:
            return self.keras_hub.preprocessor
        folder = next((folder for folder in self.folders if (folder / FILE).is_file()), self.folders[0])
        return read_preprocessor(folder)


def open_checkpoint(path: Path) -> Opened:
    """Read a checkpoint's files; raises InputError where that fails."""
    found = find_files(path)
    places, notes, file, adapter = [found.folders], list(found.notes), found.file, None
    if found.adapter:
        adapter = read_adapter(found.adapter)
        if file is None:
            base = _base(adapter)
            if base.adapter or base.file is None:
                raise InputError(f"{path}: its base {adapter.base!r} is an adapter itself; merge that one first")
            places.append(base.folders)
            file = base.file
        notes.append(f"{path}: LoRA adapter of rank {adapter.rank}, merged into {file}")
    assert file is not None
    hub = read_keras_hub(file) if is_of_keras(file) else None
    state = StateDict(hub.tensors) if hub else read_state_dict(file)
    folders = tuple(folder for place in places for folder in place)
    settings = hub.settings if hub else next(filter(None, map(transformers_config, folders)), {})
    terms = "; ".join(dict.fromkeys(filter(None, map(_license, places))))
    return Opened(path, state.tensors, folders, adapter, settings, terms, (*notes, *state.notes), hub)


def _base(adapter: Adapter) -> Found:
    revision = adapter.options.get("revision")
    name = f"{adapter.base}@{revision}" if revision and not Path(adapter.base).exists() else adapter.base
    try:
        return find_files(find_weights(name).path)
    except InputError as error:
        raise InputError(
            f"{adapter.path.parent}: its base: {error}; or put the base's files into this folder"
        ) from None


def _license(folders: tuple[Path, ...]) -> str:
    """Terms of the weights in one place: by config.json, else by the model card; and NVIDIA's for what is NVIDIA's."""
    settings = next(filter(None, map(transformers_config, folders)), {})
    stated = stated_license(settings) or next(filter(None, map(card_license, folders)), "")
    repository = next(filter(None, map(repository_of, folders)), "")
    terms = [f"{repository}: {stated}" if repository and stated else stated]
    if repository.startswith("nvidia/"):
        terms.append(NVLABS.terms)
    return "; ".join(filter(None, terms))
