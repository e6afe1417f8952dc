"""TIFFs by windows: read as Pillow reads them, refused where that is not possible, and written with their place."""

from __future__ import annotations

import json
import resource
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rich.progress import Progress

from segformer_tf.cli import main
from segformer_tf.edge import Segmenter, fit_image, load_image
from segformer_tf.edge.predict import geotiff
from segformer_tf.edge.predict.geotiff import open_tiff
from segformer_tf.edge.predict.large import segment_tiff
from segformer_tf.errors import InputError
from segformer_tf.overlay import overlay

H, W = 230, 345
RGB = fit_image(np.random.default_rng(0).integers(0, 256, (17, 19, 3), np.uint8), (H, W))
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.1, 0, 500000, 0, -0.1, 5e6)}
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    """(H, W) or (H, W, bands) of 8 or 16 bits."""
    bands = np.atleast_3d(values).transpose(2, 0, 1)
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": str(bands.dtype)}
    colors, colormap = options.pop("colors", None), options.pop("colormap", None)
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="GTiff", **shape, **options) as new,
    ):
        new.write(bands)
        if colors:
            new.colorinterp = colors
        if colormap:
            new.write_colormap(1, colormap)
    return path


def read_whole(path: Path, bits: int | None = None) -> np.ndarray:
    """By blocks of no size of anything."""
    with open_tiff(path, bits=bits) as read:
        out = np.zeros((*read.size, 3), np.uint8)
        for y in range(0, read.size[0], 51):
            for x in range(0, read.size[1], 77):
                rows, columns = slice(y, min(y + 51, read.size[0])), slice(x, min(x + 77, read.size[1]))
                out[rows, columns] = read(rows, columns)
    return out


