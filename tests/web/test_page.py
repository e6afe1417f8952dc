"""The page of `segformer serve`, used in Chromium."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from segformer_tf.edge import Segmenter
from segformer_tf.image import load_image
from segformer_tf.model import SegFormer
from segformer_tf.overlay import overlay
from tests.conftest import DATA
from tests.web.drive import Step, drive, served

pytestmark = pytest.mark.web

ROOT = Path(__file__).parents[2]
STREETS = ROOT / "models" / "camvid_b0_int8.tflite"
PHONE = {"viewport": {"width": 360, "height": 740}, "isMobile": True, "hasTouch": True, "deviceScaleFactor": 2}


@pytest.fixture(scope="session")
def streets_fp32(shared: Callable) -> Path:
    """The street scenes model, not quantized, for pictures of 288x384."""
    from convert.export import export_tflite
    from segformer_tf.keras_file import load_segformer

    model = load_segformer(ROOT / "models" / "camvid_b0.keras")
    options = {"recipe": "fp32", "size": (288, 384), "runtimes": ("litert",)}
    return shared("streets.tflite", lambda out: export_tflite(model, out, **options))


@pytest.fixture
def streets_page() -> Iterator[str]:
    with served(STREETS) as url:
        yield url


@pytest.fixture
def tiny_page(tiny_files: dict[str, Path]) -> Iterator[str]:
    with served(tiny_files["fp32"]) as url:
        yield url


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A real photograph where there are any, else a drawing of this repository."""
    files = sorted((DATA / "camvid" / "test" / "images").glob("*")) or [ROOT / "docs" / "masks.png"]
    return Image.open(files[0]).convert("RGB")


@pytest.fixture
def pngs(photo: Image.Image, tmp_path: Path) -> list[Path]:
    """Real PNGs, of several sizes and kinds."""
    files = [ROOT / "docs" / "masks.png", *sorted((DATA / "cityscapes_sample").glob("*_leftImg8bit.png"))]
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    small = photo.resize((97, 61))
    pictures: dict[str, Image.Image] = {"photo": photo, "alpha": alpha, "small": small, "gray": photo.convert("L")}
    for name, picture in {**pictures, "turned": photo, "tall": photo.crop((100, 0, 220, 360))}.items():
        files.append(tmp_path / f"{name}.png")
        picture.save(files[-1], exif=exif if name == "turned" else b"")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    return [*files, tmp_path / "deep.png"]


def saved_masks(url: str, pictures: list[Path], folder: Path) -> list[np.ndarray]:
    """The masks that the page gives to save, by way of dropped files."""
    steps: list[Step] = []
    for i, picture in enumerate(pictures):
        steps += [{"do": "drop", "file": picture}, {"do": "save", "what": "mask", "to": folder / f"{i}_saved.png"}]
    states = drive(url, steps, folder)["states"]
    assert not [state["problem"] for state in states if state["problem"]]
    assert [state["saved"] for state in states if "saved" in state] == [f"{file.stem}_mask.png" for file in pictures]
    masks = []
    for i in range(len(pictures)):
        with Image.open(folder / f"{i}_saved.png") as written:
            assert written.mode == "P"
            masks.append(np.asarray(written))
    return masks


def test_saved_masks_are_those_of_segmenter(streets_fp32: Path, pngs: list[Path], tmp_path: Path) -> None:
    """Dropped PNGs of a float model; its kernels round otherwise in WASM."""
    with served(streets_fp32) as url:
        masks = saved_masks(url, pngs, tmp_path)
    segmenter = Segmenter(streets_fp32, runtime="litert")
    for file, mask in zip(pngs, masks, strict=True):
        expected = segmenter(file).mask
        assert mask.shape == expected.shape, file.name
        assert (mask == expected).mean() >= 0.999, file.name
        assert len(np.unique(expected)) > 2, file.name


def test_int8_masks_are_close(streets_page: str, pngs: list[Path], tmp_path: Path) -> None:
    """LiteRT.js's integers round otherwise, as they do between any two CPUs."""
    segmenter = Segmenter(STREETS, runtime="litert")
    for file, mask in zip(pngs[-3:], saved_masks(streets_page, pngs[-3:], tmp_path), strict=True):
        assert (mask == segmenter(file).mask).mean() >= 0.95, file.name


