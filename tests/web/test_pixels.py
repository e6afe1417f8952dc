"""Resize, mask and PNG of the page are those of segformer_tf, bit by bit."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from segformer_tf.errors import InputError
from segformer_tf.image import fit_image, load_image
from segformer_tf.mask import logits_to_mask
from tests.web.drive import node

pytestmark = pytest.mark.web


def test_mask(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = [(24, 41, 6, 97, 161), (10, 8, 3, 301, 17), (7, 9, 1, 5, 3), (20, 30, 150, 77, 121), (3, 3, 255, 64, 90)]
    jobs, expected = [], []
    for i, (h, w, classes, height, width) in enumerate(shapes):
        logits = random.normal(size=(h, w, classes)).astype(np.float32)
        if classes == 150:
            logits[3, 4, 5], logits[2, 2, 3], logits[9, 9] = np.nan, np.inf, 0
        if classes == 6:
            logits = logits.repeat(2, 0)[:h].round(1)  # equal ones
        logits.tofile(tmp_path / f"{i}.f32")
        expected.append(logits_to_mask(logits, (height, width)))
        jobs.append(
            {
                "do": "mask",
                "file": tmp_path / f"{i}.f32",
                "to": tmp_path / f"{i}.ids",
                "grid": (h, w, classes),
                "size": (height, width),
            }
        )
    assert not any(node("pixels.mjs", jobs, tmp_path))
    for job, mask in zip(jobs, expected, strict=True):
        assert Path(job["to"]).read_bytes() == mask.tobytes()


def test_resize(tmp_path: Path) -> None:
    """In either order of Pillow 13's two passes, and at the sizes where it changes."""
    if int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow 13 changed the order of its passes")
    random = np.random.default_rng(0)
    sizes = [(97, 161, 64, 96), (36, 48, 57, 76), (501, 333, 97, 161), (40, 90, 40, 12), (90, 40, 33, 40)]
    sizes += [(5, 6, 5, 6), (1, 1, 29, 31), (700, 10, 1, 1), (50, 40, 49, 60), (100, 50, 60, 30), (101, 50, 60, 30)]
    sizes += random.integers(1, 200, (40, 4)).tolist()
    jobs, expected = [], []
    for i, (h, w, height, width) in enumerate(sizes):
        pixels = random.integers(0, 256, (h, w, 4), np.uint8)
        pixels.tofile(tmp_path / f"{i}.rgba")
        expected.append(fit_image(pixels[..., :3].copy(), (height, width)))
        jobs.append(
            {
                "do": "resize",
                "file": tmp_path / f"{i}.rgba",
                "to": tmp_path / f"{i}.rgb",
                "from": (h, w),
                "size": (height, width),
            }
        )
    assert not any(node("pixels.mjs", jobs, tmp_path))
    for job, pixels in zip(jobs, expected, strict=True):
        assert Path(job["to"]).read_bytes() == pixels.tobytes(), (job["from"], job["size"])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(row: NDArray[np.uint8], above: NDArray[np.uint8], kind: int) -> bytes:
    """A row of RGB bytes by one of PNG's five filters, behind its number."""
    x, up = row.astype(int), above.astype(int)
    left, corner = (np.concatenate([np.zeros(3, int), part[:-3]]) for part in (x, up))
    near = np.abs([up - corner, left - corner, left + up - 2 * corner]).argmin(0)
    guess = [0 * x, left, up, (left + up) // 2, np.choose(near, [left, up, corner])][kind]
    return bytes([kind]) + ((x - guess) % 256).astype(np.uint8).tobytes()


def png(pixels: NDArray[np.uint8], *, color: int, depth: int, interlaced: bool = False) -> bytes:
    """A PNG of (H, W) or (H, W, channels) samples in some bits, of RGB by all filters; Pillow writes few such."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x, y, right, down in passes if interlaced else [(0, 0, 1, 1)]:
        part = pixels[y::down, x::right]
        for i, row in enumerate(part if part.size else ()):
            if color == 2 and depth == 8:
                raw += filtered(row.ravel(), part[i - 1].ravel() if i else np.zeros(row.size, np.uint8), i % 5)
            elif depth == 16:
                raw += b"\0" + row.astype(">u2").tobytes()
            else:
                bits = np.unpackbits(row.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
                raw += b"\0" + np.packbits(bits.ravel()).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, color, 0, 0, interlaced)
    end = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """PNGs of all kinds, by name."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (37, 53, 4), np.uint8)
    rgb = Image.fromarray(pixels[..., :3])
    files = {}
    for mode in ("RGB", "RGBA", "L", "LA", "1"):
        Image.fromarray(pixels).convert(mode).save(files.setdefault(mode, tmp_path / f"{mode}.png"))
    for colors, bits in ((200, 8), (13, 4), (3, 2), (2, 1)):
        rgb.quantize(colors).save(files.setdefault(f"palette {bits}", tmp_path / f"palette{bits}.png"), bits=bits)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        rgb.save(files.setdefault(f"EXIF {turn}", tmp_path / f"exif{turn}.png"), exif=exif)
    rgb.save(files.setdefault("tRNS", tmp_path / "trns.png"), transparency=(1, 2, 3))
    deep = random.integers(0, 65536, (11, 13, 4))
    contents = {
        "gray 2": png(pixels[..., 0] >> 6, color=0, depth=2),
        "gray 16": png(deep[..., 0], color=0, depth=16),
        "RGB 16": png(deep[..., :3], color=2, depth=16),
        "RGBA 16": png(deep, color=6, depth=16),
        "filters": png(pixels[..., :3], color=2, depth=8),
        "interlaced": png(pixels[..., :3], color=2, depth=8, interlaced=True),
        "interlaced gray 4": png(pixels[..., 0] >> 4, color=0, depth=4, interlaced=True),
        "interlaced small": png(pixels[:3, :2, :3], color=2, depth=8, interlaced=True),
    }
    for name, content in contents.items():
        files.setdefault(name, tmp_path / f"{name}.png").write_bytes(content)
    return files


def test_png_is_read_as_by_pillow(pictures: dict[str, Path], tmp_path: Path) -> None:
    jobs = [{"do": "png", "file": file, "bits": None, "to": f"{file}.rgba"} for file in pictures.values()]
    assert not any(node("pixels.mjs", jobs, tmp_path))
    for name, file in pictures.items():
        expected = load_image(file)
        pixels = np.fromfile(f"{file}.rgba", np.uint8).reshape(*expected.shape[:2], 4)
        assert (pixels[..., :3] == expected).all(), name
        assert (pixels[..., 3] == 255).all(), name


def test_bits_in_use_are_those_of_the_model(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 4096, (9, 7))
    contents = {"gray": gray, "beyond": gray + 1, "color": np.dstack([gray] * 3)}
    contents["beyond"][0, 0] = 4096
    jobs = []
    for name, pixels in contents.items():
        (tmp_path / f"{name}.png").write_bytes(png(pixels, color=2 if name == "color" else 0, depth=16))
        jobs.append({"do": "png", "file": tmp_path / f"{name}.png", "bits": 12, "to": tmp_path / f"{name}.rgba"})
    errors = node("pixels.mjs", jobs, tmp_path)
    pixels = np.fromfile(tmp_path / "gray.rgba", np.uint8).reshape(9, 7, 4)
    assert (pixels[..., :3] == load_image(tmp_path / "gray.png", bits=12)).all()
    assert [bool(error) for error in errors] == [False, True, True]
    assert "pixels reach 4096, more than the 12 bits" in errors[1]
    assert "16 bits per channel in color" in errors[2]
    for job in jobs[1:]:
        with pytest.raises(InputError):
            load_image(job["file"], bits=12)


def test_png_is_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mask, rgb = random.integers(0, 11, (37, 53), np.uint8), random.integers(0, 256, (37, 53, 3), np.uint8)
    mask.tofile(tmp_path / "mask")
    rgb.tofile(tmp_path / "rgb")
    colors = [[20 * i, 0, 255] for i in range(11)]
    jobs = [
        {"do": "encodeMask", "file": tmp_path / "mask", "size": (37, 53), "colors": colors, "to": tmp_path / "m.png"},
        {"do": "encodeRgb", "file": tmp_path / "rgb", "size": (37, 53), "to": tmp_path / "r.png"},
    ]
    assert not any(node("pixels.mjs", jobs, tmp_path))
    with Image.open(tmp_path / "m.png") as written:
        assert written.mode == "P"
        assert (np.asarray(written) == mask).all()
        assert (np.asarray(written.convert("RGB")) == np.array(colors)[mask]).all()
    with Image.open(tmp_path / "r.png") as written:
        assert (np.asarray(written) == rgb).all()


def test_a_png_that_breaks_off_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    content = png(pixels, color=2, depth=8)
    flipped = content[:3000] + bytes([content[3000] ^ 255]) + content[3001:]
    jobs = []
    for i, broken in enumerate((content[:20], content[:2000], content[:-40], flipped)):
        (tmp_path / f"{i}.png").write_bytes(broken)
        jobs.append({"do": "png", "file": tmp_path / f"{i}.png", "bits": None, "to": tmp_path / f"{i}.rgba"})
    assert all("not a readable PNG" in error for error in node("pixels.mjs", jobs, tmp_path))
