"""DeepLabv3+ of keras-hub under this project's training: the same data, augmentation, optimizer, loss and metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.rivals.keras_networks import batch_norms, deeplab_mobilenet
from training.config import VERBS, TrainConfig
from training.runs.folder import Run
from training.tasks.segmentation import Segmentation
from training.train import TASKS

BEFORE_RESIZE = "segmentation_head_relu"  # keras-hub resizes this to the image before its classifier
STAGES = {"encoder, 1/4": "P2", "encoder, 1/16": "P4"}


@dataclass(frozen=True, kw_only=True)
class DeepLabConfig(TrainConfig):
    """Options of `segformer train` for DeepLabv3+; `variant` does not matter."""

    task: ClassVar[str] = "deeplab"
    verb: ClassVar[str] = "rivals"  # no run of `segformer train`, which would build another network

    def resume_command(self, root: Path) -> str:
        return "the same command"


class DeepLab(Segmentation):
    """`training.train.Task` for DeepLabv3+ on MobileNetV3-Large, at one size for training and validation."""

    def model(self) -> Any:
        return deeplab_quarter(len(self.source.labels.names), self.config.crop)

    def refuse_other_classes(self, run: Run) -> None:
        """Its files hold no names."""


TASKS[DeepLabConfig.task] = DeepLab
VERBS[DeepLabConfig.task] = DeepLabConfig.verb


def deeplab_quarter(classes: int, size: tuple[int, int]) -> Any:
    """DeepLabv3+ with fresh weights and logits at 1/4, as SegFormer has them: the classifier before the resize.

    The two commute. From normalized images (B, *size, 3) to (B, ⌈H/4⌉, ⌈W/4⌉, classes).
    """
    import keras

    from segformer_tf.distributed_fit import MultiWorkerFit

    class Fitted(MultiWorkerFit, keras.Model):
        """Keras' own fit takes a batch of each validation to build from, and ends where there is none left."""

    backbone = deeplab_mobilenet(classes, size).backbone
    features = backbone.get_layer(BEFORE_RESIZE).output
    for norm in batch_norms(backbone):
        norm.momentum = 0.9  # as SegFormer's; Keras' 0.999 keeps half of the first statistics after 700 steps
    logits = keras.layers.Conv2D(classes, 1, dtype="float32", name="classify")(features)
    return Fitted(backbone.input, logits, name="deeplab")


def inner_outputs(model: Any) -> Any:
    """A model of `deeplab_quarter` or of its file, with the encoder's outputs and the decoder's, by name."""
    import keras

    encoder = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    stages = encoder(model.input)
    return keras.Model(
        model.input,
        {**{name: stages[key] for name, key in STAGES.items()}, "decoder": model.get_layer(BEFORE_RESIZE).output},
    )
