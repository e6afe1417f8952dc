from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer_tf.edge import fit_image, list_images, load_image
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


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert load_image(path).shape == (20, 30, 3)


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
