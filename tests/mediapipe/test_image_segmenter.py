"""Every recipe in MediaPipe's `ImageSegmenter`, and why its masks are not quite `Segmenter`'s."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.programs.programs import MEDIAPIPE, mediapipe_masks
from convert.export import export_tflite
from convert.quantize.recipes import RECIPES
from convert.sample_images import synthetic_images
from segformer_tf import SegFormer
from segformer_tf.edge import Segmenter
from segformer_tf.edge.runtime import open_interpreter
from segformer_tf.errors import InputError
from segformer_tf.image import Pixels, list_images, load_image
from segformer_tf.mask import logits_to_mask

pytestmark = pytest.mark.mediapipe

SIZE = (97, 161)


@pytest.fixture(scope="session", autouse=True)
def _environment() -> None:
    if not MEDIAPIPE.is_file():
        pytest.fail("needs MediaPipe in .mediapipe: make test-mediapipe")


@pytest.fixture(scope="session")
def mapped(tiny: SegFormer, toy_folder: Path, shared: Callable) -> Callable[[str], Path]:
    """The tiny model with a class map, by its recipe."""
    images = list_images([toy_folder / "train" / "images"])

    def file(recipe: str) -> Path:
        options = {"recipe": recipe, "size": SIZE, "images": images, "runtimes": ["litert"], "class_map": True}
        return shared(f"mapped_{recipe}.tflite", lambda out: export_tflite(tiny, out, **options))

    return file


def category_rule(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """MediaPipe's category mask: the arg-max of a bilinear resize in which corner lies on corner.

    After `ProcessForCategoryMaskCpu` of its tensors_to_segmentation_calculator.cc.
    """
    for axis, side in enumerate(size):
        places = np.arange(side) * np.float32((logits.shape[axis] - 1) / (side - 1))
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, logits.shape[axis] - 1)
        shape = (-1, *[1] * (2 - axis))
        weight = (places - low).astype(np.float32).reshape(shape)
        below, above = logits.take(low, axis), logits.take(high, axis)
        logits = below + (above - below) * weight
    return logits.argmax(-1).astype(np.uint8)


def confidence_rule(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """MediaPipe's confidence masks (classes, height, width): softmax on the grid, then OpenCV's bilinear resize."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = powers / powers.sum(-1, keepdims=True)
    return np.stack([cv2.resize(plane, size[::-1]) for plane in np.moveaxis(probabilities, -1, 0)])


def input_rule(photo: Pixels, size: tuple[int, int]) -> Pixels:
    """A photo at (height, width) as MediaPipe fits it: bilinear, x of a pixel times the quotient of the widths."""
    height, width = size
    factors = np.array([[photo.shape[1] / width, 0, 0], [0, photo.shape[0] / height, 0]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, factors, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize(
    ("class_map", "video"), [(False, False), (False, True), (True, False)], ids=["image", "video", "class map"]
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_opens_every_recipe_and_its_masks_are_the_logits_by_its_rules(
    recipe: str, class_map: bool, video: bool, tiny_files: dict, mapped: Callable, tmp_path: Path
) -> None:
    """The image has the model's size, so that only the way from logits to masks differs from `Segmenter`'s."""
    file = mapped(recipe) if class_map else tiny_files[recipe]
    (image,) = synthetic_images(SIZE, 1)
    refused = recipe == "int8_io" and class_map and _type_of_map(file) == np.int32
    if refused:  # beside int8 logits it takes integers of 8 bits only
        with pytest.raises(InputError, match="Unsupported input tensor type: Int32"):
            mediapipe_masks(file, image, tmp_path, video=video)
        return
    report, masks = mediapipe_masks(file, image, tmp_path, video=video)
    assert report["labels"] == [f"class {i}" for i in range(6)]
    category, confidence = masks["category"], masks["confidence"]
    assert (category.shape, category.dtype) == (SIZE, np.uint8)
    assert (confidence.shape, confidence.dtype) == ((6, *SIZE), np.float32)
    assert np.abs(confidence.sum(0) - 1).max() < 1e-5
    logits = Segmenter(file, runtime="litert").logits(image)
    assert (category == category_rule(logits, SIZE)).mean() >= 0.999
    assert np.abs(confidence - confidence_rule(logits, SIZE)).max() <= 1e-3
    ours = logits_to_mask(logits, SIZE)
    assert len(np.unique(ours)) > 1
    assert 0.97 < (category == ours).mean() < (confidence.argmax(0) == ours).mean()


def test_a_photo_of_another_size_is_resized_by_its_rule(camvid: Path, tmp_path: Path) -> None:
    """Not antialiased, and from corner to corner of the pixels' numbers."""
    model = Path(__file__).parents[2] / "models" / "camvid_b0_int8.tflite"
    photo = load_image(sorted((camvid / "test" / "images").iterdir())[0])
    _, masks = mediapipe_masks(model, photo, tmp_path)
    segmenter = Segmenter(model, runtime="litert")
    size = photo.shape[0], photo.shape[1]
    by_its_rules = category_rule(segmenter.logits(input_rule(photo, segmenter.size)), size)
    assert (masks["category"] == by_its_rules).mean() >= 0.999
    ours = segmenter(photo).mask
    assert 0.97 < (masks["category"] == ours).mean() < 0.995
    assert (masks["category"] == ours).mean() < (masks["confidence"].argmax(0) == ours).mean()


def test_a_file_of_before_gives_logits_as_confidence(tiny_files: dict, tmp_path: Path) -> None:
    """Its metadata state no activation; all else is as it was."""
    (image,) = synthetic_images(SIZE, 1)
    before = tmp_path / "before.tflite"
    before.write_bytes(tiny_files["fp32"].read_bytes().replace(b"SEGMENTER_METADATA", b"SEGMENTER_METADAT_"))
    _, masks = mediapipe_masks(before, image, tmp_path)
    _, now = mediapipe_masks(tiny_files["fp32"], image, tmp_path)
    np.testing.assert_array_equal(masks["category"], now["category"])
    assert masks["confidence"].min() < 0


def test_the_python_of_the_manual_runs(tiny_files: dict, tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "languages.md").read_text("utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", manual, re.DOTALL) if "mediapipe" in each)
    (photo,) = synthetic_images((120, 200), 1)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    (tmp_path / "model.tflite").write_bytes(tiny_files["fp32"].read_bytes())
    code = f"{block}\nprint(ids.shape[:2], len(confidences), names[-1])"
    done = subprocess.run([MEDIAPIPE, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["(120, 200) 6 class 5"], done.stderr


def _type_of_map(file: Path) -> type[np.generic]:
    interpreter = open_interpreter(file, runtime="litert")
    return interpreter.get_output_details()[0]["dtype"]
