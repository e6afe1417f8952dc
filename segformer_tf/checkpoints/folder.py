"""Which file of a folder is the checkpoint: of transformers, its Trainer, PEFT, keras-hub, or a lone file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segformer_tf.errors import InputError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5")
# of a repository on the hub, in the order in which one is taken
WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TENSORFLOW = "tf_model.h5"
# of keras-hub's presets: the backbone's weights, and what belongs to them
PRESET, PRESET_TASK = "model.weights.h5", "task.weights.h5"
PRESET_FILES = (PRESET, PRESET_TASK, "config.json", "task.json", "preprocessor.json", "image_converter.json")
ADAPTER_CONFIG, ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
# of a training, and no model
_OTHER_FILES = re.compile(r"(training_args|optimizer|scheduler|rng_state.*|scaler)\.(bin|pt|pth)")
_STEP = re.compile(r"checkpoint-(\d{1,12})")  # folders of a Trainer
_LARGEST_JSON = 1 << 26  # bytes


@dataclass(frozen=True)
class Found:
    """A checkpoint's files.

    Attributes:
        file: the weights, or None where an adapter has no base beside it.
        adapter: weights of a LoRA adapter, beside its ``adapter_config.json``, or None.
        notes: what was chosen, one line each.
    """

    file: Path | None
    adapter: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where what belongs to it is looked for, the nearest first."""
        path = self.adapter or self.file
        assert path is not None
        folder = path.parent
        return (folder, folder.parent) if re.fullmatch(_STEP, folder.name) else (folder,)


def find_files(path: Path) -> Found:
    """The files of a checkpoint that is a file or a folder.

    Raises:
        InputError: nothing there, or nothing that is a checkpoint.
    """
    if path.is_file():
        if path.name in (*ADAPTERS, ADAPTER_CONFIG) and (path.parent / ADAPTER_CONFIG).is_file():
            return find_files(path.parent)
        return Found(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint")
    whole = next((path / name for name in (*WHOLE, TENSORFLOW, PRESET) if (path / name).is_file()), None)
    if (path / ADAPTER_CONFIG).is_file():
        adapter = next((path / name for name in ADAPTERS if (path / name).is_file()), None)
        if adapter is None:
            raise InputError(f"{path}: {ADAPTER_CONFIG} without {ADAPTERS[0]}")
        return Found(whole, adapter)
    if whole:
        return Found(whole)
    if steps := _steps(path):
        return _of_trainer(path, steps)
    lone = [p for p in sorted(path.iterdir()) if p.suffix in SUFFIXES and p.is_file() and not _other(p)]
    if len(lone) == 1:
        return Found(lone[0])
    more = f"; it holds {lone[0].name} and {len(lone) - 1} more: name one" if lone else ""
    raise InputError(f"{path}: a folder without {', '.join((*WHOLE, TENSORFLOW, PRESET))}, checkpoint-N{more}")


def read_json(path: Path, expected: str = "a JSON object") -> dict[str, Any]:
    """A JSON object; raises InputError, which says what was `expected`."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"larger than {_LARGEST_JSON} bytes")
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not {expected} ({error})") from None
    return content


def _steps(folder: Path) -> dict[int, Path]:
    """Folders of a Trainer, by step."""
    found = ((re.fullmatch(_STEP, p.name), p) for p in folder.iterdir() if p.is_dir())
    return {int(match[1]): path for match, path in found if match}


def _of_trainer(folder: Path, steps: dict[int, Path]) -> Found:
    """The best of the checkpoints by the newest's ``trainer_state.json``, else the newest."""
    newest = steps[max(steps)]
    chosen, why = newest, "the newest"
    if (state := newest / "trainer_state.json").is_file():
        best = read_json(state, "a Trainer's state").get("best_model_checkpoint")
        name = re.split(r"[/\\]", best)[-1] if isinstance(best, str) else ""
        if match := next((path for path in steps.values() if path.name == name), None):
            chosen, why = match, f"the best by {newest.name}/{state.name}"
        elif name:
            why = f"the newest, for the best, {name}, is gone"
    found = find_files(chosen)
    return Found(found.file, found.adapter, (f"{folder}: {chosen.name} taken, {why} of {len(steps)}", *found.notes))


def _other(path: Path) -> bool:
    return _OTHER_FILES.fullmatch(path.name) is not None