def test_pixels_are_those_of_load_image(tiny_page: str, photo: Image.Image, tmp_path: Path) -> None:
    """Of what the browser decodes: JPEGs of all kinds, upright by EXIF, and lossless WebP and BMP."""
    exif, kinds = Image.Exif(), {}
    for turn in range(1, 9):
        exif[0x0112] = turn
        photo.save(kinds.setdefault(f"EXIF {turn}", tmp_path / f"{turn}.jpg"), exif=exif)
    photo.save(kinds.setdefault("progressive", tmp_path / "p.jpg"), progressive=True)
    photo.save(kinds.setdefault("sharp", tmp_path / "s.jpg"), quality=95, subsampling=0)
    photo.convert("L").save(kinds.setdefault("gray", tmp_path / "gray.jpg"))
    photo.convert("CMYK").save(kinds.setdefault("CMYK", tmp_path / "cmyk.jpg"))
    photo.save(kinds.setdefault("WebP", tmp_path / "a.webp"), lossless=True)
    photo.save(kinds.setdefault("BMP", tmp_path / "a.bmp"))
    steps = [{"do": "pixels", "file": file, "to": f"{file}.rgba"} for file in kinds.values()]
    states = drive(tiny_page, steps, tmp_path)["states"][1:]
    for (name, file), state in zip(kinds.items(), states, strict=True):
        expected = load_image(file)
        assert state["size"] == list(expected.shape[:2]), name
        pixels = np.fromfile(f"{file}.rgba", np.uint8).reshape(*state["size"], 4)[..., :3]
        assert np.abs(pixels.astype(int) - expected).max() <= 2, name  # 0 with the same libjpeg-turbo


def test_what_the_page_says(streets_page: str, photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "street.png")
    steps = [
        {"do": "drop", "file": tmp_path / "street.png"},
        {"do": "point", "x": 0.5, "y": 0.75},
        {"do": "focus", "on": "#view"},
        {"do": "press", "keys": ["ArrowDown", "Shift+ArrowDown", "ArrowRight"]},
        {"do": "opacity", "value": 30},
        {"do": "save", "what": "overlay", "to": tmp_path / "overlay.png"},
        {"do": "save", "what": "mask", "to": tmp_path / "mask.png"},
    ]
    opened, dropped, pointed, _, moved, *_ = drive(streets_page, steps, tmp_path)["states"]
    assert "11 classes, int8" in opened["model"]
    assert "research use only" in opened["terms"]
    assert opened["engine"].startswith("WASM, ")
    assert dropped["status"].startswith(f"street.png, {photo.width} × {photo.height} pixels.")
    assert dropped["seconds"] < 5  # photo in, overlay out
    assert [stage for stage, _ in dropped["speed"]] == ["read", "resize", "network", "mask", "together"]
    times = [float(time) for _, time in dropped["speed"]]
    assert sum(times[:4]) == pytest.approx(times[4], abs=3)

    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    labels = Segmenter(STREETS, runtime="litert").labels
    shares = np.bincount(mask.ravel(), minlength=11) / mask.size
    order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i]]
    assert [name for name, _ in dropped["legend"]] == [labels.names[i] for i in order]
    assert dropped["legend"][0][1] == f"{100 * shares[order[0]]:.1f} %"
    assert dropped["label"].startswith(f"street.png: {labels.names[order[0]]} {100 * shares[order[0]]:.1f} %, ")

    for state in (pointed, moved):
        name, x, y = state["pointed"].replace(" at ", ", ").split(", ")
        assert name == labels.names[mask[int(y), int(x)]]
    assert abs(int(pointed["pointed"].split()[-1]) / photo.height - 0.75) < 0.01
    assert int(y) - int(pointed["pointed"].split()[-1]) == pytest.approx(0.12 * photo.height, abs=2)
    picture = np.asarray(Image.open(tmp_path / "overlay.png"))
    assert np.abs(picture.astype(int) - overlay(load_image(photo), mask, labels, alpha=0.3)).max() <= 1


