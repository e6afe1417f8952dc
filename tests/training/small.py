"""A training that takes seconds; `data` and `out` are each test's own. And the command in a process of its own."""

import sys
from dataclasses import replace

import keras

from segformer_tf.distributed_fit import MultiWorkerFit
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

# A run of it that is stopped and goes on must end with the same bits.
EXACT = replace(SMALL, drop_path=0.3, ema=0.9, deterministic=True)


class Pointwise(MultiWorkerFit, keras.Model):
    """In place of `build_segformer` where any network will do: one layer, of patches of 4x4 pixels."""

    def __init__(self, variant: str, *, num_classes: int, **_: object) -> None:
        image = keras.Input((None, None, 3))
        super().__init__(inputs=image, outputs=keras.layers.Conv2D(num_classes, 4, strides=4)(image), name=variant)


_COMMAND = """
from segformer_tf.cli import script
script()
"""
_NO_PLOTS = """
from pathlib import Path
from matplotlib.figure import Figure
Figure.savefig = lambda self, path, **_: Path(path).touch()
"""
# Workers look for one another every second rather than every 30.
_QUICK = """
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
CollectiveAllReduceExtended._check_health_interval = 1
"""
# As under the fixture `quick`.
_EAGER = """
import keras
keras.Model.run_eagerly = property(lambda self: True, lambda self, value: None)
"""
QUICK = [sys.executable, "-c", _QUICK + _NO_PLOTS + _COMMAND, "train"]
EAGER = [sys.executable, "-c", _EAGER + _NO_PLOTS + _COMMAND, "train"]
COMMAND = [sys.executable, "-c", _COMMAND, "train"]
