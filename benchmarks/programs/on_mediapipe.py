"""Masks of MediaPipe's `ImageSegmenter`, by an environment of its own: this file needs only mediapipe and numpy.

.mediapipe/bin/python on_mediapipe.py MODEL PHOTO.npy OUT.npz [--calls 3] [--video]

PHOTO.npy is (height, width, 3) uint8 RGB. Written are `category` (height, width) uint8 and `confidence`
(classes, height, width) float32. Printed is a line of JSON: labels, the version, and the median of the milliseconds
from the photo to its category mask.
"""

import argparse
import json
import statistics
import time
from importlib.metadata import version
from typing import Any

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs=3)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--video", action="store_true")
    options = parser.parse_args()
    model, photo, out = options.files
    mode = vision.RunningMode.VIDEO if options.video else vision.RunningMode.IMAGE
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.load(photo))

    def segmenter(*, confidence: bool) -> vision.ImageSegmenter:
        return vision.ImageSegmenter.create_from_options(
            vision.ImageSegmenterOptions(
                base_options=BaseOptions(model_asset_path=model),
                running_mode=mode,
                output_category_mask=True,
                output_confidence_masks=confidence,
            )
        )

    def segment(by: vision.ImageSegmenter, frame: int) -> Any:
        return by.segment_for_video(image, 40 * frame) if options.video else by.segment(image)

    with segmenter(confidence=True) as both:
        result, labels = segment(both, 0), both.labels
        confidence = np.stack([mask.numpy_view() for mask in result.confidence_masks])
        category = result.category_mask.numpy_view()
        np.savez(
            out, category=category.reshape(category.shape[:2]), confidence=confidence.reshape(-1, *category.shape[:2])
        )
    milliseconds = []
    with segmenter(confidence=False) as one:
        for call in range(options.calls + 1):
            start = time.perf_counter()
            segment(one, call)
            milliseconds.append((time.perf_counter() - start) * 1e3)
    median = statistics.median(milliseconds[1:])  # the first warms up
    print(json.dumps({"ms": median, "version": version("mediapipe"), "labels": labels}))


if __name__ == "__main__":
    main()