DEEP = (RGB.astype(np.uint16) << 8) | RGB[::-1]
KINDS: dict[str, tuple[np.ndarray, dict[str, Any], int | None]] = {
    "tiles": (RGB, {**TILES, "compress": "deflate", "photometric": "rgb", **PLACE}, None),
    "strips": (RGB, {"compress": "lzw", "predictor": 2, "photometric": "rgb", "interleave": "pixel"}, None),
    "raw": (RGB, {"photometric": "rgb", "interleave": "pixel"}, None),
    "big": (RGB, {**TILES, "bigtiff": "yes", "photometric": "rgb", "compress": "packbits"}, None),
    "jpeg": (RGB, {**TILES, "compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"}, None),
    "rgba": (np.dstack([RGB, RGB[..., 0]]), {"photometric": "rgb", "alpha": "yes", "interleave": "pixel"}, None),
    "gray": (RGB[..., 0], {"compress": "zstd"}, None),
    "white is 0": (RGB[..., 0], {"photometric": "miniswhite"}, None),
    "palette": (
        RGB[..., 0],
        {"photometric": "palette", "colormap": {i: (i, 255 - i, i // 2, 255) for i in range(256)}},
        None,
    ),
    "16 bits": (DEEP[..., 0], {}, None),
    "12 of 16 bits": (DEEP[..., 0] >> 4, TILES, 12),
    "16 bits in color": (DEEP, {"photometric": "rgb", "interleave": "pixel"}, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_what_pillow_reads(kind: str, tmp_path: Path) -> None:
    values, options, bits = KINDS[kind]
    path = write(tmp_path / "a.tif", values, **options)
    try:
        expected = load_image(path, bits=bits)
    except InputError:  # this Pillow reads no zstd
        assert kind == "gray"
        expected = np.repeat(values[..., None], 3, axis=2)
    read = read_whole(path, bits)
    if kind == "jpeg":  # colors at half size, which two decoders double in two ways
        assert np.abs(read.astype(int) - expected).mean() < 1
    else:
        np.testing.assert_array_equal(read, expected)
    assert read.std() > 10


def test_what_pillow_cannot_read(tmp_path: Path) -> None:
    """Planes apart, and 12 bits in color."""
    planes = write(tmp_path / "planes.tif", RGB, photometric="rgb", interleave="band", compress="deflate", **TILES)
    np.testing.assert_array_equal(read_whole(planes), RGB)
    deep = write(tmp_path / "deep.tif", DEEP >> 4, photometric="rgb")
    np.testing.assert_array_equal(read_whole(deep, 12), RGB)
    with open_tiff(deep, bits=12) as read:
        read(slice(0, 9), slice(0, 9))
        assert read.largest == (DEEP[:9, :9] >> 4).max()


def refused(path: Path, bits: int | None = None) -> str:
    with pytest.raises(InputError) as error:
        read_whole(path, bits)
    assert str(path) in str(error.value)
    return str(error.value)


def test_other_bands_and_kinds_are_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = np.dstack([RGB, RGB[..., 0]])
    near = write(tmp_path / "nir.tif", four, photometric="rgb", colors=[*list(ColorInterp)[3:6], ColorInterp.undefined])
    assert "Received: 4 bands (red, green, blue, undefined)" in refused(near)
    assert "Received: 7 bands" in refused(write(tmp_path / "7.tif", np.dstack([four, RGB]), photometric="minisblack"))
    assert "Received: 2 bands" in refused(write(tmp_path / "2.tif", RGB[..., :2]))
    assert "Received: int16" in refused(write(tmp_path / "i.tif", RGB[..., 0].astype(np.int16)))
    assert "Received: float32" in refused(write(tmp_path / "f.tif", RGB.astype(np.float32)))
    assert "Received: 12 bits" in refused(write(tmp_path / "n.tif", DEEP[..., 0] >> 4, nbits=12))
    assert "0 is white" in refused(write(tmp_path / "w.tif", DEEP[..., 0], photometric="miniswhite"))
    assert "more than the 12 bits (--bits)" in refused(write(tmp_path / "b.tif", DEEP[..., 0]), 12)
    Image.fromarray(RGB).save(tmp_path / "turned.tif", exif=(exif := Image.Exif()) or exif, tiffinfo={274: 6})
    assert "orientation 6" in refused(tmp_path / "turned.tif")
    Image.fromarray(RGB).save(tmp_path / "png.tif", "PNG")
    assert "not a readable TIFF" in refused(tmp_path / "png.tif")
    assert "no such image" in refused(tmp_path / "missing.tif")
    (tmp_path / "vrt.tif").write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9"><!-- {tmp_path} --></VRTDataset>')
    assert "not a readable TIFF" in refused(tmp_path / "vrt.tif")
    monkeypatch.setattr(geotiff, "_LARGEST_BLOCK", 1 << 16)
    one = write(tmp_path / "one.tif", RGB, photometric="rgb", blockysize=H, compress="deflate")
    assert f"blocks of {H}x{W} pixels" in refused(one)


def test_bands_without_colors_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", DEEP, photometric="minisblack")
    with open_tiff(path, bits=None) as read:
        assert "its three bands have no color; they are read as red, green and blue" in read.note
        np.testing.assert_array_equal(read(slice(0, H), slice(0, W)), RGB)


def predict(model: Path, image: Path, out: Path, *options: object) -> dict[str, Any]:
    main([*map(str, ("predict", model, image, "--out", out, "--slide", *options))])
    (record,) = json.loads((out / "predictions.json").read_text()).values()
    return record


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_mask_and_overlay_are_those_of_memory_and_keep_the_place(
    tiny_files: dict, tmp_path: Path, scale: float
) -> None:
    model, path = tiny_files["int8"], write(tmp_path / "a.tif", RGB, **KINDS["tiles"][1])
    record = predict(model, path, tmp_path / "out", "--stride", 50, "--scale", scale)
    expected = Segmenter(model)(RGB, slide=50, scale=scale)
    with Image.open(tmp_path / "out" / "a_mask.tif") as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected.mask)
        colors = np.asarray(expected.labels.colors, np.uint8)[expected.mask]
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), colors)
    with rasterio.open(tmp_path / "out" / "a_overlay.tif") as file:
        seen = file.read().transpose(1, 2, 0).astype(int)
        assert (file.crs, file.transform) == ("EPSG:32633", PLACE["transform"])
    assert np.abs(seen - overlay(RGB, expected.mask, expected.labels)).mean() < 4  # JPEG
    with rasterio.open(tmp_path / "out" / "a_mask.tif") as file:
        assert (file.crs, file.transform, file.nodata) == ("EPSG:32633", PLACE["transform"], None)
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"
    whole = json.loads(expected.to_json())
    assert {**record, "speed_ms": 0} == {**whole, "speed_ms": 0}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_mask.tif", "a_overlay.tif", "predictions.json"]


def test_ground_control_points_are_kept(tiny_files: dict, tmp_path: Path) -> None:
    points = [GroundControlPoint(row=r, col=c, x=10 + c / 99, y=50 - r / 99, z=0) for r, c in ((0, 0), (0, W), (H, 9))]
    path = write(tmp_path / "a.tif", RGB, photometric="rgb", gcps=points, crs="EPSG:4326")
    predict(tiny_files["int8"], path, tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "a_mask.tif") as file:
        kept, system = file.gcps
    assert system == "EPSG:4326"
    assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]


@pytest.mark.parametrize("how", ["nodata", "alpha"])
def test_pixels_without_data_are_no_class(tiny_files: dict, tmp_path: Path, how: str) -> None:
    gap = np.zeros((H, W), bool)
    gap[100:, :120] = True
    values = np.where(gap[..., None], 0, np.maximum(RGB, 1)).astype(np.uint8)
    if how == "nodata":
        path = write(tmp_path / "a.tif", values, photometric="rgb", nodata=0)
    else:
        path = write(
            tmp_path / "a.tif",
            np.dstack([values, np.where(gap, 0, 9)]).astype(np.uint8),
            photometric="rgb",
            alpha="yes",
        )
    record = predict(tiny_files["int8"], path, tmp_path / "out")
    expected = np.where(gap, 255, Segmenter(tiny_files["int8"])(values, slide=True).mask)
    with rasterio.open(tmp_path / "out" / "a_mask.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected)
        assert file.nodata == 255
        assert file.mask_flag_enums == ([MaskFlags.nodata],)
    assert sum(c["share"] for c in record["classes"]) == pytest.approx(1, abs=1e-4)


def test_a_damaged_file_leaves_nothing(tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "a.tif", RGB, photometric="rgb", compress="deflate", **TILES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(SystemExit):
        predict(tiny_files["int8"], path, tmp_path / "out")
    assert "left out: 1 of 1 image" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("most", [30, 200, 2000, 6000])
def test_a_full_disk_leaves_nothing(tiny_files: dict, tmp_path: Path, most: int) -> None:
    """Also where the file ends while it is closed, of which GDAL says nothing."""
    path = write(tmp_path / "a.tif", RGB, photometric="rgb")
    before, ignore = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    progress = Progress(disable=True)
    segmenter = Segmenter(tiny_files["int8"])
    options = {"slide": True, "scale": 1.0, "progress": progress}
    segment_tiff(segmenter, path, tmp_path / "first", "a", **options)
    size = (tmp_path / "first" / "a_overlay.tif").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - most, before[1]))
    try:
        with pytest.raises(InputError, match=r"a_overlay\.tif: cannot be written"):
            segment_tiff(segmenter, path, tmp_path / "out", "a", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignore)
    assert not list((tmp_path / "out").iterdir())
    assert not progress.tasks


def test_results_are_not_overwritten_and_dark_files_are_named(
    tiny_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write(tmp_path / "a.tif", RGB[..., 0].astype(np.uint16) << 4)
    predict(tiny_files["int8"], path, tmp_path / "out")
    assert f"its values reach {int(RGB[..., 0].max()) << 4}, of 65535" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(tiny_files["int8"], path, tmp_path / "out")
    assert "exists already" in capsys.readouterr().err