def broken_pictures(photo: Image.Image, folder: Path) -> dict[str, str]:
    """Files that cannot be read, and what the page says of them."""
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tif"):
        photo.save(folder / name)
    photo.save(folder / "p.jpg", progressive=True)
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "p.jpg"):
        content = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(content[: len(content) * 2 // 3])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("I am no picture.")
    (folder / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "noise.jpg").write_bytes(b"\xff\xd8\xff" + bytes(range(256)) * 4 + b"\xff\xd9")
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    return {
        "cut_a.png": "not a readable PNG: its pixels are damaged or cut off",
        "cut_a.jpg": "not a readable JPEG: the file is cut off",
        "cut_p.jpg": "not a readable JPEG: the file is cut off",
        "cut_a.webp": "not a readable WebP: the file is cut off",
        "cut_a.bmp": "not a readable BMP: the file is cut off",
        "empty.jpg": "the file is empty",
        "text.png": "expected JPEG, PNG, WebP, BMP or AVIF. Received: another file",
        "page.svg": "Received: an SVG",
        "a.gif": "Received: a GIF",
        "a.tif": "Received: a TIFF",
        "noise.jpg": "not a readable JPEG",
        "huge.png": "60000 x 60000 pixels are more than the 64 million",
    }


def test_a_picture_that_cannot_be_read_gives_a_sentence(tiny_page: str, photo: Image.Image, tmp_path: Path) -> None:
    expected = broken_pictures(photo, tmp_path)
    steps: list[Step] = [{"do": "drop", "file": tmp_path / name} for name in expected]
    steps += [{"do": "drop", "files": []}, {"do": "drop", "file": tmp_path / "a.png"}]
    *states, empty, good = drive(tiny_page, steps, tmp_path)["states"][1:]
    for (name, sentence), state in zip(expected.items(), states, strict=True):
        assert state["problem"].startswith(f"{name}: "), name
        assert sentence in state["problem"], name
        assert "should not happen" not in state["problem"], name
    assert "holds no file" in empty["problem"]
    assert not good["problem"]
    assert good["status"].startswith("a.png")


def test_animated_and_transparent_pictures_say_so(tiny_page: str, photo: Image.Image, tmp_path: Path) -> None:
    more = {"save_all": True, "append_images": [photo.rotate(90)]}
    photo.save(tmp_path / "a.png", **more)
    photo.save(tmp_path / "a.webp", **more)
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    alpha.save(tmp_path / "t.webp", lossless=True)
    steps = [{"do": "drop", "file": tmp_path / name} for name in ("a.png", "a.webp", "t.webp")]
    states = drive(tiny_page, steps, tmp_path)["states"][1:]
    for state, note in zip(states, ("the first of 2 pictures", "Animated", "Partly transparent"), strict=True):
        assert note in state["status"]


def lying(model: bytes) -> bytes:
    """A model whose labels unpack to more than the zip says."""
    content = BytesIO(model[: model.index(b"PK\x03\x04")])
    with ZipFile(BytesIO(model)) as old, ZipFile(content, "a", ZIP_DEFLATED) as new:
        new.writestr("segformer.json", old.read("segformer.json"))
        new.writestr("labels.txt", bytes(3 << 20))
    said = bytearray(content.getvalue())
    struct.pack_into("<I", said, said.rindex(b"PK\x01\x02") + 24, 100)
    return bytes(said)


def test_models_of_ones_own(
    tiny_page: str, tiny_files: dict[str, Path], streets_fp32: Path, photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    fp32 = streets_fp32.read_bytes()
    end = fp32.rindex(b"PK\x05\x06")
    broken = {
        "text.tflite": (b"I am no model.", "not a TFLite file"),
        "empty.tflite": (b"", "the file is empty"),
        "cut.tflite": (fp32[: len(fp32) // 2], "not a model exported by `segformer export`, or an incomplete copy"),
        "plain.tflite": (fp32[: fp32.index(b"PK\x03\x04")], "not a model exported by `segformer export`"),
        "flipped.tflite": (fp32[:9000] + bytes([fp32[9000] ^ 255]) + fp32[9001:], "damaged: its bytes are not those"),
        "zip.tflite": (fp32[: end + 16] + b"\xff\xff\xff\x7f" + fp32[end + 20 :], "its metadata is damaged"),
        "bomb.tflite": (lying(fp32), "a file in it is larger than 1048576 bytes"),
        "io.tflite": (tiny_files["int8_io"].read_bytes(), "LiteRT.js refuses this file of recipe int8_io"),
    }
    for name, (content, _) in broken.items():
        (tmp_path / name).write_bytes(content)
    steps: list[Step] = [{"do": "drop", "file": tmp_path / name} for name in broken]
    steps += [{"do": "drop", "file": tmp_path / "a.png"}]
    steps += [
        {"do": "pick", "button": "#open-model", "file": streets_fp32},
        {"do": "paste", "file": tmp_path / "a.png"},
    ]
    *states, still, chosen, pasted = drive(tiny_page, steps, tmp_path)["states"][1:]
    for (name, (_, sentence)), state in zip(broken.items(), states, strict=True):
        assert state["problem"].startswith(f"{name}: "), name
        assert sentence in state["problem"], (name, state["problem"])
        assert "fp32.tflite: 6 classes" in state["model"]  # the one that was open stays
    assert still["status"].startswith("a.png")
    assert "streets.tflite: 11 classes, fp32, 384 × 288" in chosen["model"]
    assert "research use only" in chosen["terms"]
    assert (still["result"], chosen["result"], pasted["result"]) == (True, False, True)  # none of another model's
    assert {name for name, _ in pasted["legend"]} <= set(Segmenter(STREETS, runtime="litert").labels.names)


def test_a_class_map_beside_the_logits(tiny: SegFormer, toy_folder: Path, tmp_path: Path) -> None:
    from convert.export import export_tflite

    file, picture = tmp_path / "map.tflite", toy_folder / "test" / "images" / "0.png"
    export_tflite(tiny, file, recipe="fp32", size=(64, 96), runtimes=("litert",), class_map=True)
    with served(file) as url:
        (mask,) = saved_masks(url, [picture], tmp_path)
    assert (mask == Segmenter(file, runtime="litert")(picture).mask).mean() >= 0.999


def test_a_network_that_broke_off_is_a_sentence(tiny_page: str, toy_folder: Path, tmp_path: Path) -> None:
    """Every time, and not only the first."""
    picture = toy_folder / "test" / "images" / "0.png"
    change = [
        "worker.js",
        "const result = await",
        "setTimeout(() => null.x); const result = await new Promise(() => 0) ||",
    ]
    seen = drive(tiny_page, [{"do": "drop", "file": picture}] * 2, tmp_path, change=change)
    for state in seen["states"][1:]:
        assert "0.png: the network broke off (" in state["problem"]
        assert state["status"] == "Ready for a picture."


@pytest.mark.parametrize("recipe", ["fp16", "weight_int8", "dynamic_int8", "int8", "int8_mixed", "w8a16"])
def test_other_recipes_run(tiny_files: dict[str, Path], recipe: str, toy_folder: Path, tmp_path: Path) -> None:
    picture = toy_folder / "test" / "images" / "0.png"
    with served(tiny_files[recipe]) as url:
        (mask,) = saved_masks(url, [picture], tmp_path)
    assert (mask == Segmenter(tiny_files[recipe], runtime="litert")(picture).mask).mean() > 0.9, recipe


TIME, ANSWER = "performance.now() - start", "const logits = await segmenter.infer(input)"


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (TIME, "0", "WebGPU: the same class on 100.00 % of the grid as WASM, 0 ms, WASM "),
        (TIME, "1e6", "WebGPU is right (the same class on 100.00 % of the grid), but not faster (1000000 ms, WASM "),
        (ANSWER, "const logits = new Float32Array(25 * 41 * 6)", "WebGPU gives another result (the same class on "),
        (ANSWER, "const logits = new Float32Array(25 * 41 * 6).fill(NaN)", "(the same class on 0.00 % of the grid)"),
        (ANSWER, "throw new Error('lost')", "WebGPU is not used: This should not happen: lost"),
    ],
)
def test_webgpu_is_used_if_it_is_right_and_faster(
    tiny_page: str, toy_folder: Path, before: str, after: str, sentence: str, tmp_path: Path
) -> None:
    """On SwiftShader; what its worker answers is changed, so that each of the reasons occurs."""
    pictures = sorted((toy_folder / "test" / "images").glob("*.png"))
    steps: list[Step] = [{"do": "drop", "file": pictures[0]}, {"do": "engine"}]
    steps += [{"do": "drop", "file": pictures[1]}, {"do": "save", "what": "mask", "to": tmp_path / "mask.png"}]
    seen = drive(tiny_page, steps, tmp_path, webgpu=True, change=["worker.js", before, after])
    _, first, checked, *_, last = seen["states"]
    assert first["legend"]  # WASM's answer does not wait for WebGPU's
    assert sentence in checked["engine"]
    assert checked["engine"].startswith("WebGPU" if after == "0" else "WASM, ")
    assert not last["problem"]


def test_nothing_leaves_the_page(tiny_page: str, toy_folder: Path, tmp_path: Path) -> None:
    picture = toy_folder / "test" / "images" / "0.png"
    stopped = "new Promise((then) => addEventListener('securitypolicyviolation', (event) => then(event.blockedURI)))"
    picture_of = "Object.assign(new Image(), {src: 'https://example.org/a.png'})"
    steps: list[Step] = [
        {"do": "drop", "file": picture},
        {"do": "save", "what": "mask", "to": tmp_path / "mask.png"},
        {"do": "evaluate", "script": "crossOriginIsolated"},
        {"do": "evaluate", "script": "fetch('https://example.org/').then(() => 'sent', () => 'refused')"},
        {"do": "evaluate", "script": f"[{stopped}, {picture_of}][0]"},
    ]
    seen = drive(tiny_page, steps, tmp_path, expected="Content Security Policy")
    away = {address for address in seen["requests"] if not address.startswith(tiny_page)}
    assert away <= {"https://example.org/", "https://example.org/a.png"}
    assert {address.rsplit("/", 1)[-1] for address in seen["requests"]} >= {"worker.js", "mask.js", "served.tflite"}
    assert [state["value"] for state in seen["states"][-3:]] == [True, "refused", "https://example.org/a.png"]


def test_camera(tiny_page: str, tmp_path: Path) -> None:
    steps: list[Step] = [
        {"do": "click", "on": "#camera", "hasty": True},
        {"do": "shown", "hasty": True},
        {"do": "click", "on": "#camera"},
        {"do": "save", "what": "mask", "to": tmp_path / "mask.png"},
    ]
    _, _, running, stopped, saved = drive(tiny_page, steps, tmp_path, camera="allowed")["states"]
    assert running["status"].startswith("Live")
    assert stopped["status"].startswith("The camera's last picture.")
    assert saved["saved"] == "camera_mask.png"
    assert np.asarray(Image.open(tmp_path / "mask.png")).size > 10_000
    refused = drive(tiny_page, [{"do": "click", "on": "#camera"}], tmp_path)["states"][-1]
    assert "no camera: " in refused["problem"]


def test_a_phone_and_a_dark_room(streets_page: str, photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "street.png")
    width = "document.documentElement.scrollWidth - innerWidth"
    names = "[...document.querySelectorAll('button, input:not([hidden])')].filter((each) => !each.hidden && "
    names += "!(each.textContent.trim() || each.labels?.length)).map((each) => each.outerHTML)"
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    steps: list[Step] = [{"do": "drop", "file": tmp_path / "street.png"}]
    steps += [{"do": "evaluate", "script": script} for script in (width, names, ground)]
    values: dict[str, list[Any]] = {}
    for scheme in ("light", "dark"):
        seen = drive(streets_page, steps, tmp_path, page={**PHONE, "colorScheme": scheme})
        values[scheme] = [state["value"] for state in seen["states"][-3:]]
        assert values[scheme][:2] == [0, []]
    assert values["light"][2] != values["dark"][2]
