"""Weights by a name on the Hugging Face hub, downloaded or from its cache; and by a path.

huggingface_hub does the work: HF_ENDPOINT is a mirror, HF_HUB_CACHE or HF_HOME the cache, HF_HUB_OFFLINE=1 no network.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer_tf.checkpoints.folder import (
    ADAPTER_CONFIG,
    ADAPTERS,
    PRESET,
    PRESET_FILES,
    SUFFIXES,
    TENSORFLOW,
    WHOLE,
    find_files,
    read_json,
)
from segformer_tf.errors import InputError, first_line

_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NORMALIZATION = "preprocessor_config.json"
_BESIDE = ("config.json", _NORMALIZATION, "README.md")  # labels, normalization, license


@dataclass(frozen=True)
class Weights:
    """Where weights are.

    Attributes:
        path: file or folder on this machine; whether it exists is for the reader to say.
        origin: what names the same weights again: an absolute path, or hf://OWNER/NAME@COMMIT.
        notes: where they come from, if not just from a path, in one line each.
    """

    path: Path
    origin: str
    notes: tuple[str, ...] = ()


def find_weights(name: str) -> Weights:
    """The weights of a name: a path, or a repository on the hub, whose files are downloaded where they are not cached.

    Args:
        name: a path; hf://OWNER/NAME, with @REVISION if you like; or OWNER/NAME where no such path and no folder OWNER
            exists.

    Raises:
        InputError: a hub's name that is malformed, or files of it that cannot be had.
    """
    if name.startswith("hf:"):
        match = _NAME.fullmatch(name.removeprefix("hf:").lstrip("/"))
        if match is None or ".." in name:
            raise InputError(f"expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION. Received: {name}")
    else:
        match, path = _NAME.fullmatch(name), Path(name)
        if match is None or path.exists() or path.parent.exists() or path.suffix in (*SUFFIXES, ".keras", ".tflite"):
            return Weights(path, str(path.resolve()))
    repository, revision = match["repository"], match["revision"]
    if revision and _COMMIT.fullmatch(revision):  # which never changes: no network, if all of it is there
        folder = _cached(repository, revision)
        if folder and _says_normalization(folder):  # other programs download the weights alone
            return Weights(folder, f"hf://{repository}@{revision}")
    notes: tuple[str, ...] = ()
    try:
        folder = _downloaded(repository, revision)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if name.startswith("hf:"):
            raise
        raise InputError(
            f"{name}: no such file or folder here; for a repository of that name on the Hugging Face hub, install "
            f"{error.name} (in this repository: pip install '.[hub]')"
        ) from None
    except Exception as error:  # whatever the network stack raises
        cached = _cached(repository, revision)
        if cached is None:
            raise InputError(f"{name}: {_reason(name, repository, error)}") from None
        folder, notes = cached, (f"{name}: the hub is out of reach, so its copy in {cached.parents[2]} is taken",)
        if not _says_normalization(cached):
            notes += (f"{name}: {cached} has no {_NORMALIZATION}; if the hub has one, its normalization is not taken",)
    commit = folder.name
    return Weights(folder, f"hf://{repository}@{commit}", (f"{name}: commit {commit[:12]} of the hub", *notes))


def _says_normalization(folder: Path) -> bool:
    """Whether the file of it is there, or is no file of its own, as in keras-hub's presets."""
    return (folder / _NORMALIZATION).is_file() or (folder / PRESET).is_file()


def repository_of(folder: Path) -> str:
    """OWNER/NAME of a folder in the hub's cache, or ""."""
    parts = folder.absolute().parts
    match = (
        re.fullmatch(r"models--([^/]+?)--([^/]+)", parts[-3]) if len(parts) > 2 and parts[-2] == "snapshots" else None
    )
    return f"{match[1]}/{match[2]}" if match else ""


def _downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(repository, revision=revision)
    names = _wanted(repository, [file.rfilename for file in info.siblings or []])
    # by the same name, under which the cache then has it without a network
    return Path(snapshot_download(repository, revision=revision, allow_patterns=[glob.escape(name) for name in names]))


def _cached(repository: str, revision: str | None) -> Path | None:
    """The folder of the cache with weights in it, or None."""
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=["config.json"])
        file = find_files(Path(path)).file
        if file and file.name.endswith(".index.json"):  # a download that was stopped, say
            shards = read_json(file)["weight_map"].values()
            return Path(path) if all((Path(path) / name).is_file() for name in shards) else None
    except Exception:  # whatever stands for "it is not there"
        return None
    return Path(path)


def _wanted(repository: str, files: Sequence[str]) -> list[str]:
    """The files of a repository that are read: the weights in one format, and what lies beside them."""
    beside = [name for name in _BESIDE if name in files]
    adapter = [name for name in (ADAPTER_CONFIG, *ADAPTERS) if name in files]
    whole = next((name for name in (*WHOLE, TENSORFLOW) if name in files), None)
    if whole and whole.endswith(".index.json"):
        suffix = Path(whole.removesuffix(".index.json")).suffix
        return [*beside, *adapter, whole, *(name for name in files if "/" not in name and name.endswith(suffix))]
    if whole is None and PRESET in files:
        return [name for name in (*PRESET_FILES, "README.md") if name in files]
    if whole or len(adapter) > 1:
        return [*beside, *adapter, *filter(None, [whole])]
    lone = [name for name in files if "/" not in name and name.endswith(SUFFIXES)]
    if len(lone) != 1:
        held = ", ".join(sorted(files)[:8]) or "nothing"
        raise InputError(
            f"hf://{repository}: expected one of {', '.join((*WHOLE, TENSORFLOW, PRESET))} in it. It holds {held}"
        )
    return [*beside, *lone]


def _reason(name: str, repository: str, error: Exception) -> str:
    """Why it could not be downloaded, and what to do."""
    from huggingface_hub import constants, errors

    here = "" if name.startswith("hf:") else "no such file or folder here, and "
    where = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{here}{where} has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{here}no {where}, or one that needs `hf auth login`"
    return (
        f"{here}{where} cannot be reached ({first_line(error)}); without a network, put config.json, "
        f"preprocessor_config.json and {WHOLE[0]} or {WHOLE[2]} of it into a folder and name that, or copy the folder "
        f"models--{repository.replace('/', '--')} of another machine's cache into {constants.HF_HUB_CACHE} "
        f"(HF_HUB_CACHE or HF_HOME name another place, HF_ENDPOINT a mirror)"
    )
