"""Segmentation on a device, with numpy, Pillow and a TFLite runtime alone.

>>> mask = Segmenter("model.tflite")("photo.jpg").mask
"""

from segformer_tf.edge.metadata import ModelInfo, read_model_info
from segformer_tf.edge.result import ClassShare, Result
from segformer_tf.edge.runtime import installed_runtimes, open_interpreter
from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.image import fit_image, list_images, load_image
from segformer_tf.mask import logits_to_mask

__all__ = [
    "ClassShare",
    "ModelInfo",
    "Result",
    "Segmenter",
    "fit_image",
    "installed_runtimes",
    "list_images",
    "load_image",
    "logits_to_mask",
    "open_interpreter",
    "read_model_info",
]
