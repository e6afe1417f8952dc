"""A training that takes seconds; `data` and `out` are each test's own. And the command in a process of its own."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from segformer_tf import model as network
from segformer_tf import reconstructor
from segformer_tf.config import SegFormerConfig
from segformer_tf.layers import DropPath
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


class PatchEncoder(keras.layers.Layer):
    """In place of the encoder of four stages: one patch embedding, {"c1": (B, ⌈H/4⌉, ⌈W/4⌉, 8), "c4": its means}."""

    def __init__(self, config: SegFormerConfig, **options: Any) -> None:
        super().__init__(**options)
        self.stages = [keras.layers.Conv2D(8, 7, 4, "same", use_bias=False, dtype=self.dtype_policy, name="stage1")]

    def build(self, shape: tuple) -> None:
        self.stages[0].build(shape)

    def call(self, image: Any, training: bool | None = None) -> dict[str, Any]:
        c1 = self.stages[0](image)
        return {"c1": c1, "c4": keras.ops.average_pool(c1, 8, padding="same")}

    def compute_output_shape(self, shape: tuple) -> dict[str, tuple]:
        batch, height, width, channels = c1 = self.stages[0].compute_output_shape(shape)
        return {"c1": c1, "c4": (batch, *(None if n is None else -(-n // 8) for n in (height, width)), channels)}


class PixelDecoder(keras.layers.Layer):
    """The end of the decoder: batch normalization, dropout and the classifier."""

    def __init__(self, config: SegFormerConfig, **options: Any) -> None:
        super().__init__(**options)
        policy = self.dtype_policy
        self.bn = keras.layers.BatchNormalization(momentum=0.9, synchronized=True, dtype=policy, name="bn")
        self.dropout = keras.layers.SpatialDropout2D(config.dropout_rate, dtype=policy, name="dropout")
        self.linear_pred = keras.layers.Conv2D(config.num_classes, 1, dtype=policy, name="linear_pred")

    def build(self, shape: dict[str, tuple]) -> None:
        self.bn.build(shape["c1"])
        self.linear_pred.build(shape["c1"])

    def call(self, features: dict[str, Any], training: bool | None = None) -> Any:
        x = keras.ops.relu(self.bn(features["c1"], training=training))
        return self.linear_pred(self.dropout(x, training=training))

    def compute_output_shape(self, shape: dict[str, tuple]) -> tuple:
        return self.linear_pred.compute_output_shape(shape["c1"])


def shrink_networks(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make every `SegFormer` from now on, of any variant, one of three layers, which files and runs hold as any other.

    And every `MixTransformerReconstructor` one of two.

    Args:
        put: `setattr`, or pytest's, which undoes it.
    """
    put(network, "MixTransformer", PatchEncoder)
    put(network, "AllMLPDecoder", PixelDecoder)
    put(reconstructor, "MixTransformer", PatchEncoder)
    for count in ("parameter_count", "reconstructor_parameter_count"):
        put(SegFormerConfig, count, 0)  # or their files would be too small to be believed


class LinearBlock(keras.layers.Layer):
    """In place of a transformer block: one linear layer under drop path."""

    def __init__(self, dim: int, *, drop_path: float, dtype: Any, name: str, **_: Any) -> None:
        super().__init__(dtype=dtype, name=name)
        self.linear = keras.layers.Dense(dim, dtype=dtype, name="linear")
        self.drop_path = DropPath(drop_path, dtype=dtype, name="drop_path")

    def build(self, shape: tuple) -> None:
        self.linear.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return x + self.drop_path(self.linear(x), training=training)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape


def lighten_networks(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make every `SegFormer` from now on one without attention and MLPs, four fifths of what is traced or computed.

    And every `MixTransformerClassifier`.

    All else is the network's own: four stages, their patch mergings, norms, drop path and freezing, and the decoder.

    Args:
        put: `setattr`, or pytest's, which undoes it.
    """
    put(network, "TransformerBlock", LinearBlock)
    for count in ("parameter_count", "classifier_parameter_count"):
        put(SegFormerConfig, count, 0)  # or their files would be too small to be believed


_COMMAND = """
from training.analysis.report import after_training
after_training.report_after_training = lambda root: None
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
# As under the fixtures `quick` and, with what follows below, `shrunk`.
_EAGER = """
import keras
keras.Model.run_eagerly = property(lambda self: True, lambda self, value: None)
"""
_SHRUNK = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.training.small import shrink_networks
shrink_networks()
"""
QUICK = [sys.executable, "-c", _QUICK + _NO_PLOTS + _SHRUNK + _COMMAND, "train"]
EAGER = [sys.executable, "-c", _EAGER + _NO_PLOTS + _SHRUNK + _COMMAND, "train"]
COMMAND = [sys.executable, "-c", _COMMAND, "train"]


def held(command: list[str], method: str, epoch: int) -> list[str]:
    """One of these commands, to be killed: it gets no further than `Backup.save` or `Backup.note` of an epoch."""
    python, option, program, verb = command
    hold = f"""
import time
from training.runs.backup import Backup
_method = Backup.{method}
def _held(*arguments):
    _method(*arguments)
    if arguments[-1].epoch == {epoch}:
        time.sleep(600)
Backup.{method} = _held
"""
    return [python, option, hold + program, verb]
