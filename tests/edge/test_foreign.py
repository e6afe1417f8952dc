"""Other people's ``.tflite`` files: read as they are meant, or refused in a line that says what was expected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

from convert.graph.ir import Graph, Tensor, constant
from segformer_tf.cli import main
from segformer_tf.edge import Segmenter, fit_image, runtime
from segformer_tf.edge.benchmark.timing import time_files
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.tflite.contract import Contract
from segformer_tf.edge.tflite.flatbuffer import PASS_THROUGH, SOURCES, read_flatfile
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from segformer_tf.mask import ids_to_mask
from tests.edge.foreign import (
    PHOTO,
    RAW,
    SIZE,
    add,
    bright,
    bright_pixels,
    channel_scores,
    quantization,
    start,
    write,
)
from tests.helpers import refused as line
from tests.test_fuzz import refused_in_a_line
from training.evaluate import open_predictor

TWO, THREE, ONE = (Labels.named(names) for names in (["dark", "bright"], ["r", "g", "b"], ["bright"]))
IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
BRIGHT = bright_pixels(PHOTO)


@pytest.fixture(autouse=True)
def _whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file from elsewhere is first tried in another process; these are whole and many. Children still try theirs."""
    monkeypatch.setattr(runtime, "_try_elsewhere", lambda *_: None)


def refused(path: Path, message: str, *, labels: Labels = TWO, **options: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Segmenter(path, labels=labels, runtime="litert", **options)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path}: ")


def mask_of(path: Path, *, labels: Labels = TWO, photo: np.ndarray = PHOTO, **options: object) -> np.ndarray:
    return Segmenter(path, labels=labels, runtime="litert", **options)(photo).mask  # type: ignore[arg-type]


def test_numbers_of_operations_are_those_of_the_schema() -> None:
    for name, number in (PASS_THROUGH | SOURCES).items():
        assert getattr(schema.BuiltinOperator, name) == number, name


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.0], [1.0]), ([0.0], [255.0]), ([127.5], [127.5]), IMAGENET],
    ids=["255", "1", "-1", "imagenet"],
)
def test_a_float_input_takes_the_range_that_is_said(mean: list[float], std: list[float], tmp_path: Path) -> None:
    above = (120 - np.array(mean)) / std * [1, 1, 1]
    graph, x = start()
    bare = write(graph, bright(graph, x, above), tmp_path / "bare.tflite")
    refused(bare, r"takes floats and does not say of which range.*--mean and --std.*Received: float32 \[1, 8, 12, 3\]")
    seen = mask_of(bare, mean=mean if len(mean) > 1 else mean[0], std=std if len(std) > 1 else std[0])
    # Of one std, R + G + B decides; of three a weighted sum of them does.
    expected = (((PHOTO - np.array(mean)) / std).sum(-1) > above.sum()).astype(np.uint8)
    np.testing.assert_array_equal(seen, expected)
    assert 0.1 < seen.mean() < 0.9
    described = write(graph, graph.outputs[0], tmp_path / "described.tflite", normalization=(mean, std))
    np.testing.assert_array_equal(mask_of(described), expected)
    assert (mask_of(described, mean=255, std=1) == 0).all()  # the option comes first
    torch = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    refused(bare, r"are -2\.\.1136, which no network is trained on; .* multiply both by 255", **torch)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "low", "high"),
    [
        (np.uint8, 1 / 127.5, 128, -1, 1),
        (np.uint8, 1 / 127.5, 127, -1, 1),
        (np.uint8, 1 / 128, 128, -1, 1),
        (np.uint8, 1 / 255, 0, 0, 1),
        (np.int8, 1 / 127.5, 0, -1, 1),
        (np.int8, 1 / 255, -128, 0, 1),
        (np.int8, 1.0, -128, 0, 255),
        (np.uint8, 1.0, 0, 0, 255),
    ],
)
def test_integers_of_a_usual_range_are_the_pixels(
    dtype: type, scale: float, zero_point: int, low: float, high: float, tmp_path: Path
) -> None:
    graph, x = start(dtype, scale, zero_point)
    above = [low + (high - low) * 120.2 / 255] * 3  # between two pixels
    path = write(graph, bright(graph, x, above), tmp_path / "quantized.tflite")
    expected = (PHOTO.astype(int).sum(-1) > 360.6).astype(np.uint8)
    seen = mask_of(path)
    assert (seen == expected).mean() > 0.95, "a step of the integers at most"
    assert 0.1 < seen.mean() < 0.9
    half = (high - low) / 255
    assert (mask_of(path, mean=-low / half, std=1 / half) == expected).mean() > 0.95


