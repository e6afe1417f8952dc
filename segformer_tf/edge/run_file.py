"""``python -m segformer_tf.edge.run_file MODEL RUNTIME IMAGES.npy LOGITS.npy``: run a file and keep its logits.

For those who want a runtime's crash to end another process than their own.
"""

from __future__ import annotations

import sys

import numpy as np

from segformer_tf.edge.segmenter import Segmenter
from segformer_tf.errors import InputError

if __name__ == "__main__":
    model, runtime, images, logits = sys.argv[1:]
    try:
        segmenter = Segmenter(model, runtime=runtime)
        np.save(logits, np.stack([segmenter.logits(image).copy() for image in np.load(images)]))
    except InputError as error:
        sys.exit(str(error))
