"""A training that takes seconds; `data` and `out` are each test's own. And the command in a process of its own."""

import sys

from training.config import TrainConfig

SMALL = TrainConfig(
    data="",
    variant="tiny",
    steps=4,
    epoch_steps=2,
    warmup_steps=1,
    batch_size=2,
    crop=(64, 64),
    learning_rate=1e-3,
)

COMMAND = [sys.executable, "-c", "from segformer_tf.cli import script; script()", "train"]