def test_integers_of_another_range_need_it_said(tmp_path: Path) -> None:
    mean, std = IMAGENET
    above = (120 - np.array(mean)) / std
    graph, x = start(np.uint8, 0.0187, 114)
    path = write(graph, bright(graph, x, above), tmp_path / "imagenet.tflite")
    refused(
        path,
        r"integers stand for -2\.13\.\.2\.64; expected 0\.\.255, 0\.\.1 or -1\.\.1.*--mean and --std.*scale 0\.0187",
    )
    expected = (((PHOTO - np.array(mean)) / std).sum(-1) > above.sum()).astype(np.uint8)
    assert (mask_of(path, mean=mean, std=std) == expected).mean() > 0.95
    refused(path, r"\(x - 0\) / 1 are 0\.\.255, but .* stand for -2\.13\.\.2\.64: 4 of 256 gray levels", mean=0, std=1)
    described = write(graph, graph.outputs[0], tmp_path / "described.tflite", normalization=(mean, std))
    assert (mask_of(described) == expected).mean() > 0.95
    wrong = write(graph, graph.outputs[0], tmp_path / "wrong.tflite", normalization=RAW)
    refused(wrong, "gray levels would stay apart")


def test_an_open_size_is_asked_for(tmp_path: Path) -> None:
    graph, x = start()
    path = write(graph, channel_scores(graph, x), tmp_path / "open.tflite", open_sides=(0, 1, 2))
    refused(path, "takes images of any size; expected --size H W", labels=THREE, mean=0, std=1)
    segmenter = Segmenter(path, labels=THREE, size=(16, 24), mean=0, std=1, runtime="litert")
    assert segmenter.size == (16, 24)
    large = np.repeat(np.repeat(PHOTO, 2, 0), 2, 1)
    np.testing.assert_array_equal(segmenter(large).mask, large.argmax(-1))
    with IsolatedModel(path, runtime="litert", contract=Contract(size=(16, 24), mean=(0.0,), std=(1.0,))) as worker:
        np.testing.assert_allclose(worker.logits(large), large)
    wide = write(graph, graph.outputs[0], tmp_path / "wide.tflite", open_sides=(2,))
    refused(wide, r"sees 8xany pixels, no other size. Received: --size 16 24", labels=THREE, size=(16, 24))
    batch = write(graph, graph.outputs[0], tmp_path / "batch.tflite", open_sides=(0,))
    np.testing.assert_array_equal(mask_of(batch, labels=THREE, mean=0, std=1), PHOTO.argmax(-1))
    fixed = write(graph, graph.outputs[0], tmp_path / "fixed.tflite")
    refused(
        fixed, r"sees 8x12 pixels, no other size. Received: --size 16 24", labels=THREE, size=(16, 24), mean=0, std=1
    )
    assert Segmenter(fixed, labels=THREE, size=SIZE, mean=0, std=1, runtime="litert").size == SIZE


