"""How well masks agree along the borders of classes, and how well away from them."""

from __future__ import annotations

from math import hypot

import numpy as np
from numpy.typing import NDArray

from segformer_tf.labels import IGNORE_ID
from segformer_tf.metrics import confusion_matrix, per_class_iou

_SHARE = 0.01  # of an image's diagonal


class BorderScores:
    """Adds up, over images, the agreement within a few pixels of borders and beyond.

    A border parts two classes; neither the image's edge nor an ignored region makes one. Distances are those of a
    chessboard's king. Per class, over all images:

    - `boundary_iou`: IoU of the two strips along the inside of the borders, one in truth and one in prediction.
    - `interior_iou`: IoU over the pixels that are farther from any border in truth.

    Args:
        num_classes: C.

    Attributes:
        reach: the widths of strips that were used, in pixels, smallest and largest.

    Reference: Cheng et al., "Boundary IoU", CVPR 2021, whose strips are 2 % of the diagonal wide, of single objects;
    here 1 %, so that poles and limbs have an inside.
    """

    def __init__(self, num_classes: int) -> None:
        self.reach: tuple[int, int] | None = None
        self._classes = num_classes
        self._both, self._either = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
        self._interior = np.zeros((num_classes, num_classes), np.int64)
        self._pixels, self._wrong, self._near, self._wrong_near = 0, 0, 0, 0

    def add(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Count an image: (H, W) classes 0..C-1, in `truth` also `IGNORE_ID`."""
        reach = strip_width(truth.shape)
        self.reach = (min(reach, self.reach[0]), max(reach, self.reach[1])) if self.reach else (reach, reach)
        valid = truth != IGNORE_ID
        near, near_predicted = near_borders(truth, reach), near_borders(prediction, reach)
        ours, theirs = (valid & near)[valid], (valid & near_predicted)[valid]
        t, p = truth[valid], prediction[valid]
        both = np.bincount(t[ours & theirs & (t == p)], minlength=self._classes)
        self._both += both
        self._either += np.bincount(t[ours], minlength=self._classes)
        self._either += np.bincount(p[theirs], minlength=self._classes) - both
        self._interior += confusion_matrix(t[~ours], p[~ours], num_classes=self._classes)
        wrong = t != p
        self._pixels += len(t)
        self._wrong += int(wrong.sum())
        self._near += int(ours.sum())
        self._wrong_near += int((wrong & ours).sum())

    @property
    def boundary_iou(self) -> NDArray[np.float64]:
        """(C,) 0..1; nan for a class without a border."""
        return np.divide(self._both, self._either, out=np.full(self._classes, np.nan), where=self._either > 0)

    @property
    def interior_iou(self) -> NDArray[np.float64]:
        """(C,) 0..1; nan for a class that is nowhere away from borders."""
        return per_class_iou(self._interior)

    @property
    def near_share(self) -> float:
        """Share of the pixels that lie near a border in truth, 0..1; nan without any pixel."""
        return self._near / self._pixels if self._pixels else float("nan")

    @property
    def error_share(self) -> float:
        """Share of the wrong pixels that lie near a border in truth, 0..1; nan where nothing is wrong."""
        return self._wrong_near / self._wrong if self._wrong else float("nan")


def strip_width(shape: tuple[int, ...]) -> int:
    """Width of the strips in an image of (height, width), in pixels: 1 % of its diagonal, 1 or more."""
    return max(1, round(_SHARE * hypot(shape[0], shape[1])))


def near_borders(mask: NDArray[np.uint8], reach: int) -> NDArray[np.bool_]:
    """Whether another class lies within `reach` pixels, (H, W) bool; ignored pixels are no class."""
    from scipy import ndimage  # an extra

    side = 2 * reach + 1
    lowest = ndimage.minimum_filter(mask, side, mode="nearest")  # IGNORE_ID is above all classes
    highest = ndimage.maximum_filter(np.where(mask == IGNORE_ID, 0, mask), side, mode="nearest")
    near: NDArray[np.bool_] = (lowest != highest) & (lowest != IGNORE_ID)
    return near & (mask != IGNORE_ID)
