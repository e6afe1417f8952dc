"""SegFormer in TensorFlow and Keras 3, from training to the phone.

Importing this package imports neither TensorFlow nor Keras; accessing a name that needs them does.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segformer_tf.classifier import MixTransformerClassifier, build_classifier
    from segformer_tf.config import VARIANTS, SegFormerConfig, variant_config
    from segformer_tf.keras_file import load_segformer
    from segformer_tf.keras_metrics import MeanIoU
    from segformer_tf.labels import IGNORE_ID, Labels
    from segformer_tf.losses.images import DiceLoss, LovaszLoss, OhemLoss
    from segformer_tf.losses.pixels import FocalLoss, SegmentationLoss
    from segformer_tf.model import AllMLPDecoder, MixTransformer, SegFormer, build_segformer
    from segformer_tf.reconstructor import MixTransformerReconstructor, build_reconstructor

try:
    __version__ = version("segformer_tf")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

_NAMES = {
    "keras_file": ("load_segformer",),
    "classifier": ("MixTransformerClassifier", "build_classifier"),
    "config": ("VARIANTS", "SegFormerConfig", "variant_config"),
    "keras_metrics": ("MeanIoU",),
    "labels": ("IGNORE_ID", "Labels"),
    "losses.images": ("DiceLoss", "LovaszLoss", "OhemLoss"),
    "losses.pixels": ("FocalLoss", "SegmentationLoss"),
    "model": ("AllMLPDecoder", "MixTransformer", "SegFormer", "build_segformer"),
    "reconstructor": ("MixTransformerReconstructor", "build_reconstructor"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "IGNORE_ID",
    "VARIANTS",
    "AllMLPDecoder",
    "DiceLoss",
    "FocalLoss",
    "Labels",
    "LovaszLoss",
    "MeanIoU",
    "MixTransformer",
    "MixTransformerClassifier",
    "MixTransformerReconstructor",
    "OhemLoss",
    "SegFormer",
    "SegFormerConfig",
    "SegmentationLoss",
    "__version__",
    "build_classifier",
    "build_reconstructor",
    "build_segformer",
    "load_segformer",
    "variant_config",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"segformer_tf.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