def test_one_channel_is_foreground_above_what_its_last_operation_says(tmp_path: Path) -> None:
    graph, x = start()
    channel = bright(graph, x, (120, 120, 120), logits=False)
    logit = write(graph, channel, tmp_path / "logit.tflite", normalization=RAW)
    np.testing.assert_array_equal(mask_of(logit), BRIGHT)
    np.testing.assert_array_equal(mask_of(logit, foreground_above=60), bright_pixels(PHOTO, (140, 140, 140)))
    one = Segmenter(logit, labels=ONE, runtime="litert")
    assert one.labels.names == ("background", "bright")
    assert one.labels.colors[1] == ONE.colors[0]
    assert one.said == "pixels as they are, 0..255; foreground above 0, it ends in CONV_2D"
    refused(logit, r"has 2 classes \(background and one channel\). Received: 3 names", labels=THREE)
    probability = graph.unary("LOGISTIC", "probability", graph.binary("MUL", "soft", channel, 0.01))
    flat = graph.reshape("flat", probability, (1, *SIZE))
    for output in (probability, flat):
        path = write(graph, output, tmp_path / "probability.tflite", normalization=RAW)
        np.testing.assert_array_equal(mask_of(path), BRIGHT)
        likely = 1 / (1 + np.exp(-0.01 * (PHOTO.astype(int).sum(-1) - 360.0))) > 0.8
        np.testing.assert_array_equal(mask_of(path, foreground_above=0.8), likely)
    stored = Tensor("stored", (1, *SIZE, 1), np.int8, None, quantization(1 / 256, -128))
    add(graph, "QUANTIZE", [probability], stored)
    path = write(graph, stored, tmp_path / "stored.tflite", normalization=RAW)
    assert (mask_of(path) == BRIGHT).mean() > 0.97
    tanh = graph.unary("TANH", "tanh", channel)
    unsaid = write(graph, tanh, tmp_path / "tanh.tflite", normalization=RAW)
    refused(unsaid, "one channel and does not say what it is; expected --foreground-above 0 for logits, 0.5 for")
    np.testing.assert_array_equal(mask_of(unsaid, foreground_above=0), BRIGHT)
    scores = write(graph, bright(graph, x, (1, 1, 1)), tmp_path / "two.tflite", normalization=RAW)
    refused(scores, "--foreground-above is for a file of one channel", foreground_above=0)


def test_class_ids_are_resized_by_their_nearest(tmp_path: Path) -> None:
    graph, x = start()
    axis = constant("axis", np.array([3], np.int32))
    scores = channel_scores(graph, x)
    narrow = add(graph, "ARG_MAX", [scores, axis], Tensor("narrow", (1, *SIZE), np.int32), outputType="INT32")
    wide = add(graph, "ARG_MAX", [scores, axis], Tensor("wide", (1, *SIZE), np.int64), outputType="INT64")
    shape = constant("deep/shape", np.array((1, *SIZE, 1), np.int32))
    deep = add(graph, "RESHAPE", [narrow, shape], Tensor("deep", (1, *SIZE, 1), np.int32), newShape=shape.value)
    bytes_ = add(
        graph, "CAST", [narrow], Tensor("bytes", (1, *SIZE), np.uint8), inDataType="INT32", outDataType="UINT8"
    )
    real = add(graph, "CAST", [deep], Tensor("real", (1, *SIZE, 1)), inDataType="INT32", outDataType="FLOAT32")
    large = np.repeat(np.repeat(PHOTO, 3, 0), 2, 1)
    for output in (narrow, wide, deep, bytes_, real):
        path = write(graph, output, tmp_path / f"{output.name}.tflite", normalization=RAW)
        np.testing.assert_array_equal(mask_of(path, labels=THREE), PHOTO.argmax(-1), output.name)
        ids = fit_image(large, SIZE).argmax(-1)
        np.testing.assert_array_equal(mask_of(path, labels=THREE, photo=large), ids.repeat(3, 0).repeat(2, 1))
    with pytest.raises(InputError, match=r"gives class id 2. Received: names of 0\.\.1"):
        mask_of(path)
    segmenter = Segmenter(path, labels=THREE)
    assert not segmenter.gives_logits
    with pytest.raises(InputError, match="the file gives class ids, not logits"):
        segmenter(large, slide=True)
    with pytest.raises(InputError, match=r"gives class ids, not logits; only predict and benchmark"):
        IsolatedModel(path, runtime="litert")
    assert time_files([path], runtimes=["litert"], repeats=1, warm_up=0).timings[0].classes == 0


def test_nearest_is_by_half_pixels() -> None:
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(ids_to_mask(ids, (1, 1)), [[4]])
    np.testing.assert_array_equal(ids_to_mask(ids, (3, 2)), [[0, 2], [3, 5], [3, 5]])
    np.testing.assert_array_equal(ids_to_mask(ids, (4, 3)), ids.repeat(2, 0))


