"""What a model is and where it comes from, as names and values."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

from segformer_tf.complexity import complexity
from segformer_tf.edge.metadata import read_model_info
from training.analysis.report.run_files import RunFiles
from training.config import TrainConfig
from training.protocols import EvalProtocol

Card = list[tuple[str, str]]

_OPTIONS = (
    *("variant", "weights", "precision", "loss", "learning_rate", "head_multiplier", "layer_decay", "freeze"),
    *("batch_size", "crop", "scale", "stretch", "color", "mix", "balance"),
    *("class_weights", "ema", "drop_path", "dropout", "seed"),
)


def run_card(run: RunFiles) -> Card:
    """How a run was trained, and its best validation."""
    card, config = Card(), run.config
    if config:
        data = _name(str(config.get("data")))
        card.append(("trained on", f"{data}, split {config.get('train_split')}"))
        epochs = (
            f"{len(run.history)} of {_count(config.get('steps'), config.get('epoch_steps'))}" if run.history else "?"
        )
        card.append(("steps", f"{config.get('steps')}, a validation every {config.get('epoch_steps')}: {epochs} done"))
        usual = {"stretch": TrainConfig.stretch, "color": TrainConfig.color}
        options = {name: config[name] for name in _OPTIONS if config.get(name) not in (None, usual.get(name, 0))}
        if "weights" in options:
            options["weights"] = _name(str(options["weights"]))
        card.append(("options", ", ".join(f"{name} {_text(value)}" for name, value in options.items())))
    scored = [row for row in run.history if isfinite(row.get("val_mean_iou", nan)) and isfinite(row["epoch"])]
    if scored:
        best = max(scored, key=lambda row: row["val_mean_iou"])
        card.append(
            ("best validation", f"mean IoU {best['val_mean_iou']:.4f} after epoch {best['epoch'] + 1:.0f}; "
                                f"at last {scored[-1]['val_mean_iou']:.4f}")
        )  # fmt: skip
    if run.environment:
        versions = run.environment.get("versions")
        names = (
            ", ".join(f"{name} {value}" for name, value in versions.items()) if isinstance(versions, Mapping) else ""
        )
        card.append(("trained with", f"{run.environment.get('date')}, {run.environment.get('platform')}; {names}"))
    return card


def model_card(model: Path, protocol: EvalProtocol, license: str) -> Card:
    """Size, work and terms of a model, of which `protocol` says at what size it sees images."""
    size = protocol.size
    card = [("images", f"stretched to {size[0]}x{size[1]}" if size else "at their own size")]
    if model.suffix == ".tflite":
        info = read_model_info(model)
        card.append(("file", f"{model.stat().st_size / 1e6:.2f} MB, recipe {info.recipe}"))
        card += [(f"export: {name}", _text(value)) for name, value in info.created.items() if _is_short(value)]
    else:
        from segformer_tf.keras_file import keras_file, read_config

        file = keras_file(model)
        config = read_config(file)
        work = f", {complexity(config, size).total / 1e9:.2f} GMAC an image" if size else ""
        blocks = ", ".join(map(str, config.depths))
        card.append(("file", f"{file.name}, {file.stat().st_size / 1e6:.2f} MB"))
        card.append(("network", f"{config.parameter_count:,} parameters, blocks {blocks}{work}"))
    card.append(("terms", license or "none stated"))
    return card


def _name(place: str) -> str:
    """A page that is sent around tells no path of this machine."""
    return place if "://" in place else Path(place).name


def _count(steps: Any, length: Any) -> str:
    return f"{steps // length}" if isinstance(steps, int) and isinstance(length, int) and length > 0 else "?"


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) < 100
