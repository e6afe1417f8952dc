"""Options that cannot be used, found before anything is opened; one line each."""

from __future__ import annotations

from math import inf

from segformer_tf.config import VARIANTS, check_bits, variant_config
from segformer_tf.errors import InputError
from segformer_tf.model import check_image_shape
from training.config import RunConfig

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def check_run(config: RunConfig) -> None:
    """The options that every task has; raises InputError."""
    if config.variant not in VARIANTS:
        raise InputError(f"--variant must be one of {', '.join(VARIANTS)}. Received: {config.variant}")
    variant_config(config.variant, num_classes=1, drop_path_rate=config.drop_path)
    check_bits(config.bits, name="--bits")
    if config.precision not in PRECISIONS:
        raise InputError(f"--precision must be one of {', '.join(PRECISIONS)}. Received: {config.precision}")
    check_positive(config, "steps", "epoch_steps", "batch_size", "accumulate", "learning_rate", "clip_norm")
    check_not_negative(config, "weight_decay")
    if not 0 <= config.ema < 1:
        raise InputError(f"--ema must be from 0 to below 1. Received: {config.ema}")
    if config.warmup_steps is None or not 0 <= config.warmup_steps < config.steps:
        raise InputError(f"--warmup-steps must be from 0 to below --steps. Received: {config.warmup_steps}")
    if config.steps % min(config.epoch_steps, config.steps):
        raise InputError(
            f"--steps must be a multiple of --epoch-steps. Received: {config.steps} and {config.epoch_steps}"
        )
    if not 0 <= config.seed < 2**32:
        raise InputError(f"--seed must be from 0 to 4294967295. Received: {config.seed}")
    check_image_shape((None, *config.crop, 3), "--crop")


def check_positive(config: RunConfig, *names: str) -> None:
    """Raises InputError for the first option among `names` that is given and not above 0."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < inf:
            raise InputError(f"--{name.replace('_', '-')} must be positive. Received: {value}")


def check_not_negative(config: RunConfig, *names: str) -> None:
    """Raises InputError for the first option among `names` that is below 0."""
    for name in names:
        if not 0 <= getattr(config, name) < inf:
            raise InputError(f"--{name.replace('_', '-')} must not be negative. Received: {getattr(config, name)}")
