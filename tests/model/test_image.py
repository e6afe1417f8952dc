from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer_tf import image as image_module
from segformer_tf.edge import fit_image, list_images, load_image
from segformer_tf.errors import InputError
from segformer_tf.image import Head, read_head

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_path_pil_and_array_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    for image in (path, str(path), Image.fromarray(PIXELS), PIXELS):
        np.testing.assert_array_equal(load_image(image), PIXELS)


def test_bytes_and_file_objects_are_read(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    content = stream.getvalue()
    (tmp_path / "image.png").write_bytes(content)
    for image in (content, bytearray(content), memoryview(content), BytesIO(content), stream):
        np.testing.assert_array_equal(load_image(image), PIXELS)
    with (tmp_path / "image.png").open("rb") as file:
        np.testing.assert_array_equal(load_image(file), PIXELS)
    for broken in (b"", b"no image", content[:200], BytesIO(), StringIO("text")):
        with pytest.raises(InputError, match="bytes: not a readable image"):
            load_image(broken)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "expected an image: a path, a PIL image, an array, .* Received: NoneType"),
        ([PIXELS], "Received: list"),
        (PIXELS[..., 0], r"np\.stack\(\[image\] \* 3, axis=-1\)\. Received: uint8 \(20, 30\)"),
        (PIXELS / np.float32(255), r"\(image \* 255\)\.round\(\).* Received: float32 \(20, 30, 3\)"),
        (PIXELS[None], r"one image at a time\. Received: uint8 \(1, 20, 30, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"image\[\.\.\., :3\]\. Received: uint8 \(4, 4, 4\)"),
        (PIXELS.astype(np.int64), r"expected an RGB array \(H, W, 3\) of uint8\. Received: int64"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg: a URL; expected a file"),
        (Path("s3://bucket/a.jpg"), "s3:/bucket/a.jpg: a URL"),
    ],
)
def test_what_is_no_image_says_what_was_expected(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_image(image)
    assert len(str(caught.value).splitlines()) == 1


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: rotate 90 degrees clockwise to see it upright
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), np.rot90(PIXELS, -1))
    for suffix in ("png", "jpg", "tif", "webp"):
        Image.fromarray(PIXELS).save(tmp_path / f"turned.{suffix}", exif=exif)
        assert read_head(tmp_path / f"turned.{suffix}") == Head((20, 30), 6)
        assert read_head(tmp_path / f"turned.{suffix}").upright == load_image(tmp_path / f"turned.{suffix}").shape[:2]


def test_exif_behind_a_pngs_pixels_turns_it_too(tmp_path: Path) -> None:
    exif, path = Image.Exif(), tmp_path / "turned.png"
    exif[0x0112] = 3
    Image.fromarray(PIXELS).save(path, exif=exif)
    data = path.read_bytes()
    at, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    path.write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    np.testing.assert_array_equal(load_image(path), PIXELS[::-1, ::-1])
    assert read_head(path) == Head((20, 30), 3)


