"""What transformers' preprocessor_config.json says reaches the pixels, on the way in and on the way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer_tf import Labels, build_segformer, load_segformer, variant_config
from segformer_tf.checkpoints.importer import read_checkpoint
from segformer_tf.checkpoints.preprocessor import FILE, preprocessor_config, read_preprocessor
from segformer_tf.cli import main
from segformer_tf.config import IMAGE_MEAN, IMAGE_STD
from segformer_tf.edge import fit_image, load_image, logits_to_mask
from segformer_tf.errors import InputError
from tests.checkpoints.test_import import GOLDEN
from tests.helpers import perturb, within

HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
LOOKS = {"image_mean": (127.5, 100.0, 0.0), "image_std": (127.5, 60.0, 255.0)}


def beside(folder: Path, settings: Any) -> Path:
    """A checkpoint of transformers with a preprocessor_config.json beside it."""
    shutil.copy(GOLDEN / "transformers.safetensors", folder / "model.safetensors")
    (folder / FILE).write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, IMAGE_MEAN, IMAGE_STD),
        ({"image_mean": None, "do_rescale": None}, IMAGE_MEAN, IMAGE_STD),
        (HALVES, (127.5,) * 3, (127.5,) * 3),
        ({"image_mean": 0.5, "image_std": 1}, (127.5,) * 3, (255.0,) * 3),
        ({**HALVES, "do_normalize": False}, (0.0,) * 3, (255.0,) * 3),
        ({**HALVES, "do_normalize": False, "do_rescale": False}, (0.0,) * 3, (1.0,) * 3),
        ({"image_mean": [100, 90, 80], "image_std": [50, 40, 30], "do_rescale": False}, (100, 90, 80), (50, 40, 30)),
        ({**HALVES, "rescale_factor": 1 / 127.5}, (63.75,) * 3, (63.75,) * 3),
        # As transformers wrote it before 4.27.
        ({"feature_extractor_type": "SegformerFeatureExtractor", "size": 512, "resample": 2}, IMAGE_MEAN, IMAGE_STD),
    ],
)
def test_what_it_says_is_the_configurations(settings: dict, mean: tuple, std: tuple, tmp_path: Path) -> None:
    config = read_checkpoint(beside(tmp_path, settings)).config
    assert (config.image_mean, config.image_std) == (mean, std)
    assert read_checkpoint(tmp_path / "model.safetensors").config == config  # a file alone sees it, too


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("{", "not a configuration"),
        ("[" * 100_000, "not a configuration"),
        ("[]", "no JSON object"),
        ({"image_mean": [0.5, 0.5]}, "image_mean must be three numbers"),
        ({"image_mean": "0.5"}, "image_mean must be three numbers"),
        ('{"image_std": [0.5, 0.5, NaN]}', "image_std must be three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std must be positive"),
        ({"image_mean": [10**400, 0, 0]}, "image_mean must be three numbers"),
        ({"rescale_factor": 0}, "rescale_factor must be a positive number"),
        ({"do_rescale": False}, "do not fit rescale_factor 1: the network would see values beyond 256"),
        ({"do_normalize": "no"}, "do_normalize must be true or false"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order cannot be followed"),
    ],
)
def test_what_makes_no_sense_is_one_line(settings: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_checkpoint(beside(tmp_path, settings))
    assert str(error.value).startswith(f"{tmp_path / FILE}: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"reduce_labels": True}, 'a manifest has ids from 1 and "ignore": [0]'),
        ({"do_reduce_labels": True}, 'a manifest has ids from 1 and "ignore": [0]'),
        ({"resample": 3}, "resample is bicubic"),
        ({"size": {"shortest_edge": 640}}, 'size is {"shortest_edge": 640}'),
        ({"do_center_crop": True, "crop_size": 224}, "do_center_crop is not followed"),
    ],
)
def test_differences_are_printed(settings: dict, line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["import", str(beside(tmp_path, settings)), "--out", str(tmp_path / "x.keras")])
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith(f"{tmp_path / FILE}: ")
    assert line in note
    assert read_preprocessor(tmp_path / "model.safetensors").notes == (note,)


def test_a_model_keeps_its_normalization(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["import", str(beside(tmp_path, HALVES)), "--out", str(tmp_path / "x.keras")])
    assert "images are normalized by mean 127.5, 127.5, 127.5, std 127.5, 127.5, 127.5" in capsys.readouterr().out
    model = load_segformer(tmp_path / "x.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    np.testing.assert_allclose(model.logits(pixels), model(pixels / np.float32(127.5) - 1), atol=1e-5)
    main(["info", str(tmp_path / "x.keras")])
    assert "mean 127.5, 127.5, 127.5" in capsys.readouterr().out


def test_there_and_back(tmp_path: Path) -> None:
    config = variant_config("tiny", num_classes=2, **LOOKS)
    (tmp_path / FILE).write_text(json.dumps(preprocessor_config(config, (64, 96))))
    result = read_preprocessor(tmp_path)
    np.testing.assert_allclose([*result.mean, *result.std], [*LOOKS["image_mean"], *LOOKS["image_std"]], rtol=1e-7)
    assert result.notes == ()


@pytest.mark.torch
@pytest.mark.parametrize("looks", [{}, LOOKS])
def test_transformers_sees_the_same_pixels_and_masks(looks: dict, toy_folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    size, path = (64, 96), toy_folder / "test" / "images" / "0.png"
    labels = Labels.named(["sky", "road", "car", "tree"])
    model = perturb(build_segformer("tiny", num_classes=4, labels=labels, norm_epsilon=1e-5, **looks), seed=3)
    model.save(tmp_path / "model.keras")
    folder = str(tmp_path / "hf")
    main(["export", str(tmp_path / "model.keras"), "--format", "transformers", "--size", "64", "96", "--out", folder])
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    fitted = fit_image(load_image(path), size)
    with Image.open(path) as image:
        batch = processor(image.convert("RGB"), return_tensors="pt")
        pipe = transformers.pipeline("image-segmentation", model=network, image_processor=processor)
        result = pipe(image.convert("RGB"), subtask="semantic")
    theirs = batch["pixel_values"].numpy().transpose(0, 2, 3, 1)[0]
    # One grey level where torchvision resizes for it, rounding where Pillow does.
    apart = np.abs(theirs - model.config.normalize(fitted.astype(np.float64))) * model.config.image_std
    assert apart.max() <= 1.01
    with torch.inference_mode():
        logits = network(pixel_values=batch["pixel_values"]).logits.numpy().transpose(0, 2, 3, 1)
    ours = model.logits(fitted[None])
    assert within(ours, logits, 2e-2)
    mask = logits_to_mask(ours[0], (128, 128))
    for each in result:
        same = np.asarray(each["mask"]) > 0
        assert (same == (mask == labels.names.index(each["label"]))).mean() > 0.99
    assert len(result) == len(np.unique(mask)) > 1
