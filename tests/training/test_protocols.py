"""Every way of scoring, against the same arithmetic written plainly in float64."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from segformer_tf import SegFormer, build_segformer
from segformer_tf.cli import main
from segformer_tf.edge import fit_image, logits_to_mask
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from tests.edge.test_isolation import BLOCKED, COMMAND
from tests.helpers import windows
from training.evaluate import evaluate, open_predictor
from training.protocols import (
    EvalProtocol,
    Network,
    aligned_size,
    plain_resize,
    predict_mask,
    rescale_size,
    slide_logits,
    view_size,
)
from training.runs.plots import plot_confusion


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture: noise would make of every resize a new image."""
    return fit_image(np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8), (height, width))


@pytest.fixture(scope="module")
def net(tiny: SegFormer) -> Network:
    """`tiny` as one graph for every size: its logits, hundreds of windows of them, are not the subject here."""
    graph = tf.function(
        lambda image: tiny(image, training=False),
        input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32)],
        autograph=False,
    )
    return lambda pixels: graph(tiny.config.normalize(pixels[None].astype(np.float32))).numpy()[0]


def resize64(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Half-pixel bilinear, one side after the other."""
    for axis, n in enumerate(size):
        old = logits.shape[axis]
        at = np.clip((np.arange(n) + 0.5) * old / n - 0.5, 0, old - 1)
        low = np.minimum(np.floor(at).astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        weight = np.expand_dims(at - low, [a for a in range(3) if a != axis])
        logits = np.take(logits, low, axis) * (1 - weight) + np.take(logits, high, axis) * weight
    return logits


def slide64(net: Network, image: np.ndarray, crop: int, stride: int) -> np.ndarray:
    """Windows pasted into zeros, one whole image each, and a count."""
    h, w = image.shape[:2]
    total, count = 0.0, np.zeros((h, w, 1))
    tops = sorted({max(min(y, h - crop), 0) for y in range(0, max(h - crop + stride, 1), stride)})
    lefts = sorted({max(min(x, w - crop), 0) for x in range(0, max(w - crop + stride, 1), stride)})
    for y in tops:
        for x in lefts:
            window = image[y : y + crop, x : x + crop]
            logits = resize64(net(window).astype(np.float64), window.shape[:2])
            total = total + np.pad(logits, ((y, h - y - window.shape[0]), (x, w - x - window.shape[1]), (0, 0)))
            count[y : y + crop, x : x + crop] += 1
    assert count.min() >= 1
    return total / count


def reference(net: Network, image: np.ndarray, p: EvalProtocol) -> np.ndarray:
    """(H, W, C) float64 scores whose arg-max is the mask."""
    size, scores = image.shape[:2], []
    for scale in p.scales:
        for mirrored in (False, True)[: 1 + p.flip]:
            kept = view_size(size, p, scale)
            aligned = aligned_size(kept, p.align)
            seen = fit_image(image, aligned)
            if p.slide:  # across, then down
                seen = fit_image(fit_image(image, (size[0], aligned[1])), aligned)
            if p.protocol == "paper":
                seen = plain_resize(plain_resize(image, kept), aligned)
            seen = seen[:, ::-1] if mirrored else seen
            if p.slide:
                logits = slide64(net, seen, *p.slide)
            else:
                logits = net(seen).astype(np.float64)
                logits = resize64(logits, seen.shape[:2]) if p.protocol == "paper" else logits
            logits = resize64(logits, size)
            e = np.exp(logits - logits.max(-1, keepdims=True))
            softmax = e / e.sum(-1, keepdims=True)
            scores.append((softmax[:, ::-1] if mirrored else softmax) if p.flip or p.scales[1:] else logits)
    return np.mean(scores, axis=0)


PROTOCOLS = [
    EvalProtocol(),
    EvalProtocol(size=(65, 97)),
    EvalProtocol(size=(65, 97), protocol="paper"),
    EvalProtocol(flip=True),
    EvalProtocol(size=(65, 97), scales=(0.75, 1.25)),
    EvalProtocol(resize=(220, 80), align=32, protocol="paper"),
    EvalProtocol(slide=(64, 48)),
    EvalProtocol(slide=(48, 48), scales=(0.5, 1.0), flip=True),
    EvalProtocol(resize=(220, 80), align=32, protocol="paper", scales=(0.75, 1.25), flip=True),
]


@pytest.mark.parametrize("size", [(97, 161), (128, 70), (64, 96)])
def test_masks_are_those_of_float64(net: Network, size: tuple[int, int]) -> None:
    image, masks = picture(*size), []
    for protocol in PROTOCOLS:
        scores = reference(net, image, protocol)
        best = np.sort(scores, -1)
        clear = best[..., -1] - best[..., -2] > 1e-4
        mask = predict_mask(net, image, protocol)
        assert mask.dtype == np.uint8
        assert clear.mean() > 0.98, protocol
        np.testing.assert_array_equal(mask[clear], scores.argmax(-1)[clear], str(protocol))
        masks.append(mask)
    for i, mask in enumerate(masks):  # or any of them could stand for another
        for other in masks[:i]:
            assert (mask != other).sum() > 0
    assert len(np.unique(masks[0])) > 1


@pytest.mark.parametrize(("size", "crop", "stride"), [((97, 161), 64, 48), ((70, 130), 96, 29), ((40, 50), 64, 48)])
def test_sliding_logits_are_those_of_float64(net: Network, size: tuple[int, int], crop: int, stride: int) -> None:
    image = picture(*size)
    expected = slide64(net, image, crop, stride)
    np.testing.assert_allclose(slide_logits(net, image, window=(crop, crop), stride=stride), expected, atol=1e-4)


def test_windows_cover_every_pixel_and_stay_inside() -> None:
    def count(size: tuple[int, int], crop: int, stride: int) -> np.ndarray:
        seen = np.zeros(size, int)
        for rows, columns in windows(size, (crop, crop), stride):
            seen[rows, columns] += 1
        return seen

    assert count((3, 10), 4, 3).tolist() == [[1, 1, 1, 2, 1, 1, 2, 1, 1, 1]] * 3  # 0-3, 3-6, 6-9
    assert count((9, 3), 4, 3).T.tolist() == [[1, 1, 1, 2, 1, 2, 2, 1, 1]] * 3  # the last from 5, not 6
    cityscapes = windows((1024, 2048), (1024, 1024), 768)
    assert [(r.start, r.stop, c.start, c.stop) for r, c in cityscapes] == [
        (0, 1024, 0, 1024),
        (0, 1024, 768, 1792),
        (0, 1024, 1024, 2048),
    ]
    assert windows((20, 30), (64, 64), 48) == [(slice(0, 20), slice(0, 30))]
    assert windows((64, 64), (64, 64), 48) == [(slice(0, 64), slice(0, 64))]


@pytest.mark.parametrize(
    ("size", "kept", "aligned"),
    [
        ((512, 683), (512, 683), (512, 704)),  # the short side decides
        ((683, 512), (683, 512), (704, 512)),
        ((480, 640), (512, 683), (512, 704)),  # 640 · 512 / 480 = 682.67
        ((256, 1024), (512, 2048), (512, 2048)),  # both
        ((100, 1000), (205, 2048), (224, 2048)),  # the long side: 100 · 2.048 = 204.8
        ((1024, 2048), (512, 1024), (512, 1024)),
        ((2000, 1500), (683, 512), (704, 512)),  # 682.67
        ((1, 5000), (1, 2048), (32, 2048)),  # 0.41, but never nothing
    ],
)
def test_sizes_of_ade20k(size: tuple[int, int], kept: tuple[int, int], aligned: tuple[int, int]) -> None:
    assert rescale_size(size, (2048, 512)) == rescale_size(size, (512, 2048)) == kept
    assert kept == view_size(size, EvalProtocol(resize=(2048, 512)), 1.0)
    assert aligned_size(kept, 32) == aligned


def test_scales_act_on_whatever_size_was_asked_for() -> None:
    assert view_size((512, 683), EvalProtocol(resize=(2048, 512)), 0.75) == (384, 512)  # 512.25 wide
    assert view_size((360, 480), EvalProtocol(), 1.25) == (450, 600)
    assert view_size((360, 480), EvalProtocol(size=(101, 50)), 0.5) == (51, 25)  # 50.5 and 25


def test_the_authors_resize_has_no_antialias() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8)[None, :, None], (8, 32, 3))
    assert plain_resize(stripes, (8, 21)).std() > 60  # antialiased, it would be grey
    image = picture(97, 161)
    for size in ((64, 200), (33, 47)):
        off = plain_resize(image, size) - resize64(image.astype(np.float64), size)
        assert np.abs(off).max() <= 0.5 + 1e-4
    assert plain_resize(image, (97, 161)) is image


def test_one_scale_is_the_whole_image(net: Network) -> None:
    image = picture(97, 161)
    whole = logits_to_mask(net(image), (97, 161))
    np.testing.assert_array_equal(predict_mask(net, image, EvalProtocol(scales=(1.0,))), whole)
    twice = predict_mask(net, image, EvalProtocol(scales=(1.0, 1.0)))  # by way of softmax
    assert (twice == whole).mean() > 0.9995


def test_flip_knows_no_left_and_right(net: Network) -> None:
    image, flip = picture(97, 161), EvalProtocol(flip=True)
    mask, turned = predict_mask(net, image, flip), predict_mask(net, image[:, ::-1], flip)[:, ::-1]
    assert (mask == turned).mean() > 0.9995
    assert (predict_mask(net, image[:, ::-1], EvalProtocol())[:, ::-1] != mask).mean() > 0.001


@pytest.mark.usefixtures("traced")
def test_many_sizes_are_traced_twice() -> None:
    model = build_segformer("tiny", num_classes=2)
    for height in range(40, 140, 20):
        model.logits(np.zeros((1, height, 200 - height, 3), np.uint8))
    assert model.predict_function.experimental_get_tracing_count() <= 2


def scores(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    main(["evaluate", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("options", [[], ["--flip"], ["--protocol", "paper"]])
def test_a_tflite_scores_as_keras_does(
    tiny: SegFormer,
    tiny_files: dict,
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    options: list[str],
) -> None:
    tiny.save(tmp_path / "model.keras")
    data = ("--data", toy_folder, *options)
    keras = scores(capsys, tmp_path / "model.keras", *data, "--size", 97, 161)
    file = scores(capsys, tiny_files["fp32"], *data)
    assert file["protocol"] == keras["protocol"]
    assert file["protocol"]["size"] == [97, 161]
    assert file["protocol"]["flip"] == ("--flip" in options)
    for key in ("mean_iou", "mean_accuracy", "pixel_accuracy"):
        assert file[key] == pytest.approx(keras[key], abs=1e-3)
    assert file["per_class"].keys() == file["per_class_accuracy"].keys() == keras["per_class"].keys()


@pytest.mark.usefixtures("traced")
def test_a_tflite_slides_without_tensorflow(
    tiny: SegFormer, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from convert.export import export_tflite
    from segformer_tf.edge import list_images

    images = list_images([toy_folder / "train" / "images"])
    tiny.save(tmp_path / "model.keras")
    export_tflite(tiny, tmp_path / "64.tflite", recipe="fp32", size=(64, 64), images=images, runtimes=["litert"])
    options = ("--data", toy_folder, "--slide", 64, 48, "--scales", 0.75, 1, "--flip", "--json")
    command = [sys.executable, "-c", BLOCKED + COMMAND, "evaluate", tmp_path / "64.tflite", "--runtime", "litert"]
    done = subprocess.run([*map(str, (*command, *options))], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    keras = scores(capsys, tmp_path / "model.keras", *options[:-1])
    assert json.loads(done.stdout)["mean_iou"] == pytest.approx(keras["mean_iou"], abs=1e-3)
    assert keras["protocol"]["slide"] == [64, 48]
    with (
        pytest.raises(InputError, match=r"the crop must be .*64\.tflite's size, 64x64: --slide 64 64 STRIDE.* 96"),
        open_predictor(
            tmp_path / "64.tflite", runtime="litert", labels=Labels.numbered(6), protocol=EvalProtocol(slide=(96, 48))
        ),
    ):
        pass


def test_options_that_mean_nothing_are_one_line(
    tiny: SegFormer, tiny_files: dict, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny.save(tmp_path / "model.keras")
    cases = {
        "--size stretches images, --resize keeps": ["--size", 64, 64, "--resize", 64, 64],
        "--resize must be positive. Received: 0 64": ["--resize", 0, 64],
        "--align must be positive. Received: 0": ["--align", 0],
        "a stride from 1 to the crop. Received: 64 65": ["--slide", 64, 65],
        "at least 29 pixels and a stride": ["--slide", 20, 10],
        "--scales must be positive factors. Received: 1 0": ["--scales", 1, 0],
        "image height must be at least 29 pixels. Received: 13x13": ["--scales", 0.1],
        "--picture must end in .png": ["--picture", "x.jpg"],
    }
    whole = f"{tiny_files['fp32']} sees 97x161 pixels, no other size"
    files = {
        f"{name}: {whole}": [name, *values]
        for name, *values in (("--size", 97, 161), ("--resize", 64, 64), ("--align", 32), ("--scales", 0.5, 1))
    }
    for model, wanted in ((tmp_path / "model.keras", cases), (tiny_files["fp32"], files)):
        for expected, options in wanted.items():
            with pytest.raises(SystemExit) as stop:
                main([*map(str, ("evaluate", model, "--data", toy_folder, *options))])
            assert stop.value.code == 1
            *notes, message = capsys.readouterr().err.splitlines()
            assert expected in message
            assert all("no names" in note for note in notes)


class OneSample:
    name, labels = "one", Labels.numbered(2)

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return picture(4, 5), self.mask


def test_a_mask_that_does_not_fit_is_named_and_an_ignored_one_is_fine() -> None:
    def predict(image: np.ndarray) -> np.ndarray:
        return np.zeros(image.shape[:2], np.uint8)

    with pytest.raises(InputError, match=r"one, sample 0: .* one shape. Received: \(5, 4\) and \(4, 5\)"):
        evaluate(predict, OneSample(np.zeros((5, 4), np.uint8)), indices=[0])
    with pytest.raises(InputError, match=r"one, sample 0: truth holds ids 7\.\.7"):
        evaluate(predict, OneSample(np.full((4, 5), 7, np.uint8)), indices=[0])
    scores = evaluate(predict, OneSample(np.full((4, 5), 255, np.uint8)), indices=[0]).to_dict()
    assert scores["images"] == 1
    assert scores["mean_iou"] is scores["mean_accuracy"] is scores["pixel_accuracy"] is None
    assert scores["per_class_accuracy"] == {"class 0": None, "class 1": None}


def test_confusion_as_a_picture(
    tiny_files: dict, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "confusion.png"
    command = ["evaluate", str(tiny_files["fp32"]), "--data", str(toy_folder), "--flip", "--picture", str(out)]
    main(command)
    output = capsys.readouterr().out
    assert "3 images --size 97 161 --flip" in " ".join(output.split())
    assert "accuracy" in output
    assert out.read_bytes()[1:4] == b"PNG"
    with pytest.raises(SystemExit):
        main(command)
    assert "exists already" in capsys.readouterr().err
    plot_confusion(np.diag(np.arange(150)), tmp_path / "many.png", names=[f"class {i}" for i in range(150)])
    assert (tmp_path / "many.png").stat().st_size > 10_000
