"""Photographs of phones: HEIC and AVIF, turned as they were held."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps, features

from segformer_tf.edge import list_images, load_image
from segformer_tf.errors import InputError
from segformer_tf.image import read_head, skipped_files

pillow_heif.register_heif_opener()  # for the tests to write them
SQUARES = np.zeros((64, 96, 3), np.uint8)
SQUARES[:32, :48], SQUARES[:32, 48:], SQUARES[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def photo(path: Path, turn: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(SQUARES).save(path, exif=exif.tobytes(), quality=95)
    return path


@pytest.mark.parametrize("suffix", [".heic", ".heif", ".avif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_photographs_of_phones_stand_upright(
    suffix: str, turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("needs a Pillow with AVIF")
    path = photo(tmp_path / f"a{suffix}", turn)
    with Image.open(photo(tmp_path / "a.png", turn)) as png:
        expected = np.asarray(ImageOps.exif_transpose(png)).astype(int)
    monkeypatch.delitem(Image.OPEN, "HEIF")  # as in a process that wrote none
    pixels = load_image(path)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 8
    assert read_head(path).upright == expected.shape[:2]
    np.testing.assert_array_equal(load_image(path.read_bytes()), pixels)
    with path.open("rb") as file:
        file.seek(9)  # wherever it stands
        np.testing.assert_array_equal(load_image(file), pixels)
    assert list_images([tmp_path]) == [path, tmp_path / "a.png"] if suffix != ".heif" else True


def test_without_a_reader_a_line_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heic, avif = photo(tmp_path / "a.heic", 1), tmp_path / "a.avif"
    avif.write_bytes(heic.read_bytes().replace(b"heic", b"avif"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(InputError, match=r"a\.heic: a HEIC file, for which pillow-heif is needed: pip install"):
        load_image(heic)
    with pytest.raises(InputError, match=r"a\.avif: an AVIF file, which Pillow reads from version 11\.3"):
        load_image(avif)


def test_cut_files_are_refused(tmp_path: Path) -> None:
    whole = photo(tmp_path / "a.heic", 1).read_bytes()
    for length in (5, 12, 40, len(whole) // 2):
        (tmp_path / "b.heic").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"b\.heic: not a readable image"):
            load_image(tmp_path / "b.heic")


def test_another_kind_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    Image.fromarray(SQUARES).save(tmp_path / "a.gif")
    with pytest.raises(
        InputError, match=r"a\.gif: not a readable image \(none of JPEG, PNG, BMP, WEBP, TIFF, PPM, HEIC"
    ):
        load_image(tmp_path / "a.gif")
    with pytest.raises(InputError, match="bytes: not a readable image"):
        load_image(io.StringIO("no bytes"))  # type: ignore[arg-type]


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return whole if size == -1 else b""

    whole = photo(tmp_path / "a.heic", 6).read_bytes()
    np.testing.assert_array_equal(load_image(Pipe()), load_image(whole))  # type: ignore[arg-type]


def test_skipped_files_are_counted_by_kind(tmp_path: Path) -> None:
    assert skipped_files([tmp_path]) == ""
    for name in ("a.png", "b.HEIC", ".c.txt", "d.txt", "e.TXT", "f", "g.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.txt").mkdir()
    assert skipped_files([tmp_path, tmp_path / "d.txt"]) == "4 files skipped: .txt 2, without a suffix 1, .mp4 1"
    (tmp_path / "g.mp4").unlink()
    assert skipped_files([str(tmp_path)]).startswith("3 files skipped")