@pytest.mark.parametrize(("dtype", "zero_point"), [(np.int8, -20), (np.uint8, 100)])
def test_stored_logits_are_taken_for_what_they_stand_for(dtype: type, zero_point: int, tmp_path: Path) -> None:
    graph, x = start()
    scores = channel_scores(graph, x)
    stored = Tensor("stored", scores.shape, dtype, None, quantization(2.0, zero_point))
    path = write(graph, add(graph, "QUANTIZE", [scores], stored), tmp_path / "stored.tflite", normalization=RAW)
    segmenter = Segmenter(path, labels=THREE, runtime="litert")
    np.testing.assert_allclose(segmenter.logits(PHOTO), np.minimum(PHOTO, 2 * (127 + 20)), atol=1)
    assert (segmenter(PHOTO).mask == PHOTO.argmax(-1)).mean() > 0.97


def test_what_cannot_be_followed_says_what_was_expected(tmp_path: Path, tiny_files: dict) -> None:
    graph = Graph()
    x = graph.input("x", (1, 3, *SIZE))
    turned = graph.transpose("turned", x, (0, 2, 3, 1))
    path = write(graph, channel_scores(graph, turned), tmp_path / "first.tflite")
    refused(path, r"expected an RGB image \[1, H, W, 3\].* Received: \[1, 3, 8, 12\], channels first", labels=THREE)
    graph, x = start()
    last = write(graph, graph.transpose("turned", channel_scores(graph, x), (0, 3, 1, 2)), tmp_path / "last.tflite")
    refused(last, r"has 12 classes. Received: 3 names; do its channels come first\?", labels=THREE, mean=0, std=1)
    graph, x = start()
    both = graph.binary("ADD", "both", channel_scores(graph, x), graph.input("other", (1, *SIZE, 3)))
    refused(
        write(graph, both, tmp_path / "both.tflite"), "expected an RGB image .* in. Received: float32 .*, float32 .* in"
    )
    graph, x = start()
    rows = graph.reshape("rows", channel_scores(graph, x), (1, 8 * 12, 3, 1, 1))
    path = write(graph, rows, tmp_path / "rows.tflite", normalization=RAW)
    refused(path, r"expected logits or probabilities .* out. Received: .* float32 \[1, 96, 3, 1, 1\] out")
    for options in ({"mean": 0, "std": 1}, {"foreground_above": 0.5}):
        with pytest.raises(InputError, match=r"are for a \.tflite from elsewhere; one of"):
            Segmenter(tiny_files["fp32"], runtime="litert", **options)
    with pytest.raises(InputError, match=r"sees 97x161 pixels, no other size. Received: --size 64 64"):
        Segmenter(tiny_files["fp32"], runtime="litert", size=(64, 64))
    assert Segmenter(tiny_files["fp32"], runtime="litert", size=(97, 161)).said == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0}, "--mean and --std go together"),
        ({"mean": (1, 2), "std": 1}, "--mean must be one number, or three for R, G, B. Received: 1 2"),
        ({"mean": 0, "std": 0}, "--std must be positive. Received: 0"),
        ({"mean": np.nan, "std": 1}, "--mean must be one number"),
        ({"size": (0, 5)}, "--size must be a height and a width"),
        ({"foreground_above": np.inf}, "--foreground-above must be a number"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Segmenter("never_read.tflite", labels=TWO, **options)


def test_cut_and_changed_files_are_refused_in_a_line(tmp_path: Path) -> None:
    graph, x = start()
    whole = write(graph, channel_scores(graph, x), tmp_path / "whole.tflite", normalization=RAW).read_bytes()
    path = tmp_path / "cut.tflite"
    rng = np.random.default_rng(0)
    for end in range(8, len(whole), 40):
        changed = bytearray(whole[:end])
        changed[int(rng.integers(8, max(end, 9))) % end] ^= 255
        path.write_bytes(changed)
        with refused_in_a_line("cut.tflite"):
            read_flatfile(path)


def test_verbs_refuse_what_no_file_of_theirs_needs(
    tiny_files: dict, toy_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    ours, said = tiny_files["fp32"], ("--mean", 0, "--std", 1)
    for arguments in (
        ("predict", ours, toy_folder / "test" / "images"),
        ("benchmark", ours, "--runtime", "litert"),
        ("evaluate", ours, "--data", toy_folder),
        ("evaluate", "never_read.keras", "--data", toy_folder),
        ("verify", ours, "--against", ours),
    ):
        assert "are for a .tflite from elsewhere" in line(capsys, *arguments, *said)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("photo.png")
    Path("one.txt").write_text("bright\n")
    graph, x = start()
    channel = bright(graph, x, ((120 - 127.5) / 127.5,) * 3, logits=False)
    path = write(graph, channel, Path("theirs.tflite"), open_sides=(1, 2))
    predict = ("predict", path, "photo.png", "--labels", "one.txt", "--runtime", "litert")
    assert "expected --size H W" in line(capsys, *predict)
    predict = (*predict, "--size", 8, 12)
    assert "--mean and --std" in line(capsys, *predict)
    main([str(a) for a in (*predict, "--mean", 127.5, "--std", 127.5, 127.5, 127.5)])
    said = capsys.readouterr().err
    assert (
        "theirs.tflite: pixels as (x - 127.5) / (127.5, 127.5, 127.5); foreground above 0, it ends in CONV_2D" in said
    )
    with Image.open("predictions/photo_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), BRIGHT)
    contract = ("--size", 8, 12, "--mean", 127.5, "--std", 127.5, "--runtime", "litert")
    main([str(a) for a in ("benchmark", path, "--repeats", 1, *contract)])
    assert "8x12" in capsys.readouterr().out
    main(["info", str(path)])
    assert "float32 [1, -1, -1, 3]" in capsys.readouterr().out
    for kind in ("images", "masks"):
        Path("data", "test", kind).mkdir(parents=True)
    classes = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(TWO.names)]
    Path("data", "dataset.json").write_text(json.dumps({"name": "data", "classes": classes, "ignore": []}))
    Path("photo.png").rename("data/test/images/photo.png")
    Image.fromarray(BRIGHT).save("data/test/masks/photo.png")
    main([str(a) for a in ("evaluate", path, "--data", "data", "--json", *contract)])
    assert json.loads(capsys.readouterr().out)["mean_iou"] == 1.0
    main([str(a) for a in ("verify", path, "--against", path, "--size", 40, 60, *contract[3:])])
    with (
        pytest.raises(InputError, match=r"are for a \.tflite from elsewhere"),
        open_predictor(
            Path("x.keras"), runtime=None, labels=Labels.numbered(2), contract=Contract(mean=(0.0,), std=(1.0,))
        ),
    ):
        pass


def test_a_sum_does_not_tell_what_one_channel_is(tmp_path: Path) -> None:
    graph, x = start()
    one = bright(graph, x, [120.0] * 3, logits=False)
    summed = add(graph, "ADD", [one, constant("half", np.full((1, 1, 1, 1), 0.5))], Tensor("summed", one.shape))
    path = write(graph, summed, tmp_path / "summed.tflite", normalization=RAW)
    refused(path, "gives one channel and does not say what it is; expected --foreground-above")


def test_a_list_of_pixels_is_no_image(tmp_path: Path) -> None:
    graph, x = start()
    scores = channel_scores(graph, x)
    flat = graph.reshape("flat", scores, (1, scores.shape[1] * scores.shape[2], scores.shape[3]))
    refused(write(graph, flat, tmp_path / "flat.tflite", normalization=RAW), "over the whole image", labels=THREE)


def test_an_image_that_fails_takes_no_other_with_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    graph, x = start()
    ids = Tensor("ids", (1, *SIZE), np.int32)
    add(
        graph, "ARG_MAX", [channel_scores(graph, x), constant("axis", np.array([3], np.int32))], ids, outputType="INT32"
    )
    path, names = write(graph, ids, tmp_path / "ids.tflite", normalization=RAW), tmp_path / "names.txt"
    names.write_text("r\ng\n")
    for name, channel in (("a", 0), ("b", 2), ("c", 1)):  # class 2 has no name
        Image.fromarray(np.eye(3, dtype=np.uint8)[np.full(SIZE, channel)] * 200).save(tmp_path / f"{name}.png")
    photos = [str(tmp_path / f"{name}.png") for name in "abc"]
    with pytest.raises(SystemExit):
        main(["predict", str(path), *photos, "--labels", str(names), "--out", str(tmp_path / "out")])
    assert f"{photos[1]}: the file gives class id 2" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "out" / "predictions.json").read_text())) == [photos[0], photos[2]]
