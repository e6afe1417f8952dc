"""A training that takes seconds; `data` and `out` are each test's own."""

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
