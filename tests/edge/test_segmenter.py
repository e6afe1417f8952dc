from __future__ import annotations

import json
import signal
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf import SegFormer
from segformer_tf.cli import main
from segformer_tf.edge import (
    Segmenter,
    fit_image,
    installed_runtimes,
    logits_to_mask,
    open_interpreter,
    read_model_info,
)
from segformer_tf.edge.benchmark.timing import time_files
from segformer_tf.edge.isolated import IsolatedModel
from segformer_tf.edge.predict import arguments
from segformer_tf.edge.runtime import usual_threads
from segformer_tf.errors import InputError
from segformer_tf.image import load_image
from segformer_tf.labels import Labels

PHOTO = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_mask_is_what_keras_gives_by_the_contract(
    tiny: SegFormer, tiny_files: dict, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # on all cores, which other tests leave to one another
    fitted = fit_image(PHOTO, (97, 161))
    expected = tiny.logits(fitted[None])[0]
    with IsolatedModel(tiny_files["fp32"], runtime=runtime) as worker:
        np.testing.assert_allclose(worker.logits(fitted), expected, atol=1e-4)
    if runtime == "litert":
        result = Segmenter(tiny_files["fp32"], runtime=runtime)(PHOTO)
        assert (result.mask == logits_to_mask(expected, (120, 200))).mean() > 0.9999


@pytest.mark.parametrize(
    ("wanted", "threads"), [("", 4), ("1", 1), (" 3,1", 3), ("64", 4), ("0", 4), ("-1", 4), ("many", 4)]
)
def test_threads_are_as_of_other_libraries_where_no_number_is_given(
    wanted: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert usual_threads() == threads


@pytest.mark.skipif("tflite-runtime" not in installed_runtimes(), reason="needs tflite-runtime")
def test_tflite_runtime_beside_tensorflow_is_refused_in_a_line(tiny_files: dict) -> None:
    with pytest.raises(InputError, match="cannot run in a process that has TensorFlow loaded"):
        Segmenter(tiny_files["fp32"], runtime="tflite-runtime")


@pytest.mark.usefixtures("real_children")
def test_worker_tells_a_crash_a_hang_and_a_refusal(
    tiny_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such model file"):
        IsolatedModel(tmp_path / "missing.tflite")
    with IsolatedModel(tiny_files["fp32"], runtime="litert") as worker:
        worker._process.send_signal(signal.SIGSEGV)
        with pytest.raises(InputError, match=r"litert crashed \(SIGSEGV\)"):
            worker.logits(np.zeros((97, 161, 3), np.uint8))
    with pytest.raises(InputError, match=r"did not answer within 0\.01 s"):
        IsolatedModel(tiny_files["fp32"], seconds=0.01)


@pytest.mark.usefixtures("real_children")
def test_a_call_that_is_broken_off_is_never_the_answer_to_the_next(tiny_files: dict) -> None:
    def stop(*_: object) -> None:
        raise TimeoutError

    noise = np.random.default_rng(1).integers(0, 256, (97, 161, 3), np.uint8)
    with IsolatedModel(tiny_files["fp32"], runtime="litert") as worker:
        before = signal.signal(signal.SIGALRM, stop)
        worker._process.send_signal(signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(TimeoutError):
                worker.logits(noise)
        finally:
            signal.signal(signal.SIGALRM, before)
        for _ in range(2):
            with pytest.raises(InputError, match="litert was interrupted before; open it again"):
                worker.logits(np.zeros_like(noise))


def test_a_child_that_died_says_why_every_time(tiny_files: dict) -> None:
    with IsolatedModel(tiny_files["fp32"], runtime="litert") as worker:
        worker._process.kill()
        for _ in range(3):
            with pytest.raises(InputError, match="was killed"):
                worker.logits(np.zeros((97, 161, 3), np.uint8))


@pytest.mark.usefixtures("real_children")
def test_a_child_that_takes_nothing_is_not_waited_for(tiny_files: dict) -> None:
    with IsolatedModel(tiny_files["fp32"], runtime="litert", seconds=10) as worker:
        worker._seconds = 0.5
        worker._process.send_signal(signal.SIGSTOP)
        with pytest.raises(InputError, match=r"did not answer within 0\.5 s"), worker.exchange():
            worker.write(bytes(1 << 22))  # more than a pipe holds


@pytest.mark.usefixtures("real_children")
def test_children_start_where_warnings_are_errors(tiny_files: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error::RuntimeWarning")
    with IsolatedModel(tiny_files["fp32"], runtime="litert") as worker:
        assert worker.size == (97, 161)


def test_result_tells_classes_speed_and_pictures(tiny_files: dict, tmp_path: Path) -> None:
    result = Segmenter(tiny_files["int8"])(PHOTO)
    assert sum(c.share for c in result.classes) == pytest.approx(1.0)
    assert [c.share for c in result.classes] == sorted((c.share for c in result.classes), reverse=True)
    assert all((result.mask == c.id).mean() == pytest.approx(c.share) for c in result.classes)
    assert set(result.speed) == {"load", "resize", "invoke", "mask"}
    assert result.overlay().size == (200, 120)
    content = json.loads(result.to_json())
    assert (content["height"], content["width"]) == (120, 200)
    mask_path, overlay_path = result.save(tmp_path / "new", "photo")
    with Image.open(mask_path) as mask, Image.open(overlay_path) as overlay:
        np.testing.assert_array_equal(np.asarray(mask), result.mask)  # indices, not colors
        colors = np.asarray(mask.convert("RGB"))
        assert overlay.height > 120  # with the legend
        assert overlay.crop((0, 0, 200, 120)).tobytes() == result.overlay().tobytes()
    np.testing.assert_array_equal(colors, np.asarray(result.labels.colors, np.uint8)[result.mask])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["photo_mask.png", "photo_overlay.png"]


def test_files_that_are_no_whole_models_are_refused(tiny_files: dict, tmp_path: Path) -> None:
    whole = tiny_files["fp32"].read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    cases = {
        "empty.tflite": (b"", "not a TFLite file"),
        "text.tflite": (b"hello, I am no model", "not a TFLite file"),
        "junk.tflite": (b"\x1c\0\0\0TFL3 no model", "not a model exported by"),
        "cut.tflite": (whole[: len(whole) // 2], "an incomplete copy"),
        "flipped.tflite": (bytes(flipped), "its bytes are not those that were exported"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{reason}"):
            Segmenter(tmp_path / name)
        with pytest.raises(InputError, match=name):  # nor does it run with labels given
            Segmenter(tmp_path / name, labels=Labels.numbered(6))
        with pytest.raises(InputError, match=name):
            time_files([tmp_path / name], runtimes=["litert"])
    with pytest.raises(InputError, match="no such model file"):
        Segmenter(tmp_path / "missing.tflite")


def test_a_model_from_elsewhere_runs_with_labels_given(
    tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, names = tmp_path / "bare.tflite", tmp_path / "names.txt"
    with zipfile.ZipFile(tiny_files["fp32"]) as archive:
        end = json.loads(archive.read("segformer.json"))["model"]["bytes"]
    path.write_bytes(tiny_files["fp32"].read_bytes()[:end])
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    names.write_text("a\nb\nc\nd\ne\nf\n")
    main(["predict", str(path), str(tmp_path / "photo.png"), "--labels", str(names), "--out", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "photo_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), Segmenter(tiny_files["fp32"])(PHOTO).mask)
    main(["info", str(path)])
    assert "no metadata" in capsys.readouterr().out
    assert time_files([path], runtimes=["litert"], repeats=1).timings[0].recipe == "unknown"
    names.write_text("a\nb\n")
    with pytest.raises(InputError, match=r"has 6 classes. Received: 2 names"):
        Segmenter(path, labels=Labels.read(names))
    for content, reason in (
        (b"\xff\xfe", "one per line"),
        (b"", "expected 1 to 255"),
        (b"a\n\nb", "Line 2 is empty"),
        (b'{"classes": 1}', "Received: JSON"),
    ):
        names.write_bytes(content)
        with pytest.raises(InputError, match=rf"names\.txt: .*{reason}"):
            Labels.read(names)


def test_a_bom_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffsky \r\n\troad\r\n\r\n".encode())  # nor are blanks around it
    assert Labels.read(tmp_path / "names.txt").names == ("sky", "road")


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_threads_share_one(tiny_files: dict, recipe: str) -> None:
    segmenter = Segmenter(tiny_files[recipe], runtime="litert", threads=1)
    photos = [np.random.default_rng(i).integers(0, 256, (60, 80, 3), np.uint8) for i in range(8)]
    alone = [segmenter(photo).mask for photo in photos]
    assert len({mask.tobytes() for mask in alone}) == 8
    with ThreadPoolExecutor(8) as pool:
        for i, result in enumerate(pool.map(segmenter, photos * 20)):
            np.testing.assert_array_equal(result.mask, alone[i % 8])


def test_what_a_web_service_has_in_hand(tiny_files: dict) -> None:
    """Bytes of a request, a stream, and nothing. BGR is not to be told from RGB, and so it is said where one calls."""
    segmenter, stream = Segmenter(tiny_files["fp32"], runtime="litert"), BytesIO()
    Image.fromarray(PHOTO).save(stream, "PNG")
    expected = segmenter(PHOTO).mask
    for given_image in (stream.getvalue(), stream):
        np.testing.assert_array_equal(segmenter(given_image).mask, expected)
    with pytest.raises(InputError, match=r"expected an image: a path, .* Received: NoneType"):
        segmenter(None)  # type: ignore[arg-type]
    assert "BGR" in (Segmenter.__call__.__doc__ or "")


def test_models_of_another_kind_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    def double(x: tf.Tensor) -> tf.Tensor:
        return 2 * x

    function = tf.function(double, input_signature=[tf.TensorSpec((1, 8), tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    (tmp_path / "other.tflite").write_bytes(converter.convert())
    with pytest.raises(InputError, match=r"other\.tflite: expected an RGB image .* Received: float32 \[1, 8\] in"):
        Segmenter(tmp_path / "other.tflite", labels=Labels.numbered(6))


def test_runtimes_that_are_not_there_are_refused(tiny_files: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"must be one of litert, tflite-runtime, litert-gpu, litert-fp16. Received: onnx"
    ):
        open_interpreter(tiny_files["fp32"], runtime="onnx")
    monkeypatch.setattr("segformer_tf.edge.runtime.find_spec", lambda name: None)
    with pytest.raises(InputError, match="litert is not installed here"):
        open_interpreter(tiny_files["fp32"], runtime="litert")


def test_logits_refuse_another_size(tiny_files: dict) -> None:
    with pytest.raises(InputError, match=r"expected uint8 \(97, 161, 3\). Received: uint8 \(120, 200, 3\)"):
        Segmenter(tiny_files["fp32"]).logits(PHOTO)


def test_info_reads_what_export_wrote(tiny_files: dict) -> None:
    info = read_model_info(tiny_files["int8"])
    assert info.recipe == "int8"
    assert info.labels.names == tuple(f"class {i}" for i in range(6))
    assert info.created["calibration_images"] == 6


def test_predict_without_a_model_takes_that_of_the_clone(
    tiny_files: dict, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(arguments.MODELS, "clothing", Path("models") / "other.tflite")
    images = str(toy_folder / "test" / "images")
    with pytest.raises(SystemExit):
        main(["predict", images])
    assert "no .tflite given, and no models/other.tflite here" in capsys.readouterr().err
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.tflite").write_bytes(tiny_files["fp32"].read_bytes())
    main(["predict", images, "--runtime", "litert"])
    assert len(list((tmp_path / "predictions").glob("*_mask.png"))) == 3
    with pytest.raises(SystemExit):
        main(["predict", str(tiny_files["fp32"])])
    assert "no image given" in capsys.readouterr().err


def test_time_to_decode_a_file_is_in_the_speed(
    tiny_files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: object, **options: object) -> np.ndarray:
        time.sleep(0 if isinstance(arguments[0], np.ndarray) else 0.1)  # an array is not decoded
        return load_image(*arguments, **options)  # type: ignore[arg-type]

    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr("segformer_tf.edge.segmenter.load_image", slow)
    main(["predict", str(tiny_files["fp32"]), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")])
    (record,) = json.loads((tmp_path / "out" / "predictions.json").read_text()).values()
    assert record["speed_ms"]["load"] >= 100


def test_a_dark_file_of_16_bits_is_told_and_bits_can_be_said(
    tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plain = np.random.default_rng(3).integers(0, 256, (97, 161), np.uint8)
    Image.fromarray(plain.astype(np.uint16) * 16).save(tmp_path / "deep.png")
    model, photo = str(tiny_files["fp32"]), str(tmp_path / "deep.png")
    main(["predict", model, photo, "--out", str(tmp_path / "a")])
    assert "its values reach 4080, of 65535" in capsys.readouterr().err
    main(["predict", model, photo, "--out", str(tmp_path / "b"), "--bits", "12"])
    assert "its values reach" not in capsys.readouterr().err
    expected = Segmenter(model)(np.repeat(plain[..., None], 3, axis=2)).mask
    for folder, same in (("a", False), ("b", True)):
        with Image.open(tmp_path / folder / "deep_mask.png") as mask:
            assert np.array_equal(np.asarray(mask), expected) == same
    np.testing.assert_array_equal(Segmenter(model, bits=12)(photo).mask, expected)
    with pytest.raises(InputError, match=r"expected the path of a \.tflite. Received: NoneType"):
        Segmenter(None)  # type: ignore[arg-type]
