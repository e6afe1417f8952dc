"""What `predict` writes beside mask and overlay, read back by other people's readers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from convert.graph.ir import Tensor
from segformer_tf.cli import main
from segformer_tf.edge import Result, Segmenter, runtime
from segformer_tf.edge.predict.annotations import Labelme
from segformer_tf.edge.predict.output_options import OutputOptions
from segformer_tf.errors import InputError
from segformer_tf.labels import Labels
from tests.edge.foreign import PHOTO, RAW, SIZE, add, bright, channel_scores, quantization, start, write
from tests.helpers import refused
from tests.model.test_confidence import softmax
from tests.model.test_mask import upsample_float64
from tests.model.test_polygons import blobs

LABELS = Labels.named(["Sky", "traffic light", "Car", "door, double"])


@pytest.fixture(autouse=True)
def _whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_try_elsewhere", lambda *_: None)


def result_of(mask: np.ndarray, confidence: np.ndarray | None = None) -> Result:
    return Result(np.zeros((*mask.shape, 3), np.uint8), mask, LABELS, {"mask": 1.0}, confidence)


@pytest.mark.parametrize("recipe", ["fp32", "int8", "int8_io"])
def test_confidence_is_the_softmax_of_the_resized_logits(tiny_files: dict, recipe: str) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (97, 161, 3), np.uint8)
    segmenter = Segmenter(tiny_files[recipe], runtime="litert")
    result = segmenter(photo, confidence=True)
    assert result.confidence is not None
    expected = softmax(upsample_float64(segmenter.logits(photo), (97, 161))).max(-1)
    np.testing.assert_allclose(result.confidence, expected, atol=1e-5)
    assert set(result.speed) == {"load", "resize", "invoke", "mask", "confidence"}
    plain = segmenter(photo)
    assert plain.confidence is None
    np.testing.assert_array_equal(plain.mask, result.mask)
    with pytest.raises(InputError, match="ask for it: segmenter"):
        plain.above(0.5)


def test_files_from_elsewhere_give_the_probability_that_they_hold(tmp_path: Path) -> None:
    def confidence(output: Tensor, names: list[str], **options: object) -> np.ndarray:
        path = write(graph, output, tmp_path / "file.tflite", normalization=RAW)
        segmenter = Segmenter(path, labels=Labels.named(names), runtime="litert", **options)  # type: ignore[arg-type]
        sure = segmenter(PHOTO, confidence=True).confidence
        assert sure is not None
        return sure

    graph, x = start()
    scores = graph.binary("MUL", "scaled", channel_scores(graph, x), 0.01)
    expected = softmax(0.01 * PHOTO.astype(float)).max(-1)
    np.testing.assert_allclose(confidence(scores, ["r", "g", "b"]), expected, atol=1e-5)
    shares = graph.unary("SOFTMAX", "shares", scores)
    graph.ops[-1].options["beta"] = 1.0
    np.testing.assert_allclose(confidence(shares, ["r", "g", "b"]), expected, atol=1e-5)
    channel = graph.binary("MUL", "soft", bright(graph, x, (120, 120, 120), logits=False), 0.01)
    p = 1 / (1 + np.exp(-0.01 * (PHOTO.astype(float).sum(-1) - 360)))
    either = np.where(p > 0.5, p, 1 - p)
    np.testing.assert_allclose(confidence(channel, ["bright"], foreground_above=0), either, atol=1e-5)
    sigmoid = graph.unary("LOGISTIC", "probability", channel)
    np.testing.assert_allclose(confidence(sigmoid, ["bright"]), either, atol=1e-5)
    strict = np.where(p > 0.8, p, 1 - p)
    np.testing.assert_allclose(confidence(sigmoid, ["bright"], foreground_above=0.8), strict, atol=1e-5)
    stored = Tensor("stored", (1, *SIZE, 1), np.int8, None, quantization(1 / 256, -128))
    add(graph, "QUANTIZE", [sigmoid], stored)
    np.testing.assert_allclose(confidence(stored, ["bright"]), either, atol=1 / 250)


def test_a_file_of_ids_has_no_confidence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from convert.graph.ir import constant

    graph, x = start()
    axis = constant("axis", np.array([3], np.int32))
    ids = Tensor("ids", (1, *SIZE), np.int32)
    add(graph, "ARG_MAX", [channel_scores(graph, x), axis], ids, outputType="INT32")
    path = write(graph, ids, tmp_path / "ids.tflite", normalization=RAW)
    segmenter = Segmenter(path, labels=Labels.named("rgb"), runtime="litert")
    segmenter(PHOTO)
    with pytest.raises(InputError, match="class ids and no logits, so there is no confidence"):
        segmenter(PHOTO, confidence=True)
    (tmp_path / "names.txt").write_text("r\ng\nb\n")
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    command = ["predict", path, tmp_path / "a.png", "--labels", tmp_path / "names.txt", "--out", tmp_path / "out"]
    line = refused(capsys, *command, "--threshold", 0.5)
    assert line == f"segformer: --confidence and --threshold: {path} gives class ids and no logits"
    assert not (tmp_path / "out").exists()


def test_what_is_left_of_a_result() -> None:
    mask = np.array([[0, 1, 2], [3, 2, 2]], np.uint8)
    result = result_of(mask, np.array([[0.1, 0.6, 0.9], [0.61, 0.3, 1]], np.float32))
    np.testing.assert_array_equal(result.mask_of(" CAR"), mask == 2)
    np.testing.assert_array_equal(result.only(["car", "Sky"]).mask, [[0, 255, 2], [255, 2, 2]])
    np.testing.assert_array_equal(result.only("car").mask, [[255, 255, 2], [255, 2, 2]])
    np.testing.assert_array_equal(result.above(0.6).mask, [[255, 1, 2], [3, 255, 2]])
    left = result.above(0.6).only(["car"])
    (share,) = left.classes
    assert (share.id, share.share, share.confidence) == (2, pytest.approx(2 / 6), pytest.approx(0.95))
    assert json.loads(left.to_json())["ignored"] == pytest.approx(4 / 6, abs=1e-6)
    assert {p.id for p in left.polygons()} == {2}
    with pytest.raises(InputError, match=r"no class is named 'carr'; did you mean Car\?"):
        result.mask_of("carr")
    with pytest.raises(InputError, match="expected one of Sky, traffic light, Car, door, double"):
        result.only(["xyz"])
    with pytest.raises(InputError, match=r"a probability, 0\.\.1. Received: 60"):
        result.above(60)


@pytest.mark.parametrize("ignore_id", [255, 4])
def test_saved_pictures_hold_ignored_pixels_and_confidence(ignore_id: int, tmp_path: Path) -> None:
    mask = blobs(1, (13, 17))
    sure = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    paths = result_of(mask, sure).save(tmp_path, "a", ignore_id=ignore_id)
    assert paths == Result.paths(tmp_path, "a", confidence=True)
    with Image.open(paths[0]) as saved, Image.open(paths[2]) as gray:
        np.testing.assert_array_equal(np.asarray(saved), np.where(mask == 255, ignore_id, mask))
        colors = np.asarray(saved.convert("RGB"))
        assert gray.mode == "L"
        np.testing.assert_allclose(np.asarray(gray), 255 * sure, atol=0.501)
    np.testing.assert_array_equal(colors[mask == 255], 0)
    with Image.open(paths[1]) as saved:  # above its legend
        shown = np.asarray(saved)[:13, :17]
    np.testing.assert_array_equal((shown == 0).all(-1), mask == 255)  # the image is black, no class is
    np.testing.assert_array_equal(colors[mask == 1], [LABELS.colors[1]] * int((mask == 1).sum()))


def read_coco(path: Path) -> np.ndarray:
    coco = COCO(path)
    (image,) = coco.dataset["images"]
    mask = np.full((image["height"], image["width"]), 255)
    for each in coco.dataset["annotations"]:
        inside = coco.annToMask(each).astype(bool)
        assert inside.sum() == each["area"]
        y, x = np.nonzero(inside)
        assert each["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
        assert (mask[inside] == 255).all()  # no two overlap
        mask[inside] = each["category_id"] - 1
    assert [c["name"] for c in coco.dataset["categories"]] == list(LABELS.names)
    return mask


def draw(rings: list, size: tuple[int, int], scale: int = 4) -> np.ndarray:
    """Pillow, on a finer grid, of which a point beside each pixel's center is taken: rings out of each other."""
    canvas = np.zeros((size[0] * scale, size[1] * scale), bool)
    for ring in rings:
        picture = Image.new("1", canvas.shape[::-1])
        ImageDraw.Draw(picture).polygon([(x * scale - 0.5, y * scale - 0.5) for x, y in ring], fill=1)
        canvas ^= np.asarray(picture)
    return canvas[scale // 2 :: scale, scale // 2 :: scale]


def read_labelme(path: Path) -> np.ndarray:
    content = json.loads(path.read_text())
    mask = np.full((content["imageHeight"], content["imageWidth"]), 255)
    for shape in content["shapes"]:
        assert shape["shape_type"] == "polygon"
        number = 255 if shape["label"] == "__ignore__" else LABELS.names.index(shape["label"])
        mask[draw([shape["points"]], mask.shape)] = number
    return mask


def read_geojson(path: Path, size: tuple[int, int]) -> np.ndarray:
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    mask = np.full(size, 255)
    for feature in content["features"]:
        assert (feature["type"], feature["geometry"]["type"]) == ("Feature", "Polygon")
        rings = feature["geometry"]["coordinates"]
        assert all(ring[0] == ring[-1] for ring in rings)
        properties = feature["properties"]
        assert properties["classification"]["name"] == LABELS.names[properties["class_id"]]
        mask[draw(rings, size)] = properties["class_id"]
    return mask


@pytest.mark.parametrize("seed", range(3))
def test_label_files_hold_the_mask(seed: int, tmp_path: Path) -> None:
    mask = blobs(seed, (37, 50))
    mask[5:30, 5:45] = 0
    mask[8:27, 8:40] = 255  # a hole that nothing covers, and an island in it
    mask[10:20, 10:30] = blobs(seed + 9, (10, 20))
    for format in ("coco", "labelme", "geojson"):
        files = OutputOptions(format=format).label_files(tmp_path / "out", LABELS)  # type: ignore[arg-type]
        assert files is not None
        files.add("a", tmp_path / "photos" / "a.jpg", result_of(mask))
        files.close()
        for path in files.paths(["a"]):
            assert path.is_file()
    np.testing.assert_array_equal(read_coco(tmp_path / "out" / "coco.json"), mask)
    np.testing.assert_array_equal(read_labelme(tmp_path / "out" / "a.json"), mask)
    np.testing.assert_array_equal(read_geojson(tmp_path / "out" / "a.geojson", mask.shape), mask)
    assert json.loads((tmp_path / "out" / "a.json").read_text())["imagePath"] == "../photos/a.jpg"


@pytest.mark.parametrize("format", ["coco", "labelme"])
def test_what_is_written_can_be_imported_to_train_on(format: str, tmp_path: Path) -> None:
    names = [f"photo{i}" for i in range(6)]
    masks = {name: np.where((mask := blobs(i, (40, 50))) == 255, 3, mask) for i, name in enumerate(names)}
    files = OutputOptions(format=format).label_files(tmp_path / "seen", LABELS)  # type: ignore[arg-type]
    assert files is not None
    (tmp_path / "photos").mkdir()
    for name, mask in masks.items():
        photo = tmp_path / "photos" / f"{name}.png"
        Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(photo)
        files.add(name, photo, result_of(mask.astype(np.uint8)))
    files.close()
    command = ["data", "import", tmp_path / "seen", "--images", tmp_path / "photos", "--out", tmp_path / "data"]
    main([str(word) for word in command])
    rows = json.loads((tmp_path / "data" / "dataset.json").read_text())["classes"]
    ids = {row["id"]: LABELS.index(row["name"]) for row in rows}
    found = list((tmp_path / "data").glob("*/masks/*.png"))
    assert sorted(path.stem for path in found) == names
    for path in found:
        with Image.open(path) as saved:
            np.testing.assert_array_equal(np.vectorize(ids.get)(np.asarray(saved)), masks[path.stem])


@pytest.mark.parametrize(("format", "options"), [("coco", ["--unlabeled", "ignore"]), ("labelme", [])])
def test_what_was_left_out_is_ignored_after_an_import(
    format: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    masks = {f"photo{i}": blobs(i, (40, 50)) for i in range(6)}
    assert all((mask == 255).any() for mask in masks.values())
    files = OutputOptions(format=format).label_files(tmp_path / "seen", LABELS)  # type: ignore[arg-type]
    assert files is not None
    (tmp_path / "photos").mkdir()
    for name, mask in masks.items():
        photo = tmp_path / "photos" / f"{name}.png"
        Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(photo)
        files.add(name, photo, result_of(mask))
    files.close()
    (tmp_path / "seen" / "predictions.json").write_text("{}")  # as predict writes
    command = ["data", "import", tmp_path / "seen", "--images", tmp_path / "photos", "--out", tmp_path / "data"]
    main([*map(str, command), *options])
    assert "skipped" not in capsys.readouterr().out
    rows = json.loads((tmp_path / "data" / "dataset.json").read_text())["classes"]
    assert "background" not in [row["name"] for row in rows]
    ids = {255: 255} | {row["id"]: LABELS.index(row["name"]) for row in rows}
    for path in (tmp_path / "data").glob("*/masks/*.png"):
        with Image.open(path) as saved:
            np.testing.assert_array_equal(np.vectorize(ids.get)(np.asarray(saved)), masks[path.stem])


def test_a_small_region_in_a_hole_goes_to_the_class_around_it_in_labelme(tmp_path: Path) -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 2
    Labelme(tmp_path, LABELS, tolerance=0, min_area=2).add("a", tmp_path / "a.png", result_of(mask))
    np.testing.assert_array_equal(read_labelme(tmp_path / "a.json"), 0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"threshold": 60}, "--threshold is a probability, 0..1. Received: 60"),
        ({"classes": ("car,Traffic Light", "cra")}, "--classes: no class is named 'cra'; did you mean Car"),
        ({"classes": (" ,",)}, "--classes: expected names of classes. Received: ' ,'"),
        ({"threshold": 0.5, "ignore_id": 3}, "--ignore-id 3 is class 'door, double' in the mask; expected 4..255"),
        ({"ignore_id": 9}, "--ignore-id is for --threshold and --classes"),
        ({"threshold": 0.5, "ignore_id": 256}, "--ignore-id must be 0..255"),
        ({"min_area": 3}, "--min-area is for the outlines of --format"),
        ({"format": "coco", "tolerance": float("nan")}, "--tolerance must be a number of pixels. Received: nan"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, line: str) -> None:
    with pytest.raises(InputError, match=line.replace("?", r"\?")):
        OutputOptions(**options).check(LABELS)


@pytest.mark.parametrize(
    ("module", "options", "hint"),
    [
        ("rasterio", [], "in the repository: pip install '.[polygons]' or '.[large]'"),
        ("pycocotools", [], "--format coco needs it: pip install pycocotools"),
        ("cv2", ["--tolerance", "1"], "--tolerance needs it: pip install opencv-python-headless"),
    ],
)
def test_a_missing_library_is_named_before_the_first_image(
    module: str,
    options: list,
    hint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph, x = start()
    path = write(graph, channel_scores(graph, x), tmp_path / "file.tflite", normalization=RAW)
    (tmp_path / "names.txt").write_text("r\ng\nb\n")
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    command = ["predict", path, tmp_path / "a.png", "--labels", tmp_path / "names.txt", "--out", tmp_path / "out"]
    assert refused(capsys, *command, "--format", "coco", *options).endswith(f"{module} is not installed; {hint}")
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_with_windows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    graph, x = start()
    path = write(graph, channel_scores(graph, x), tmp_path / "file.tflite", normalization=RAW)
    (tmp_path / "names.txt").write_text("r\ng\nb\n")
    Image.fromarray(PHOTO).save(tmp_path / "a.tif")
    command = ["predict", path, tmp_path / "a.tif", "--labels", tmp_path / "names.txt", "--out", tmp_path / "out"]
    line = refused(capsys, *command, "--slide", "--threshold", 0.5)
    assert "--confidence and --threshold are for pictures that are stretched, not for --slide" in line
    line = refused(capsys, *command, "--slide", "--classes", "r")
    assert "a.tif: of a TIFF --slide writes mask and overlay alone, whatever its size; leave out --classes, or" in line
    with pytest.raises(InputError, match="of an image that is stretched, not of windows"):
        Segmenter(path, labels=Labels.named("rgb"))(PHOTO, slide=True, confidence=True)
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    command[2] = tmp_path / "a.png"
    main([str(word) for word in (*command, "--slide", "--classes", "R", "--format", "geojson")])
    with Image.open(tmp_path / "out" / "a_mask.png") as saved:
        assert set(np.unique(np.asarray(saved))) <= {0, 255}
    assert (tmp_path / "out" / "a.geojson").is_file()


def test_names_of_classes_may_have_commas() -> None:
    options = OutputOptions(classes=("Door, Double", "car,sky"))
    options.check(LABELS)
    mask = np.array([[0, 1, 2, 3]], np.uint8)
    np.testing.assert_array_equal(options.narrowed(result_of(mask)).mask, [[0, 255, 2, 3]])


def test_from_the_command_line(tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    photo = np.random.default_rng(0).integers(0, 256, (60, 500, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "in" / "a.png")
    for name in ("a.txt", "b.TXT", "c.mp4", ".hidden"):
        (tmp_path / "in" / name).touch()
    command = ["predict", tiny_files["fp32"], tmp_path / "in", "--out", tmp_path / "out"]
    options = ["--confidence", "--threshold", "0.4", "--classes", "class 1,class 2", "--ignore-id", "99"]
    main([str(word) for word in (*command, *options, "--format", "coco")])
    said = capsys.readouterr().err.splitlines()
    assert "3 files skipped: .txt 2, .mp4 1" in said
    result = Segmenter(tiny_files["fp32"])(photo, confidence=True)
    assert result.confidence is not None
    expected = np.where(np.isin(result.mask, [1, 2]) & (result.confidence >= 0.4), result.mask, 99)
    with Image.open(tmp_path / "out" / "a_mask.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), expected)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("a_confidence.png", "a_mask.png", "a_overlay.png"),
        *("coco.json", "predictions.json"),
    ]
    for name in ("a_mask.png", "a_overlay.png", "predictions.json"):
        (tmp_path / "out" / name).unlink()
    assert "out/coco.json: exists already" in refused(capsys, *command, "--format", "coco")
    assert "out/a_confidence.png: exists already" in refused(capsys, *command, "--confidence")
    Image.fromarray(photo).save(tmp_path / "predictions.png")
    line = refused(capsys, "predict", tiny_files["fp32"], tmp_path / "predictions.png", "--format", "labelme")
    assert "its labels would replace predictions.json" in line
