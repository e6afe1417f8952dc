from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.edge import fit_image, list_images, load_image
from segformer_tf.edge import image as image_module
from segformer_tf.edge.image import upright_size
from segformer_tf.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_path_pil_and_array_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    for given in (path, str(path), Image.fromarray(PIXELS), PIXELS):
        np.testing.assert_array_equal(load_image(given), PIXELS)


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: rotate 90 degrees clockwise to see it upright
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), np.rot90(PIXELS, -1))
    assert upright_size(tmp_path / "turned.png") == (30, 20)


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
    for pixels, told in ((np.ones((2, 2), np.float32), "32-bit floats"), (np.full((2, 2), 70000), r"70000\.\.70000")):
        Image.fromarray(pixels.astype(pixels.dtype.name.replace("64", "32"))).save(tmp_path / "odd.tif")
        for bits in (None, 12):
            with pytest.raises(InputError, match=rf"odd\.tif: pixels are {told}"):
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
    for name in ("b.jpg", "a.PNG", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images([tmp_path])] == ["a.PNG", "b.jpg"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no image"):
        list_images([tmp_path / "none"])
    with pytest.raises(InputError, match="no such file or folder"):
        list_images([tmp_path / "missing"])
