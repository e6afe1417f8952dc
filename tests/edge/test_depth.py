"""10, 12 or 14 bits in a file of 16 are scaled by what they are said to be, and never become almost black unsaid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.bit_depth import is_deep
from segformer_tf.config import check_bits
from segformer_tf.edge import load_image
from segformer_tf.errors import InputError
from segformer_tf.image import is_deep_file, largest_value_of
from tests.model.test_image import png

GREY = (np.arange(20 * 30).reshape(20, 30) * 6 + 5).astype(np.uint16)  # to 3599: 12 bits


def color_png(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which Pillow does not write."""
    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack([values] * 3, -1))
    return png(width, height, bits=16, kind=2, data=rows)


def save(path: Path, values: np.ndarray) -> Path:
    if path.suffix == ".ppm":
        path.write_bytes(b"P5 30 20 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_bits_of_a_file_are_scaled_to_eight(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, GREY)
    assert is_deep_file(path)
    assert largest_value_of(path) == GREY.max()
    np.testing.assert_array_equal(load_image(path), np.repeat((GREY >> 8)[..., None], 3, -1))
    for bits in (12, 13, 14, 16):
        np.testing.assert_array_equal(load_image(path, bits=bits), np.repeat((GREY >> (bits - 8))[..., None], 3, -1))
    with pytest.raises(InputError, match=rf"a\.{name[2:]}: pixels reach 3599, more than the 11 bits \(--bits\)"):
        load_image(path, bits=11)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_big_endian_and_32_bit_containers(mode: str, tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.int32) if mode == "I" else GREY.astype(">u2" if mode == "I;16B" else "<u2")).save(
        tmp_path / "a.tif"
    )
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.mode == mode
        np.testing.assert_array_equal(load_image(opened, bits=12)[..., 0], GREY >> 4)
    assert largest_value_of(tmp_path / "a.tif") == GREY.max()


def test_eight_bits_stay_as_they_are(tmp_path: Path) -> None:
    for values in (GREY.astype(np.uint8), np.stack([GREY.astype(np.uint8)] * 3, -1)):
        Image.fromarray(values).save(tmp_path / "a.png")
        assert not is_deep_file(tmp_path / "a.png")
        np.testing.assert_array_equal(load_image(tmp_path / "a.png", bits=12), load_image(tmp_path / "a.png"))


def test_a_file_that_says_its_largest_value_needs_no_bits(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P5 30 20 4095\n" + GREY.astype(">u2").tobytes())
    assert not is_deep_file(tmp_path / "a.ppm")
    for bits in (None, 12):
        pixels = load_image(tmp_path / "a.ppm", bits=bits)[..., 0].astype(int)
        assert np.abs(pixels - (GREY >> 4)).max() <= 1


def test_sixteen_bits_in_colour_are_refused_where_fewer_are_used(tmp_path: Path) -> None:
    (tmp_path / "rgb.png").write_bytes(color_png(GREY))
    assert is_deep_file(tmp_path / "rgb.png")
    assert largest_value_of(tmp_path / "rgb.png") == 65535  # which alone can be read
    for bits in (None, 16):
        np.testing.assert_array_equal(load_image(tmp_path / "rgb.png", bits=bits)[..., 0], GREY >> 8)
    with pytest.raises(InputError, match=r"rgb\.png: 16 bits per channel in color, .* so not 12 \(--bits\)"):
        load_image(tmp_path / "rgb.png", bits=12)


def test_pictures_in_memory(tmp_path: Path) -> None:
    for picture in (Image.fromarray(GREY), Image.fromarray(GREY.astype(np.int32))):
        np.testing.assert_array_equal(load_image(picture, bits=12)[..., 0], GREY >> 4)


@pytest.mark.parametrize("bits", [7, 17, 12.0, "12", True])
def test_a_depth_that_is_none_is_refused(bits: object) -> None:
    with pytest.raises(InputError, match="--bits must be an integer from 8 to 16"):
        check_bits(bits, name="--bits")
    assert check_bits(None) is None


def test_a_dark_file_that_says_its_largest_value_stays_dark(tmp_path: Path) -> None:
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 4095\n" + bytes([0, 12, 0, 13]))
    assert load_image(tmp_path / "dark.pgm").max() == 0


def test_five_bits_of_a_bitmap_are_not_sixteen() -> None:
    opened = Image.new("RGB", (2, 2))
    opened.tile = [("raw", (0, 0, 2, 2), 0, ("BGR;16", 0, -1))]
    assert not is_deep(opened)