def test_hidden_files_of_a_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    assert list_images([tmp_path]) == [tmp_path / "a.png"]
    assert list_images([tmp_path / "._a.png"]) == [tmp_path / "._a.png"]  # it was asked for


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert load_image(path).shape == (20, 30, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
def test_strips_are_the_whole_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(PIXELS).convert(mode)
    monkeypatch.setattr(image_module, "_STRIP_BYTES", 3 * 30 * 7)  # strips of 7, 7 and 6 rows
    np.testing.assert_array_equal(load_image(picture), np.asarray(picture.convert("RGB")))
    monkeypatch.setattr(image_module, "_STRIP_BYTES", 1)
    np.testing.assert_array_equal(load_image(picture), np.asarray(picture.convert("RGB")))


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    grey = (np.arange(20 * 30).reshape(20, 30) * 109).astype(np.uint16)
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        np.testing.assert_array_equal(load_image(tmp_path / name), np.repeat((grey >> 8)[..., None], 3, -1))
    np.testing.assert_array_equal(load_image(Image.fromarray(grey.astype(np.int32)))[..., 0], grey >> 8)
    np.testing.assert_array_equal(load_image(Image.fromarray(PIXELS[..., 0].astype(np.int32)))[..., 0], PIXELS[..., 0])
    # 16-bit RGB: a PNG written by hand, for Pillow writes none
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack([grey] * 3, -1))
    (tmp_path / "rgb.png").write_bytes(png(30, 20, bits=16, kind=2, data=rows))
    np.testing.assert_array_equal(load_image(tmp_path / "rgb.png")[..., 1], grey >> 8)
    for pixels, message in (
        (np.ones((2, 2), np.float32), "32-bit floats"),
        (np.full((2, 2), 70000), r"70000\.\.70000"),
    ):
        Image.fromarray(pixels.astype(pixels.dtype.name.replace("64", "32"))).save(tmp_path / "odd.tif")
        for bits in (None, 12):
            with pytest.raises(InputError, match=rf"odd\.tif: pixels are {message}"):
                load_image(tmp_path / "odd.tif", bits=bits)


def png(width: int, height: int, *, bits: int, kind: int, data: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_pictures_of_any_shape_are_read(tmp_path: Path) -> None:
    for width, height in ((1, 1), (1, 300), (300, 1), (5200, 4000)):
        Image.new("RGB", (width, height), (10, 20, 30)).save(tmp_path / "image.png")
        pixels = load_image(tmp_path / "image.png")
        assert pixels.shape == (height, width, 3)
        np.testing.assert_array_equal(np.unique(fit_image(pixels, (32, 32)).reshape(-1, 3), axis=0), [[10, 20, 30]])


def test_a_mislabelled_picture_is_read_for_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")
    np.testing.assert_array_equal(load_image(tmp_path / "image.jpg"), PIXELS)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, bits=8, kind=2, data=b""))
    with pytest.raises(InputError, match=r"bomb\.png: not a readable image \(Image size \(10000000000 pixels\)"):
        load_image(tmp_path / "bomb.png")


def test_a_large_picture_is_read_without_a_warning(tmp_path: Path) -> None:
    """Pillow warns from 89 million pixels; warnings are errors here."""
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    for _ in range(2):
        assert read_head(tmp_path / "large.png").upright == (9_500, 10_000)
    with pytest.raises(InputError, match="not a readable image"):
        upright_size_of(tmp_path, 14_000, 14_000)


def upright_size_of(folder: Path, width: int, height: int) -> tuple[int, int]:
    (folder / "head.png").write_bytes(png(width, height, bits=8, kind=2, data=b""))
    return read_head(folder / "head.png").upright


def test_pipes_and_folders_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(InputError, match="no such image"):
            load_image(path)


def test_resize_is_antialiased_and_full_size_is_left_alone() -> None:
    checks = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((2, 2)))[..., None].repeat(3, -1).astype(np.uint8) * 255
    assert fit_image(checks, (16, 16)) is checks
    small = fit_image(checks, (4, 4))
    assert small.shape == (4, 4, 3)
    assert small.std() < 20  # a filter without antialiasing would keep black and white


def test_unreadable_images_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    for name in ("empty.jpg", "text.png", "cut.png"):
        with pytest.raises(InputError, match=f"{name}: not a readable image"):
            load_image(tmp_path / name)
    with pytest.raises(InputError, match="no such image"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match=r"expected an RGB array.*float64"):
        load_image(np.zeros((4, 4, 3)))


def test_folders_are_searched_and_nothing_is_an_error(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt", "._a.PNG", ".DS_Store", ".hidden.jpg"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images([tmp_path])] == ["a.PNG", "b.jpg"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no image"):
        list_images([tmp_path / "none"])
    with pytest.raises(InputError, match="no such file or folder"):
        list_images([tmp_path / "missing"])
    with pytest.raises(InputError, match="a URL; expected a file"):
        list_images([Path("https://example.org/a.jpg")])
