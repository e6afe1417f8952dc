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

# Workers look for one another every second rather than every 30, and graphs are run as they are written.
_QUICK = """
import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
CollectiveAllReduceExtended._check_health_interval = 1
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
from segformer_tf.cli import script
script()
"""

QUICK = [sys.executable, "-c", _QUICK, "train"]
COMMAND = [sys.executable, "-c", "from segformer_tf.cli import script; script()", "train"]
